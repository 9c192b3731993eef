package file

import (
	apivalidation "k8s.io/apimachinery/pkg/api/validation"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
	"k8s.io/apimachinery/pkg/runtime"
	gatewayv1 "sigs.k8s.io/gateway-api/apis/v1"
	gatewayv1beta1 "sigs.k8s.io/gateway-api/apis/v1beta1"
	mcsv1beta1 "sigs.k8s.io/mcs-api/pkg/apis/v1beta1"
)

func readGatewayClass(r *reader, d *document) (any, *metav1.ObjectMeta) {
	var o gatewayv1.GatewayClass
	r.custom(d, "gatewayclasses", "v1", &o, &o.TypeMeta, &o.ObjectMeta)
	return &o, &o.ObjectMeta
}

func readGateway(r *reader, d *document) (any, *metav1.ObjectMeta) {
	var o gatewayv1.Gateway
	r.custom(d, "gateways", "v1", &o, &o.TypeMeta, &o.ObjectMeta)
	return &o, &o.ObjectMeta
}

func readHTTPRoute(r *reader, d *document) (any, *metav1.ObjectMeta) {
	var o gatewayv1.HTTPRoute
	r.custom(d, "httproutes", "v1", &o, &o.TypeMeta, &o.ObjectMeta)
	return &o, &o.ObjectMeta
}

func readGRPCRoute(r *reader, d *document) (any, *metav1.ObjectMeta) {
	var o gatewayv1.GRPCRoute
	r.custom(d, "grpcroutes", "v1", &o, &o.TypeMeta, &o.ObjectMeta)
	return &o, &o.ObjectMeta
}

func readTLSRoute(r *reader, d *document) (any, *metav1.ObjectMeta) {
	var o gatewayv1.TLSRoute
	r.custom(d, "tlsroutes", "v1", &o, &o.TypeMeta, &o.ObjectMeta)
	return &o, &o.ObjectMeta
}

func readTCPRoute(r *reader, d *document) (any, *metav1.ObjectMeta) {
	var o gatewayv1.TCPRoute
	r.custom(d, "tcproutes", "v1", &o, &o.TypeMeta, &o.ObjectMeta)
	return &o, &o.ObjectMeta
}

func readUDPRoute(r *reader, d *document) (any, *metav1.ObjectMeta) {
	var o gatewayv1.UDPRoute
	r.custom(d, "udproutes", "v1", &o, &o.TypeMeta, &o.ObjectMeta)
	return &o, &o.ObjectMeta
}

func readListenerSet(r *reader, d *document) (any, *metav1.ObjectMeta) {
	var o gatewayv1.ListenerSet
	r.custom(d, "listenersets", "v1", &o, &o.TypeMeta, &o.ObjectMeta)
	return &o, &o.ObjectMeta
}

func readBackendTLSPolicy(r *reader, d *document) (any, *metav1.ObjectMeta) {
	var o gatewayv1.BackendTLSPolicy
	r.custom(d, "backendtlspolicies", "v1", &o, &o.TypeMeta, &o.ObjectMeta)
	return &o, &o.ObjectMeta
}

func readReferenceGrant(r *reader, d *document) (any, *metav1.ObjectMeta) {
	var o gatewayv1beta1.ReferenceGrant
	r.custom(d, "referencegrants", "v1beta1", &o, &o.TypeMeta, &o.ObjectMeta)
	return &o, &o.ObjectMeta
}

func readServiceExport(r *reader, d *document) (any, *metav1.ObjectMeta) {
	var o mcsv1beta1.ServiceExport
	r.custom(d, "serviceexports", "v1beta1", &o, &o.TypeMeta, &o.ObjectMeta)
	return &o, &o.ObjectMeta
}

// custom reads an object that a CustomResourceDefinition defines. All versions
// of the kinds here have the same fields, so the version that is delivered
// takes any of them. Each version is judged by its own rules, as an API server
// does: those of an older one may allow more (up to 16 rules in a TCPRoute or
// UDPRoute of v1alpha2, a TLSRoute of v1alpha2 without hostnames), so whoever
// reads the object must not rely on the rules of the newest.
func (r *reader) custom(d *document, plural, delivered string, into any, tm *metav1.TypeMeta, om *metav1.ObjectMeta) {
	s, err := r.schemas.of(plural, d.version)
	if err != nil {
		d.fail("apiVersion", "%v", err)
		return
	}
	meta := d.meta(apivalidation.NameIsDNSSubdomain)
	s.admit(d)
	if len(d.problems) > 0 {
		return
	}
	delete(d.obj, "metadata")
	delete(d.obj, "status") // a definition's defaults may have brought one
	if err := runtime.DefaultUnstructuredConverter.FromUnstructured(d.obj, into); err != nil {
		d.fail("", "%v", err)
		return
	}
	*om = meta
	tm.APIVersion = joinVersions(groupOf(tm.APIVersion), []string{delivered})
}
