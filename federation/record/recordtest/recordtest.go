// Package recordtest makes objects for the tests of the packages that write
// records and read them.
package recordtest

import (
	"crypto/ecdsa"
	"crypto/elliptic"
	"crypto/rand"
	"crypto/x509"
	"crypto/x509/pkix"
	"fmt"
	"math/big"
	"net/netip"
	"testing"
	"time"

	corev1 "k8s.io/api/core/v1"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
	"pgregory.net/rapid"
	gatewayv1 "sigs.k8s.io/gateway-api/apis/v1"
	gatewayv1beta1 "sigs.k8s.io/gateway-api/apis/v1beta1"
	mcsv1beta1 "sigs.k8s.io/mcs-api/pkg/apis/v1beta1"

	"github.com/causeway-mesh/causeway/cluster"
)

// At is the creation time of the n-th object.
func At(n int) time.Time {
	return time.Date(2026, 1, 1, 0, 0, 0, 0, time.UTC).Add(time.Duration(n) * time.Second)
}

// Object puts a value under a name, as old as At(age).
func Object(id cluster.ID, kind cluster.Kind, ns, name string, age int, value any) *cluster.Object {
	return &cluster.Object{Ref: cluster.Ref{Kind: kind, Namespace: ns, Name: name}, Cluster: id,
		Seniority: cluster.Seniority{Created: At(age)}, Value: value, Origin: fmt.Sprintf("%s.yaml:%d", name, age)}
}

func typed(apiVersion string, kind cluster.Kind) metav1.TypeMeta {
	return metav1.TypeMeta{APIVersion: apiVersion, Kind: string(kind)}
}

// Namespace makes a Namespace; value becomes a label.
func Namespace(id cluster.ID, name string, age int, value string) *cluster.Object {
	return Object(id, cluster.KindNamespace, "", name, age, &corev1.Namespace{TypeMeta: typed("v1", cluster.KindNamespace),
		ObjectMeta: metav1.ObjectMeta{Name: name, Labels: map[string]string{"value": value}}})
}

// Service makes a Service with one port.
func Service(id cluster.ID, ns, name string, age int, port int32) *cluster.Object {
	return Object(id, cluster.KindService, ns, name, age, &corev1.Service{TypeMeta: typed("v1", cluster.KindService),
		ObjectMeta: metav1.ObjectMeta{Namespace: ns, Name: name},
		Spec: corev1.ServiceSpec{Type: corev1.ServiceTypeClusterIP, SessionAffinity: corev1.ServiceAffinityNone,
			Ports: []corev1.ServicePort{{Name: "http", Protocol: corev1.ProtocolTCP, Port: port}}}})
}

// Export makes a ServiceExport; weight becomes an annotation.
func Export(id cluster.ID, ns, name string, age int, weight string) *cluster.Object {
	return Object(id, cluster.KindServiceExport, ns, name, age, &mcsv1beta1.ServiceExport{
		TypeMeta:   typed(mcsv1beta1.GroupVersion.String(), cluster.KindServiceExport),
		ObjectMeta: metav1.ObjectMeta{Namespace: ns, Name: name, Annotations: map[string]string{cluster.AnnotationWeight: weight}}})
}

// Slice makes an EndpointSlice of n endpoints.
func Slice(id cluster.ID, ns, service, name string, age, n int) *cluster.Object {
	s := &cluster.EndpointSlice{Service: service, Ports: []cluster.EndpointPort{{Name: "http", Port: 8080, Protocol: "TCP"}}}
	for i := range n {
		s.Endpoints = append(s.Endpoints, cluster.Endpoint{Addr: netip.AddrFrom4([4]byte{10, 0, byte(i >> 8), byte(i)}), Pod: fmt.Sprintf("%s-%d", service, i), Ready: i%3 != 2, Serving: true})
	}
	return Object(id, cluster.KindEndpointSlice, ns, name, age, s)
}

// Route makes an HTTPRoute with one rule for a path, from one ServiceImport to another.
func Route(id cluster.ID, ns, name string, age int, parent, backend, path string) *cluster.Object {
	group, kind, prefix, port := gatewayv1.Group("multicluster.x-k8s.io"), gatewayv1.Kind("ServiceImport"), gatewayv1.PathMatchPathPrefix, gatewayv1.PortNumber(80)
	return Object(id, cluster.KindHTTPRoute, ns, name, age, &gatewayv1.HTTPRoute{
		TypeMeta:   typed(gatewayv1.GroupVersion.String(), cluster.KindHTTPRoute),
		ObjectMeta: metav1.ObjectMeta{Namespace: ns, Name: name},
		Spec: gatewayv1.HTTPRouteSpec{
			CommonRouteSpec: gatewayv1.CommonRouteSpec{ParentRefs: []gatewayv1.ParentReference{{Group: &group, Kind: &kind, Name: gatewayv1.ObjectName(parent)}}},
			Rules: []gatewayv1.HTTPRouteRule{{
				Matches: []gatewayv1.HTTPRouteMatch{{Path: &gatewayv1.HTTPPathMatch{Type: &prefix, Value: &path}}},
				BackendRefs: []gatewayv1.HTTPBackendRef{{BackendRef: gatewayv1.BackendRef{BackendObjectReference: gatewayv1.BackendObjectReference{
					Group: &group, Kind: &kind, Name: gatewayv1.ObjectName(backend), Port: &port}}}},
			}},
		}})
}

