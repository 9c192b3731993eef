package resolve

import (
	"fmt"
	"sync"

	corev1 "k8s.io/api/core/v1"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
	"pgregory.net/rapid"
	gatewayv1 "sigs.k8s.io/gateway-api/apis/v1"

	"github.com/causeway-mesh/causeway/cluster"
	"github.com/causeway-mesh/causeway/federation"
	"github.com/causeway-mesh/causeway/federation/resolve/resolvetest"
)

// otherKinds are drawn beside those that drawStep names.
var otherKinds = []cluster.Kind{cluster.KindGRPCRoute, cluster.KindTLSRoute, cluster.KindTCPRoute, cluster.KindTCPRoute, cluster.KindUDPRoute,
	cluster.KindListenerSet, cluster.KindListenerSet, cluster.KindBackendTLSPolicy, cluster.KindSecret, cluster.KindConfigMap}

// somePEM is one usable certificate with its key, made once: two draws of it are equal.
var somePEM struct {
	sync.Once
	cert, key []byte
}

func pemOf(t *rapid.T) (cert, key []byte) {
	somePEM.Do(func() { somePEM.cert, somePEM.key = resolvetest.PEM(t, "a.example.com") })
	return somePEM.cert, somePEM.key
}

func drawOther(t *rapid.T, kind cluster.Kind, m metav1.ObjectMeta) any {
	switch kind {
	case cluster.KindTLSRoute:
		x := &gatewayv1.TLSRoute{ObjectMeta: m}
		x.Spec.ParentRefs, x.Spec.Hostnames = drawParents(t), drawHostnames(t)
		x.Spec.Rules = []gatewayv1.TLSRouteRule{{BackendRefs: drawBackends(t)}}
		return x
	case cluster.KindTCPRoute:
		x := &gatewayv1.TCPRoute{ObjectMeta: m}
		x.Spec.ParentRefs = drawParents(t)
		for range rapid.IntRange(0, 2).Draw(t, "rules") {
			x.Spec.Rules = append(x.Spec.Rules, gatewayv1.TCPRouteRule{BackendRefs: drawBackends(t)})
		}
		return x
	case cluster.KindUDPRoute:
		x := &gatewayv1.UDPRoute{ObjectMeta: m}
		x.Spec.ParentRefs = drawParents(t)
		x.Spec.Rules = []gatewayv1.UDPRouteRule{{BackendRefs: drawBackends(t)}}
		return x
	case cluster.KindListenerSet:
		x := &gatewayv1.ListenerSet{ObjectMeta: m}
		x.Spec.ParentRef = gatewayv1.ParentGatewayReference{Name: gatewayv1.ObjectName(rapid.SampledFrom(someNames).Draw(t, "parent")), Namespace: ptr(gatewayv1.Namespace(rapid.SampledFrom(someNamespaces).Draw(t, "parentNamespace")))}
		for _, l := range drawListeners(t) {
			x.Spec.Listeners = append(x.Spec.Listeners, gatewayv1.ListenerEntry(l))
		}
		return x
	case cluster.KindBackendTLSPolicy:
		x := &gatewayv1.BackendTLSPolicy{ObjectMeta: m}
		x.Spec.Validation.Hostname = gatewayv1.PreciseHostname(rapid.SampledFrom([]string{"", "a.com", "b.com"}).Draw(t, "hostname"))
		if rapid.Bool().Draw(t, "system") {
			x.Spec.Validation.WellKnownCACertificates = ptr(gatewayv1.WellKnownCACertificatesSystem)
		} else {
			for _, n := range rapid.SliceOfN(rapid.SampledFrom(someNames), 0, 2).Draw(t, "authorities") {
				x.Spec.Validation.CACertificateRefs = append(x.Spec.Validation.CACertificateRefs, gatewayv1.LocalObjectReference{Kind: "ConfigMap", Name: gatewayv1.ObjectName(n)})
			}
		}
		for range rapid.IntRange(1, 2).Draw(t, "targets") {
			ref := gatewayv1.LocalPolicyTargetReferenceWithSectionName{}
			ref.Kind, ref.Name = "Service", gatewayv1.ObjectName(rapid.SampledFrom(someNames).Draw(t, "target"))
			if s := rapid.SampledFrom([]string{"", "http", "dns"}).Draw(t, "section"); s != "" {
				ref.SectionName = ptr(gatewayv1.SectionName(s))
			}
			x.Spec.TargetRefs = append(x.Spec.TargetRefs, ref)
		}
		return x
	case cluster.KindSecret:
		if said := rapid.SampledFrom([]string{"home", "", "region=eu", "(("}).Draw(t, "travels"); said != "home" {
			m.Annotations = map[string]string{cluster.AnnotationTravel: said}
		}
		x := &corev1.Secret{ObjectMeta: m, Data: map[string][]byte{}}
		if rapid.Bool().Draw(t, "good") {
			x.Data[corev1.TLSCertKey], x.Data[corev1.TLSPrivateKeyKey] = pemOf(t)
		}
		return x
	case cluster.KindConfigMap:
		x := &corev1.ConfigMap{ObjectMeta: m, Data: map[string]string{}}
		if rapid.Bool().Draw(t, "good") {
			cert, _ := pemOf(t)
			x.Data[caKey] = string(cert)
		}
		return x
	}
	return nil
}

