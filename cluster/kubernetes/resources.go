package kubernetes

import (
	"slices"

	corev1 "k8s.io/api/core/v1"
	discoveryv1 "k8s.io/api/discovery/v1"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
	"k8s.io/apimachinery/pkg/runtime"
	"k8s.io/apimachinery/pkg/runtime/schema"
	gatewayv1 "sigs.k8s.io/gateway-api/apis/v1"
	gatewayv1beta1 "sigs.k8s.io/gateway-api/apis/v1beta1"
	mcsv1beta1 "sigs.k8s.io/mcs-api/pkg/apis/v1beta1"

	"github.com/causeway-mesh/causeway/cluster"
)

const (
	groupGateway      = gatewayv1.GroupName
	groupMultiCluster = mcsv1beta1.GroupName
)

// resource is how the API serves a kind.
type resource struct {
	kind       cluster.Kind
	group      string
	plural     string
	namespaced bool
	// versions, the best first. All have the fields of the Go type, so that any of
	// them is read into it; delivered is the one that objects then claim to be.
	versions  []string
	delivered string
	// custom kinds may be missing.
	custom bool
	// single kinds are read one object at a time, where something refers to it.
	single bool
	// hidden kinds are never delivered: only their Live is kept.
	hidden bool
	// selector leaves objects out at the server.
	selector string
	example  runtime.Object // of the Go type
}

// LabelDerived is on every Service and EndpointSlice that the agent derives from
// a ServiceImport. They are results: the Source leaves them out.
const LabelDerived = "causeway.dev/derived"

// resources lists all kinds in the order of cluster.Kinds, ServiceImport last.
var resources = []*resource{
	{kind: cluster.KindNamespace, plural: "namespaces", versions: []string{"v1"}, delivered: "v1", example: &corev1.Namespace{}},
	{kind: cluster.KindService, plural: "services", namespaced: true, versions: []string{"v1"}, delivered: "v1", selector: "!" + LabelDerived, example: &corev1.Service{}},
	{kind: cluster.KindServiceExport, group: groupMultiCluster, plural: "serviceexports", namespaced: true, versions: []string{"v1beta1", "v1alpha1"}, delivered: "v1beta1", custom: true, example: &mcsv1beta1.ServiceExport{}},
	{kind: cluster.KindEndpointSlice, group: discoveryv1.GroupName, plural: "endpointslices", namespaced: true, versions: []string{"v1"}, delivered: "v1", selector: cluster.LabelServiceName + ",!" + LabelDerived, example: &discoveryv1.EndpointSlice{}},
	{kind: cluster.KindSecret, plural: "secrets", namespaced: true, versions: []string{"v1"}, delivered: "v1", single: true, example: &corev1.Secret{}},
	{kind: cluster.KindConfigMap, plural: "configmaps", namespaced: true, versions: []string{"v1"}, delivered: "v1", single: true, example: &corev1.ConfigMap{}},
	{kind: cluster.KindGatewayClass, group: groupGateway, plural: "gatewayclasses", versions: []string{"v1", "v1beta1"}, delivered: "v1", custom: true, example: &gatewayv1.GatewayClass{}},
	{kind: cluster.KindGateway, group: groupGateway, plural: "gateways", namespaced: true, versions: []string{"v1", "v1beta1"}, delivered: "v1", custom: true, example: &gatewayv1.Gateway{}},
	{kind: cluster.KindListenerSet, group: groupGateway, plural: "listenersets", namespaced: true, versions: []string{"v1"}, delivered: "v1", custom: true, example: &gatewayv1.ListenerSet{}},
	{kind: cluster.KindHTTPRoute, group: groupGateway, plural: "httproutes", namespaced: true, versions: []string{"v1", "v1beta1"}, delivered: "v1", custom: true, example: &gatewayv1.HTTPRoute{}},
	{kind: cluster.KindGRPCRoute, group: groupGateway, plural: "grpcroutes", namespaced: true, versions: []string{"v1"}, delivered: "v1", custom: true, example: &gatewayv1.GRPCRoute{}},
	{kind: cluster.KindTLSRoute, group: groupGateway, plural: "tlsroutes", namespaced: true, versions: []string{"v1", "v1alpha3", "v1alpha2"}, delivered: "v1", custom: true, example: &gatewayv1.TLSRoute{}},
	{kind: cluster.KindTCPRoute, group: groupGateway, plural: "tcproutes", namespaced: true, versions: []string{"v1", "v1alpha2"}, delivered: "v1", custom: true, example: &gatewayv1.TCPRoute{}},
	{kind: cluster.KindUDPRoute, group: groupGateway, plural: "udproutes", namespaced: true, versions: []string{"v1", "v1alpha2"}, delivered: "v1", custom: true, example: &gatewayv1.UDPRoute{}},
	{kind: cluster.KindBackendTLSPolicy, group: groupGateway, plural: "backendtlspolicies", namespaced: true, versions: []string{"v1", "v1alpha3"}, delivered: "v1", custom: true, example: &gatewayv1.BackendTLSPolicy{}},
	{kind: cluster.KindReferenceGrant, group: groupGateway, plural: "referencegrants", namespaced: true, versions: []string{"v1", "v1beta1"}, delivered: "v1beta1", custom: true, example: &gatewayv1beta1.ReferenceGrant{}},
	{kind: cluster.KindServiceImport, group: groupMultiCluster, plural: "serviceimports", namespaced: true, versions: []string{"v1beta1", "v1alpha1"}, delivered: "v1beta1", custom: true, hidden: true, example: &mcsv1beta1.ServiceImport{}},
}

