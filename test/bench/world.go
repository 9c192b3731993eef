package main

import (
	"fmt"
	"net/netip"
	"time"

	corev1 "k8s.io/api/core/v1"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
	gatewayv1 "sigs.k8s.io/gateway-api/apis/v1"
	mcsv1beta1 "sigs.k8s.io/mcs-api/pkg/apis/v1beta1"

	"github.com/causeway-mesh/causeway/cluster"
	"github.com/causeway-mesh/causeway/federation/resolve"
	"github.com/causeway-mesh/causeway/xds/translate"
)

// clusterset is the name of the set that the benchmarks run; its clusters' trust
// domains derive from it.
const clusterset = "bench"

// world says what there is. Everything in it is a function of its fields, so
// that each process can make its own part of it.
type world struct {
	Clusters   int // c0, c1, ...
	Networks   int // clusters share networks evenly; 1 to Clusters
	Services   int // exported, in each cluster
	Endpoints  int // of each service in each cluster
	Namespaces int // services and sidecars share them evenly
	Routes     int // three of five are producer routes, one a consumer's, one a Gateway's
	Private    int // services of each cluster that it does not export
	Gateways   int // those that share the Gateways' routes evenly
	// PerNetwork: services of one name are exported by the clusters of one network
	// alone; else by all clusters.
	PerNetwork bool
}

// What edits alternate or count: the state of a service or route of a cluster.
type generation struct {
	ready int // changes the number of ready endpoints
	pod   int // changes the address of one endpoint
	rule  int // changes the weights of a route
}

const (
	gatewayPort = 80
	servicePort = 80
)

func (w world) cluster(c int) cluster.ID { return cluster.ID(fmt.Sprintf("c%d", c)) }

func (w world) network(c int) int { return c * w.Networks / w.Clusters }

func (w world) namespace(n int) string { return fmt.Sprintf("team-%d", n%w.Namespaces) }

// service names the k-th exported service of cluster c.
func (w world) service(c, k int) string {
	if w.PerNetwork {
		return fmt.Sprintf("svc-%d-n%d", k, w.network(c))
	}
	return fmt.Sprintf("svc-%d", k)
}

// backend is the resource that has the endpoints of an exported service.
func (w world) backend(c, k int) string {
	return translate.EndpointsName(resolve.BackendKey{Kind: resolve.BackendImport, Namespace: w.namespace(k), Name: w.service(c, k), Port: servicePort})
}

// private is the resource that has the endpoints of a service that c does not export.
func (w world) private(k int) string {
	return translate.EndpointsName(resolve.BackendKey{Kind: resolve.BackendService, Namespace: w.namespace(k), Name: privateName(k), Port: servicePort})
}

func privateName(k int) string { return fmt.Sprintf("private-%d", k) }

// remoteEndpoints counts what cluster c learns from others.
func (w world) remoteEndpoints() int { return (w.Clusters - 1) * w.Services * w.Endpoints }

// born gives objects their ages, by a running number.
func born(n int) time.Time {
	return time.Date(2026, 1, 1, 0, 0, 0, 0, time.UTC).Add(time.Duration(n) * time.Second)
}

func (w world) object(c int, kind cluster.Kind, namespace, name string, age int, value any) *cluster.Object {
	return &cluster.Object{Ref: cluster.Ref{Kind: kind, Namespace: namespace, Name: name}, Cluster: w.cluster(c), Value: value, Seniority: cluster.Seniority{Created: born(age)}}
}

func meta(namespace, name string) metav1.ObjectMeta {
	return metav1.ObjectMeta{Namespace: namespace, Name: name}
}

func serviceObject(namespace, name string) *corev1.Service {
	return &corev1.Service{ObjectMeta: meta(namespace, name), Spec: corev1.ServiceSpec{
		Type: corev1.ServiceTypeClusterIP, SessionAffinity: corev1.ServiceAffinityNone, IPFamilies: []corev1.IPFamily{corev1.IPv4Protocol},
		Ports: []corev1.ServicePort{{Name: "http", Protocol: corev1.ProtocolTCP, Port: servicePort}},
	}}
}

