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
	case cluster.KindHTTPRoute:
		return Route(id, ns, name, age, "a", "b", fmt.Sprintf("/%d", n))
	case cluster.KindReferenceGrant:
		return Grant(id, ns, name, age, fmt.Sprintf("from-%d", n))
	}
	return Secret(id, ns, name, age, fmt.Sprint(n))
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