func drawBackends(t *rapid.T) (out []gatewayv1.BackendRef) {
	for range rapid.IntRange(0, 2).Draw(t, "backends") {
		out = append(out, drawBackend(t))
	}
	return out
}

func drawListeners(t *rapid.T) (out []gatewayv1.Listener) {
	for i := range rapid.IntRange(1, 3).Draw(t, "listeners") {
		l := gatewayv1.Listener{Name: gatewayv1.SectionName(fmt.Sprint("l", i)), Port: gatewayv1.PortNumber(rapid.SampledFrom([]int{80, 80, 443}).Draw(t, "listenPort")),
			Protocol: rapid.SampledFrom([]gatewayv1.ProtocolType{"HTTP", "HTTP", "HTTP", "HTTPS", "TLS", "TLS", "TCP", "UDP", "OTHER"}).Draw(t, "protocol")}
		if rapid.Bool().Draw(t, "hosted") {
			l.Hostname = ptr(gatewayv1.Hostname(rapid.SampledFrom(someHosts).Draw(t, "hostname")))
		}
		if l.Protocol == "HTTPS" || l.Protocol == "TLS" {
			l.TLS = &gatewayv1.ListenerTLSConfig{}
			if l.Protocol == "TLS" && rapid.Bool().Draw(t, "passthrough") {
				l.TLS.Mode = ptr(gatewayv1.TLSModePassthrough)
			}
			for range rapid.IntRange(0, 2).Draw(t, "certificates") {
				l.TLS.CertificateRefs = append(l.TLS.CertificateRefs, drawSecretRef(t))
			}
		}
		from := rapid.SampledFrom([]gatewayv1.FromNamespaces{gatewayv1.NamespacesFromAll, gatewayv1.NamespacesFromAll, gatewayv1.NamespacesFromSame, gatewayv1.NamespacesFromSelector}).Draw(t, "from")
		l.AllowedRoutes = &gatewayv1.AllowedRoutes{Namespaces: &gatewayv1.RouteNamespaces{From: &from, Selector: teamRed()}}
		out = append(out, l)
	}
	return out
}

func teamRed() *metav1.LabelSelector {
	return &metav1.LabelSelector{MatchLabels: map[string]string{"team": "red"}}
}

func drawSecretRef(t *rapid.T) gatewayv1.SecretObjectReference {
	return gatewayv1.SecretObjectReference{Name: gatewayv1.ObjectName(rapid.SampledFrom(someNames).Draw(t, "secret")), Namespace: ptr(gatewayv1.Namespace(rapid.SampledFrom(someNamespaces).Draw(t, "secretNamespace")))}
}

// drawGatewayOptions draws what a Gateway has beside its listeners.
func drawGatewayOptions(t *rapid.T, g *gatewayv1.Gateway) {
	if from := rapid.SampledFrom([]gatewayv1.FromNamespaces{"", gatewayv1.NamespacesFromAll, gatewayv1.NamespacesFromAll, gatewayv1.NamespacesFromSame, gatewayv1.NamespacesFromSelector, gatewayv1.NamespacesFromNone}).Draw(t, "setsFrom"); from != "" {
		g.Spec.AllowedListeners = &gatewayv1.AllowedListeners{Namespaces: &gatewayv1.ListenerNamespaces{From: &from, Selector: teamRed()}}
	}
	if rapid.IntRange(0, 4).Draw(t, "parameters") == 0 {
		g.Spec.Infrastructure = &gatewayv1.GatewayInfrastructure{ParametersRef: &gatewayv1.LocalParametersReference{Kind: "X", Name: "x"}}
	}
	if rapid.IntRange(0, 2).Draw(t, "tls") != 0 {
		return
	}
	validation := func() gatewayv1.TLSConfig {
		if rapid.Bool().Draw(t, "off") {
			return gatewayv1.TLSConfig{}
		}
		v := &gatewayv1.FrontendTLSValidation{Mode: rapid.SampledFrom([]gatewayv1.FrontendValidationModeType{gatewayv1.AllowValidOnly, gatewayv1.AllowInsecureFallback}).Draw(t, "mode")}
		for range rapid.IntRange(1, 2).Draw(t, "authorities") {
			v.CACertificateRefs = append(v.CACertificateRefs, gatewayv1.ObjectReference{Kind: "ConfigMap", Name: gatewayv1.ObjectName(rapid.SampledFrom(someNames).Draw(t, "authority")), Namespace: ptr(gatewayv1.Namespace(rapid.SampledFrom(someNamespaces).Draw(t, "authorityNamespace")))})
		}
		return gatewayv1.TLSConfig{Validation: v}
	}
	g.Spec.TLS = &gatewayv1.GatewayTLSConfig{Frontend: &gatewayv1.FrontendTLSConfig{Default: validation(), PerPort: []gatewayv1.TLSPortConfig{{Port: 443, TLS: validation()}}}}
	if rapid.Bool().Draw(t, "client") {
		ref := drawSecretRef(t)
		g.Spec.TLS.Backend = &gatewayv1.GatewayBackendTLS{ClientCertificateRef: &ref}
	}
}