// Gateway makes a Gateway with one HTTP listener.
func Gateway(id cluster.ID, ns, name string, age int, port int32) *cluster.Object {
	return Object(id, cluster.KindGateway, ns, name, age, &gatewayv1.Gateway{
		TypeMeta:   typed(gatewayv1.GroupVersion.String(), cluster.KindGateway),
		ObjectMeta: metav1.ObjectMeta{Namespace: ns, Name: name},
		Spec: gatewayv1.GatewaySpec{GatewayClassName: cluster.ClassCauseway,
			Listeners: []gatewayv1.Listener{{Name: "http", Protocol: gatewayv1.HTTPProtocolType, Port: port}}}})
}

// Grant makes a ReferenceGrant that lets HTTPRoutes of one namespace refer to Services.
func Grant(id cluster.ID, ns, name string, age int, from string) *cluster.Object {
	return Object(id, cluster.KindReferenceGrant, ns, name, age, &gatewayv1beta1.ReferenceGrant{
		TypeMeta:   typed(gatewayv1beta1.GroupVersion.String(), cluster.KindReferenceGrant),
		ObjectMeta: metav1.ObjectMeta{Namespace: ns, Name: name},
		Spec: gatewayv1beta1.ReferenceGrantSpec{
			From: []gatewayv1beta1.ReferenceGrantFrom{{Group: gatewayv1.GroupName, Kind: "HTTPRoute", Namespace: gatewayv1.Namespace(from)}},
			To:   []gatewayv1beta1.ReferenceGrantTo{{Kind: "Service"}},
		}})
}

// Parent names a parent in the route's own namespace.
func Parent(kind cluster.Kind, name string) gatewayv1.ParentReference {
	group := map[cluster.Kind]gatewayv1.Group{cluster.KindGateway: gatewayv1.GroupName, cluster.KindListenerSet: gatewayv1.GroupName, cluster.KindServiceImport: "multicluster.x-k8s.io"}[kind]
	k := gatewayv1.Kind(kind)
	return gatewayv1.ParentReference{Group: &group, Kind: &k, Name: gatewayv1.ObjectName(name)}
}

func common(p gatewayv1.ParentReference) gatewayv1.CommonRouteSpec {
	return gatewayv1.CommonRouteSpec{ParentRefs: []gatewayv1.ParentReference{p}}
}

func backends(port int32) []gatewayv1.BackendRef {
	return []gatewayv1.BackendRef{{BackendObjectReference: gatewayv1.BackendObjectReference{Name: "b", Port: &port}}}
}

// GRPCRoute makes a GRPCRoute with one rule, for a gRPC service.
func GRPCRoute(id cluster.ID, ns, name string, age int, parent gatewayv1.ParentReference, service string) *cluster.Object {
	exact := gatewayv1.GRPCMethodMatchExact
	return Object(id, cluster.KindGRPCRoute, ns, name, age, &gatewayv1.GRPCRoute{
		TypeMeta:   typed(gatewayv1.GroupVersion.String(), cluster.KindGRPCRoute),
		ObjectMeta: metav1.ObjectMeta{Namespace: ns, Name: name},
		Spec: gatewayv1.GRPCRouteSpec{CommonRouteSpec: common(parent), Rules: []gatewayv1.GRPCRouteRule{{
			Matches:     []gatewayv1.GRPCRouteMatch{{Method: &gatewayv1.GRPCMethodMatch{Type: &exact, Service: &service}}},
			BackendRefs: []gatewayv1.GRPCBackendRef{{BackendRef: backends(80)[0]}},
		}}}})
}