// slice is the EndpointSlice of a service: k from 0 for exported ones, from
// w.Services for private ones.
func (w world) slice(c, k int, g generation) *cluster.Object {
	var service string
	of := k
	if k < w.Services {
		service = w.service(c, k)
	} else {
		of -= w.Services
		service = privateName(of)
	}
	s := &cluster.EndpointSlice{Service: service, Ports: []cluster.EndpointPort{{Name: "http", Port: 8080, Protocol: "TCP"}}}
	for e := range w.Endpoints {
		at := e
		if e == 1 {
			at = w.Endpoints + g.pod%4 // the pod that is replaced
		}
		n := (c*(w.Services+w.Private)+k)*16 + at
		ready := e != 0 || g.ready%2 == 0
		s.Endpoints = append(s.Endpoints, cluster.Endpoint{
			Addr: netip.AddrFrom4([4]byte{10, byte(n >> 16), byte(n >> 8), byte(n)}),
			Pod:  fmt.Sprintf("%s-6f7d8c9b54-x%04d", service, at), Zone: fmt.Sprintf("zone-%d", e%3),
			Ready: ready, Serving: ready,
		})
	}
	return w.object(c, cluster.KindEndpointSlice, w.namespace(of), service+"-r7k2p", k, s)
}

// exported are the Service and the ServiceExport behind a slice.
func (w world) exported(c, k int) (service, export *cluster.Object) {
	ns, name := w.namespace(k), w.service(c, k)
	return w.object(c, cluster.KindService, ns, name, k, serviceObject(ns, name)),
		w.object(c, cluster.KindServiceExport, ns, name, k, &mcsv1beta1.ServiceExport{ObjectMeta: meta(ns, name)})
}

// The kinds of routes.
type routeKind string

const (
	producer routeKind = "producer" // concerns every sidecar
	consumer routeKind = "consumer" // concerns the sidecars of one namespace
	edge     routeKind = "gateway"  // concerns the gateways
)

// kindOf says what route i is, and home which cluster has it.
func (w world) kindOf(i int) routeKind {
	switch i % 5 {
	case 3:
		return consumer
	case 4:
		return edge
	}
	return producer
}

func (w world) home(i int) int { return i % w.Clusters }

// consumerOf is the namespace whose requests a consumer route governs.
func (w world) consumerOf(i int) string { return w.namespace(i + 1) }

// routeResource is the RouteConfiguration that route i is part of.
func (w world) routeResource(i int) string {
	key := resolve.FrontendKey{Kind: cluster.KindServiceImport, Namespace: w.namespace(i), Name: w.service(0, i)}
	if w.kindOf(i) == edge {
		return translate.GatewayRouteName(w.namespace(w.gatewayOf(i)), gatewayName(w.gatewayOf(i)), gatewayPort)
	}
	return translate.FrontendRouteName(key, servicePort)
}