// richL4 is what the rich world has beside HTTP: listeners of a ListenerSet that
// end TLS or pass bytes on, with routes to chain through, and a policy.
func richL4() []step {
	var out []step
	put := func(id cluster.ID, kind cluster.Kind, v metav1.Object) {
		ref := cluster.Ref{Kind: kind, Namespace: v.GetNamespace(), Name: v.GetName()}
		o := &cluster.Object{Ref: ref, Cluster: id, Value: v, Seniority: cluster.Seniority{Revision: int64(len(out) + 20)}}
		out = append(out, step{change: &federation.Change{Cluster: id, Ref: ref, Object: o}})
	}
	meta := func(name string) metav1.ObjectMeta { return metav1.ObjectMeta{Namespace: "app", Name: name} }
	backends := func(names ...string) (out []gatewayv1.BackendRef) {
		for _, n := range names {
			b := gatewayv1.BackendRef{}
			b.Name, b.Port = gatewayv1.ObjectName(n), ptr(gatewayv1.PortNumber(80))
			out = append(out, b)
		}
		return out
	}
	set := gatewayv1.ParentReference{Kind: ptr(gatewayv1.Kind("ListenerSet")), Name: "a"}
	service := func(name string) gatewayv1.ParentReference {
		return gatewayv1.ParentReference{Group: ptr(gatewayv1.Group("")), Kind: ptr(gatewayv1.Kind("Service")), Name: gatewayv1.ObjectName(name)}
	}
	put("east", cluster.KindListenerSet, &gatewayv1.ListenerSet{ObjectMeta: meta("a"), Spec: gatewayv1.ListenerSetSpec{ParentRef: gatewayv1.ParentGatewayReference{Name: "a"},
		Listeners: []gatewayv1.ListenerEntry{
			{Name: "l0", Port: 81, Protocol: "TCP"},
			{Name: "l1", Port: 443, Protocol: "TLS", TLS: &gatewayv1.ListenerTLSConfig{CertificateRefs: []gatewayv1.SecretObjectReference{{Name: "a"}}}},
			{Name: "l2", Port: 444, Protocol: "TLS", TLS: &gatewayv1.ListenerTLSConfig{Mode: ptr(gatewayv1.TLSModePassthrough)}},
			{Name: "l3", Port: 445, Protocol: "HTTPS", TLS: &gatewayv1.ListenerTLSConfig{CertificateRefs: []gatewayv1.SecretObjectReference{{Name: "a"}}}},
		}}})
	tcpRoute := func(name string, parent gatewayv1.ParentReference, to ...string) {
		put("east", cluster.KindTCPRoute, &gatewayv1.TCPRoute{ObjectMeta: meta(name), Spec: gatewayv1.TCPRouteSpec{CommonRouteSpec: gatewayv1.CommonRouteSpec{ParentRefs: []gatewayv1.ParentReference{parent}}, Rules: []gatewayv1.TCPRouteRule{{BackendRefs: backends(to...)}}}})
	}
	tlsRoute := func(name string, parent gatewayv1.ParentReference, to ...string) {
		put("east", cluster.KindTLSRoute, &gatewayv1.TLSRoute{ObjectMeta: meta(name), Spec: gatewayv1.TLSRouteSpec{Hostnames: []gatewayv1.Hostname{"a.example.com"}, CommonRouteSpec: gatewayv1.CommonRouteSpec{ParentRefs: []gatewayv1.ParentReference{parent}}, Rules: []gatewayv1.TLSRouteRule{{BackendRefs: backends(to...)}}}})
	}
	tcpRoute("a", set, "a", "b")
	tcpRoute("b", service("b"), "a")
	tlsRoute("a", set, "a", "b")
	tlsRoute("b", service("b"), "a")
	c := gatewayv1.GRPCRoute{ObjectMeta: meta("a")}
	c.Spec.ParentRefs = []gatewayv1.ParentReference{set, service("a")}
	c.Spec.Rules = []gatewayv1.GRPCRouteRule{{BackendRefs: []gatewayv1.GRPCBackendRef{{BackendRef: backends("b")[0]}}}}
	put("west", cluster.KindGRPCRoute, &c)
	for _, id := range []cluster.ID{"east", "west"} {
		p := &gatewayv1.BackendTLSPolicy{ObjectMeta: meta("b")}
		target := gatewayv1.LocalPolicyTargetReferenceWithSectionName{}
		target.Kind, target.Name = "Service", "b"
		p.Spec.TargetRefs = []gatewayv1.LocalPolicyTargetReferenceWithSectionName{target}
		p.Spec.Validation = gatewayv1.BackendTLSPolicyValidation{Hostname: "b.com", WellKnownCACertificates: ptr(gatewayv1.WellKnownCACertificatesSystem)}
		put(id, cluster.KindBackendTLSPolicy, p)
	}
	return out
}