// TLSRoute makes a TLSRoute for one hostname.
func TLSRoute(id cluster.ID, ns, name string, age int, parent gatewayv1.ParentReference, host string) *cluster.Object {
	return Object(id, cluster.KindTLSRoute, ns, name, age, &gatewayv1.TLSRoute{
		TypeMeta:   typed(gatewayv1.GroupVersion.String(), cluster.KindTLSRoute),
		ObjectMeta: metav1.ObjectMeta{Namespace: ns, Name: name},
		Spec: gatewayv1.TLSRouteSpec{CommonRouteSpec: common(parent), Hostnames: []gatewayv1.Hostname{gatewayv1.Hostname(host)},
			Rules: []gatewayv1.TLSRouteRule{{BackendRefs: backends(443)}}}})
}

// TCPRoute makes a TCPRoute to a port.
func TCPRoute(id cluster.ID, ns, name string, age int, parent gatewayv1.ParentReference, port int32) *cluster.Object {
	return Object(id, cluster.KindTCPRoute, ns, name, age, &gatewayv1.TCPRoute{
		TypeMeta:   typed(gatewayv1.GroupVersion.String(), cluster.KindTCPRoute),
		ObjectMeta: metav1.ObjectMeta{Namespace: ns, Name: name},
		Spec:       gatewayv1.TCPRouteSpec{CommonRouteSpec: common(parent), Rules: []gatewayv1.TCPRouteRule{{BackendRefs: backends(port)}}}})
}

// UDPRoute makes a UDPRoute to a port.
func UDPRoute(id cluster.ID, ns, name string, age int, parent gatewayv1.ParentReference, port int32) *cluster.Object {
	return Object(id, cluster.KindUDPRoute, ns, name, age, &gatewayv1.UDPRoute{
		TypeMeta:   typed(gatewayv1.GroupVersion.String(), cluster.KindUDPRoute),
		ObjectMeta: metav1.ObjectMeta{Namespace: ns, Name: name},
		Spec:       gatewayv1.UDPRouteSpec{CommonRouteSpec: common(parent), Rules: []gatewayv1.UDPRouteRule{{BackendRefs: backends(port)}}}})
}

// ListenerSet makes a ListenerSet with one TLS listener for a Gateway of its namespace.
func ListenerSet(id cluster.ID, ns, name string, age int, gateway string, port int32) *cluster.Object {
	mode := gatewayv1.TLSModeTerminate
	return Object(id, cluster.KindListenerSet, ns, name, age, &gatewayv1.ListenerSet{
		TypeMeta:   typed(gatewayv1.GroupVersion.String(), cluster.KindListenerSet),
		ObjectMeta: metav1.ObjectMeta{Namespace: ns, Name: name},
		Spec: gatewayv1.ListenerSetSpec{ParentRef: gatewayv1.ParentGatewayReference{Name: gatewayv1.ObjectName(gateway)},
			Listeners: []gatewayv1.ListenerEntry{{Name: "tls", Protocol: gatewayv1.TLSProtocolType, Port: port,
				TLS: &gatewayv1.ListenerTLSConfig{Mode: &mode, CertificateRefs: []gatewayv1.SecretObjectReference{{Name: "cert"}}}}}}})
}

// CA is a certificate as far as a store can tell.
const CA = "-----BEGIN CERTIFICATE-----\nMAA=\n-----END CERTIFICATE-----\n"

// ConfigMap makes a ConfigMap with CA certificates and more.
func ConfigMap(id cluster.ID, ns, name string, age int, ca string) *cluster.Object {
	return Object(id, cluster.KindConfigMap, ns, name, age, &corev1.ConfigMap{TypeMeta: typed("v1", cluster.KindConfigMap),
		ObjectMeta: metav1.ObjectMeta{Namespace: ns, Name: name}, Data: map[string]string{"ca.crt": ca, "settings": "stay at home"}})
}

// Policy makes a BackendTLSPolicy for a Service, with CA certificates of a ConfigMap.
func Policy(id cluster.ID, ns, name string, age int, service, configMap string) *cluster.Object {
	return Object(id, cluster.KindBackendTLSPolicy, ns, name, age, &gatewayv1.BackendTLSPolicy{
		TypeMeta:   typed(gatewayv1.GroupVersion.String(), cluster.KindBackendTLSPolicy),
		ObjectMeta: metav1.ObjectMeta{Namespace: ns, Name: name},
		Spec: gatewayv1.BackendTLSPolicySpec{
			TargetRefs: []gatewayv1.LocalPolicyTargetReferenceWithSectionName{{LocalPolicyTargetReference: gatewayv1.LocalPolicyTargetReference{Kind: "Service", Name: gatewayv1.ObjectName(service)}}},
			Validation: gatewayv1.BackendTLSPolicyValidation{Hostname: "backend.example",
				CACertificateRefs: []gatewayv1.LocalObjectReference{{Kind: "ConfigMap", Name: gatewayv1.ObjectName(configMap)}}},
		}})
}