// route makes route i: canary by header, and shares of two services.
func (w world) route(i int, g generation) *cluster.Object {
	home, kind := w.home(i), w.kindOf(i)
	ns := w.namespace(i)
	h := &gatewayv1.HTTPRoute{}
	group, imports, port := gatewayv1.Group("multicluster.x-k8s.io"), gatewayv1.Kind("ServiceImport"), gatewayv1.PortNumber(servicePort)
	svcNS := gatewayv1.Namespace(w.namespace(i))
	parent := gatewayv1.ParentReference{Group: &group, Kind: &imports, Name: gatewayv1.ObjectName(w.service(0, i))}
	switch kind {
	case consumer:
		ns = w.consumerOf(i)
		parent.Namespace = &svcNS
	case edge:
		edgeNS := gatewayv1.Namespace(w.namespace(w.gatewayOf(i)))
		parent = gatewayv1.ParentReference{Namespace: &edgeNS, Name: gatewayv1.ObjectName(gatewayName(w.gatewayOf(i)))}
		h.Spec.Hostnames = []gatewayv1.Hostname{gatewayv1.Hostname(fmt.Sprintf("app-%d.example.com", i))}
	}
	h.ObjectMeta = meta(ns, fmt.Sprintf("route-%d", i))
	h.Spec.ParentRefs = []gatewayv1.ParentReference{parent}
	// The other backend is a service of the same namespace, so that Gateway routes
	// need no grant.
	other := (i + w.Namespaces) % w.Services
	backend := func(k int, weight int32) gatewayv1.HTTPBackendRef {
		b := gatewayv1.HTTPBackendRef{}
		b.Group, b.Kind, b.Namespace, b.Name, b.Port, b.Weight = &group, &imports, &svcNS, gatewayv1.ObjectName(w.service(0, k)), &port, &weight
		return b
	}
	exact, prefix, path, root := gatewayv1.HeaderMatchExact, gatewayv1.PathMatchPathPrefix, "/api", "/"
	h.Spec.Rules = []gatewayv1.HTTPRouteRule{
		{
			Matches:     []gatewayv1.HTTPRouteMatch{{Path: &gatewayv1.HTTPPathMatch{Type: &prefix, Value: &path}, Headers: []gatewayv1.HTTPHeaderMatch{{Type: &exact, Name: "x-canary", Value: "always"}}}},
			BackendRefs: []gatewayv1.HTTPBackendRef{backend(other, 1)},
		},
		{
			Matches:     []gatewayv1.HTTPRouteMatch{{Path: &gatewayv1.HTTPPathMatch{Type: &prefix, Value: &root}}},
			BackendRefs: []gatewayv1.HTTPBackendRef{backend(i, 90+int32(g.rule%8)), backend(other, 10)},
		},
	}
	return w.object(home, cluster.KindHTTPRoute, ns, h.Name, w.Services+i, h)
}

// gatewayOf says whose route i is, if it is a Gateway's.
func (w world) gatewayOf(i int) int { return i / 5 % w.Gateways }

func gatewayName(n int) string { return fmt.Sprintf("edge-%d", n) }

// gateway is the n-th Gateway. It is written once, in c0, and run in each cluster.
func (w world) gateway(n int) *cluster.Object {
	all := gatewayv1.NamespacesFromAll
	ns := w.namespace(n)
	return w.object(0, cluster.KindGateway, ns, gatewayName(n), 0, &gatewayv1.Gateway{ObjectMeta: meta(ns, gatewayName(n)), Spec: gatewayv1.GatewaySpec{
		GatewayClassName: cluster.ClassClusterset,
		Listeners: []gatewayv1.Listener{{Name: "http", Port: gatewayPort, Protocol: gatewayv1.HTTPProtocolType,
			AllowedRoutes: &gatewayv1.AllowedRoutes{Namespaces: &gatewayv1.RouteNamespaces{From: &all}}}},
	}})
}

// metaOf is what a cluster says of itself.
func (w world) metaOf(c int, trustDomain string) cluster.Meta {
	n := w.network(c)
	return cluster.Meta{
		Region: fmt.Sprintf("region-%d", n), Zone: "zone-0", Network: fmt.Sprintf("network-%d", n), TrustDomain: trustDomain,
		Crossing: []string{netip.AddrPortFrom(netip.AddrFrom4([4]byte{127, 9, byte(c), 1}), 15443).String()},
	}
}

// sidecars are the proxies of cluster c that stand for its workloads.
func (w world) sidecars(c int) []translate.Proxy {
	var out []translate.Proxy
	for n := range w.Namespaces {
		out = append(out, translate.Proxy{Cluster: w.cluster(c), Role: translate.RoleSidecar, Namespace: w.namespace(n), Name: "sidecar"})
	}
	return out
}