// byKind finds a resource; nil for kinds that the API of a cluster doesn't have.
func byKind(k cluster.Kind) *resource {
	if i := slices.IndexFunc(resources, func(r *resource) bool { return r.kind == k }); i >= 0 {
		return resources[i]
	}
	return nil
}

// apiVersion is what delivered objects claim to be.
func (r *resource) apiVersion() string {
	return schema.GroupVersion{Group: r.group, Version: r.delivered}.String()
}

// definition is the name of the kind's CustomResourceDefinition.
func (r *resource) definition() string { return r.plural + "." + r.group }

// newScheme knows every kind in every version that is read.
func newScheme() *runtime.Scheme {
	s := runtime.NewScheme()
	metav1.AddToGroupVersion(s, schema.GroupVersion{Version: "v1"})
	seen := map[schema.GroupVersion]bool{{Version: "v1"}: true}
	for _, r := range resources {
		for _, v := range r.versions {
			gv := schema.GroupVersion{Group: r.group, Version: v}
			if !seen[gv] {
				seen[gv] = true
				metav1.AddToGroupVersion(s, gv)
			}
			s.AddKnownTypeWithName(gv.WithKind(string(r.kind)), r.example)
			s.AddKnownTypeWithName(gv.WithKind(string(r.kind)+"List"), listOf(r.kind))
		}
	}
	return s
}

func listOf(k cluster.Kind) runtime.Object {
	switch k {
	case cluster.KindNamespace:
		return &corev1.NamespaceList{}
	case cluster.KindService:
		return &corev1.ServiceList{}
	case cluster.KindServiceExport:
		return &mcsv1beta1.ServiceExportList{}
	case cluster.KindEndpointSlice:
		return &discoveryv1.EndpointSliceList{}
	case cluster.KindSecret:
		return &corev1.SecretList{}
	case cluster.KindConfigMap:
		return &corev1.ConfigMapList{}
	case cluster.KindGatewayClass:
		return &gatewayv1.GatewayClassList{}
	case cluster.KindGateway:
		return &gatewayv1.GatewayList{}
	case cluster.KindListenerSet:
		return &gatewayv1.ListenerSetList{}
	case cluster.KindHTTPRoute:
		return &gatewayv1.HTTPRouteList{}
	case cluster.KindGRPCRoute:
		return &gatewayv1.GRPCRouteList{}
	case cluster.KindTLSRoute:
		return &gatewayv1.TLSRouteList{}
	case cluster.KindTCPRoute:
		return &gatewayv1.TCPRouteList{}
	case cluster.KindUDPRoute:
		return &gatewayv1.UDPRouteList{}
	case cluster.KindBackendTLSPolicy:
		return &gatewayv1.BackendTLSPolicyList{}
	case cluster.KindReferenceGrant:
		return &gatewayv1beta1.ReferenceGrantList{}
	case cluster.KindServiceImport:
		return &mcsv1beta1.ServiceImportList{}
	}
	panic("kubernetes: no list type of " + string(k)) // each resource is in the test of the scheme
}