// Secret makes a Secret that no one may ever see elsewhere.
func Secret(id cluster.ID, ns, name string, age int, value string) *cluster.Object {
	return Object(id, cluster.KindSecret, ns, name, age, &corev1.Secret{TypeMeta: typed("v1", cluster.KindSecret),
		ObjectMeta: metav1.ObjectMeta{Namespace: ns, Name: name}, Data: map[string][]byte{"key": []byte(value)}})
}

// Draw makes some object of a few names, so that draws collide: as a source may
// deliver it, different in each draw.
func Draw(t *rapid.T, id cluster.ID) *cluster.Object {
	ns := rapid.SampledFrom([]string{"app", "dev"}).Draw(t, "namespace")
	name := rapid.SampledFrom([]string{"a", "b", "c"}).Draw(t, "name")
	age := rapid.IntRange(0, 1000).Draw(t, "age")
	n := rapid.IntRange(1, 5).Draw(t, "value")
	switch rapid.SampledFrom(cluster.Kinds).Draw(t, "kind") {
	case cluster.KindNamespace:
		return Namespace(id, ns, age, fmt.Sprint(n))
	case cluster.KindService:
		o := Service(id, ns, name, age, int32(8000+n))
		if n == 5 {
			o.Value.(*corev1.Service).Spec = corev1.ServiceSpec{Type: corev1.ServiceTypeExternalName, ExternalName: "example.org"}
		}
		return o
	case cluster.KindServiceExport:
		return Export(id, ns, name, age, fmt.Sprint(n))
	case cluster.KindEndpointSlice:
		return Slice(id, ns, rapid.SampledFrom([]string{"a", "b", "c"}).Draw(t, "service"), name+"-slice", age, n)
	case cluster.KindGateway:
		return Gateway(id, ns, name, age, int32(80+n))
	case cluster.KindListenerSet:
		return ListenerSet(id, ns, name, age, rapid.SampledFrom([]string{"a", "b"}).Draw(t, "gateway"), int32(8000+n))
	case cluster.KindHTTPRoute:
		return Route(id, ns, name, age, "a", "b", fmt.Sprintf("/%d", n))
	case cluster.KindGRPCRoute:
		return GRPCRoute(id, ns, name, age, drawParent(t), fmt.Sprintf("service.V%d", n))
	case cluster.KindTLSRoute:
		return TLSRoute(id, ns, name, age, drawParent(t), fmt.Sprintf("v%d.example", n))
	case cluster.KindTCPRoute:
		return TCPRoute(id, ns, name, age, drawParent(t), int32(8000+n))
	case cluster.KindUDPRoute:
		return UDPRoute(id, ns, name, age, drawParent(t), int32(8000+n))
	case cluster.KindBackendTLSPolicy:
		return Policy(id, ns, name, age, rapid.SampledFrom([]string{"a", "b", "c"}).Draw(t, "target"), rapid.SampledFrom([]string{"a", "b", "c"}).Draw(t, "authority"))
	case cluster.KindConfigMap:
		o := ConfigMap(id, ns, name, age, CA)
		if n == 5 {
			o.Value.(*corev1.ConfigMap).Data = map[string]string{"ca.crt": "no certificate"}
		}
		return o
	case cluster.KindReferenceGrant:
		return Grant(id, ns, name, age, fmt.Sprintf("from-%d", n))
	}
	return Secret(id, ns, name, age, fmt.Sprint(n))
}

func drawParent(t *rapid.T) gatewayv1.ParentReference {
	p := Parent(rapid.SampledFrom([]cluster.Kind{cluster.KindGateway, cluster.KindListenerSet, cluster.KindService, cluster.KindServiceImport}).Draw(t, "parent kind"),
		rapid.SampledFrom([]string{"a", "b"}).Draw(t, "parent"))
	if rapid.IntRange(0, 3).Draw(t, "parent elsewhere") == 0 {
		ns := gatewayv1.Namespace("dev")
		p.Namespace = &ns
	}
	return p
}

// Authority makes the certificate of a CA, in DER.
func Authority(t testing.TB) []byte {
	t.Helper()
	key, err := ecdsa.GenerateKey(elliptic.P256(), rand.Reader)
	if err != nil {
		t.Fatal(err)
	}
	tmpl := &x509.Certificate{SerialNumber: big.NewInt(1), Subject: pkix.Name{CommonName: "CA"}, IsCA: true, BasicConstraintsValid: true,
		NotBefore: At(0), NotAfter: At(0).AddDate(10, 0, 0)}
	der, err := x509.CreateCertificate(rand.Reader, tmpl, tmpl, key.Public(), key)
	if err != nil {
		t.Fatal(err)
	}
	return der
}
