package resolve

import (
	"fmt"
	"slices"
	"strings"

	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
	"k8s.io/apimachinery/pkg/labels"
	gatewayv1 "sigs.k8s.io/gateway-api/apis/v1"

	"github.com/causeway-mesh/causeway/cluster"
)

// parentView is what routes attach to: a Gateway with its own listeners, or a
// ListenerSet with its (GEP-1713: a route attaches to its direct parent alone).
type parentView struct {
	obj       *cluster.Object // Gateway or ListenerSet
	listeners []*listenerView
}

// listenerView is a listener as its own object describes it. It depends on
// nothing else.
type listenerView struct {
	name     string
	port     int32
	protocol gatewayv1.ProtocolType
	hostname string // lower case, empty: any
	allowed  *gatewayv1.AllowedRoutes
	selector labels.Selector // of allowed, if it has one that can be read
	kinds    []gatewayv1.RouteGroupKind
	badKinds []string // of allowed: those that the listener can't take
	// terminates: the listener ends TLS, with the certificates of refs.
	terminates bool
	refs       []gatewayv1.SecretObjectReference
	// refused, if not nil, is why the listener can't be served, whatever else
	// there is.
	refused *problem
	// known is whether we know the protocol.
	known bool
}

// newListener reads a listener of a Gateway, or one of a ListenerSet, which has
// the same fields.
func newListener(in *gatewayv1.Listener) *listenerView {
	l := &listenerView{name: string(in.Name), port: in.Port, protocol: in.Protocol, allowed: in.AllowedRoutes, known: true}
	refuse := func(reason gatewayv1.ListenerConditionReason, format string, a ...any) {
		if l.refused == nil {
			l.refused = &problem{string(reason), fmt.Sprintf(format, a...)}
		}
	}
	mode := gatewayv1.TLSModeTerminate
	if in.TLS != nil {
		mode = deref(in.TLS.Mode, mode)
	}
	switch in.Protocol {
	case gatewayv1.HTTPProtocolType:
	case gatewayv1.HTTPSProtocolType, gatewayv1.TLSProtocolType:
		switch {
		case mode == gatewayv1.TLSModeTerminate:
			l.terminates = true
		case mode != gatewayv1.TLSModePassthrough || in.Protocol == gatewayv1.HTTPSProtocolType:
			refuse(gatewayv1.ListenerReasonUnsupportedValue, "tls.mode %s is not supported for protocol %s", clip(string(mode)), in.Protocol)
		}
		if l.terminates {
			if in.TLS == nil || len(in.TLS.CertificateRefs) == 0 {
				refuse(gatewayv1.ListenerReasonUnsupportedValue, "tls.certificateRefs is missing: without a certificate TLS can't be terminated")
			} else {
				l.refs = in.TLS.CertificateRefs
			}
		}
	case gatewayv1.TCPProtocolType, gatewayv1.UDPProtocolType:
	default:
		l.known = false
		refuse(gatewayv1.ListenerReasonUnsupportedProtocol, "protocol %s is not supported: use HTTP, HTTPS, TLS, TCP or UDP", clip(string(in.Protocol)))
	}
	if l.known {
		l.kinds, l.badKinds = supportedKinds(l)
	}
	if l.byHost() {
		l.hostname = strings.ToLower(string(deref(in.Hostname, "")))
	}
	if a := in.AllowedRoutes; a != nil && a.Namespaces != nil && deref(a.Namespaces.From, gatewayv1.NamespacesFromSame) == gatewayv1.NamespacesFromSelector {
		var err error
		if l.selector, err = metav1.LabelSelectorAsSelector(a.Namespaces.Selector); err != nil {
			refuse(gatewayv1.ListenerReasonUnsupportedValue, "allowedRoutes.namespaces.selector: %v", err)
		}
	}
	return l
}

// byHost tells whether hostnames tell the listeners of a port apart.
func (l *listenerView) byHost() bool {
	return l.protocol == gatewayv1.HTTPProtocolType || l.protocol == gatewayv1.HTTPSProtocolType || l.protocol == gatewayv1.TLSProtocolType
}

// transport is what has ports of its own.
func (l *listenerView) transport() string {
	if l.protocol == gatewayv1.UDPProtocolType {
		return udp
	}
	return tcp
}

// servedKinds are the kinds of routes that a listener can take. A TCPRoute takes
// the bytes of a TLS listener that terminates, whatever the server name.
func servedKinds(l *listenerView) []cluster.Kind {
	switch l.protocol {
	case gatewayv1.HTTPProtocolType, gatewayv1.HTTPSProtocolType:
		return []cluster.Kind{cluster.KindHTTPRoute, cluster.KindGRPCRoute}
	case gatewayv1.TLSProtocolType:
		if l.terminates {
			return []cluster.Kind{cluster.KindTLSRoute, cluster.KindTCPRoute}
		}
		return []cluster.Kind{cluster.KindTLSRoute}
	case gatewayv1.TCPProtocolType:
		return []cluster.Kind{cluster.KindTCPRoute}
	case gatewayv1.UDPProtocolType:
		return []cluster.Kind{cluster.KindUDPRoute}
	}
	return nil
}

// supportedKinds intersects what a listener asks for with what it can take.
func supportedKinds(l *listenerView) (kinds []gatewayv1.RouteGroupKind, bad []string) {
	served := servedKinds(l)
	add := func(k cluster.Kind) {
		kind := gatewayv1.RouteGroupKind{Group: ptr(gatewayv1.Group(gatewayv1.GroupName)), Kind: gatewayv1.Kind(k)}
		if !slices.ContainsFunc(kinds, func(x gatewayv1.RouteGroupKind) bool { return x.Kind == kind.Kind }) {
			kinds = append(kinds, kind)
		}
	}
	if l.allowed == nil || len(l.allowed.Kinds) == 0 {
		for _, k := range served {
			add(k)
		}
		return kinds, nil
	}
	for _, k := range l.allowed.Kinds {
		if deref(k.Group, gatewayv1.GroupName) == gatewayv1.GroupName && slices.Contains(served, cluster.Kind(k.Kind)) {
			add(cluster.Kind(k.Kind))
		} else {
			bad = append(bad, kindText(strings.TrimPrefix(string(deref(k.Group, gatewayv1.GroupName)), gatewayv1.GroupName), string(k.Kind)))
		}
	}
	return kinds, bad
}

func (l *listenerView) takes(kind cluster.Kind) bool {
	return slices.ContainsFunc(l.kinds, func(k gatewayv1.RouteGroupKind) bool { return string(k.Kind) == string(kind) })
}

// placed is a listener among all those of a Gateway, its own and those of its
// ListenerSets.
type placed struct {
	*listenerView
	parent *parentView
	// conflict, if not empty, is the reason for which the listener can't stand
	// beside the others.
	conflict gatewayv1.ListenerConditionReason
	tooMany  bool // beyond maxListeners
	// overlaps: another listener of the port terminates TLS for some of the same
	// server names.
	overlaps bool
	tls      *ListenerTLS
	// unresolved, if not nil, is what is wrong with the Secrets and ConfigMaps
	// that the listener refers to; noCA is set where no authority is left.
	unresolved *problem
	noCA       *problem
	attached   []*boundRoute
}

// stands tells whether the listener has its place: what its hostname covers is
// not for a less specific listener to answer.
func (p *placed) stands() bool { return p.refused == nil && p.conflict == "" && !p.tooMany }

// works tells whether the listener takes traffic.
func (p *placed) works() bool {
	return p.stands() && p.noCA == nil && (!p.terminates || (p.tls != nil && len(p.tls.Certificates) > 0))
}

// set is the "namespace/name" of the listener's ListenerSet, or empty.
func (p *placed) set() string {
	if p.parent.obj.Kind == cluster.KindListenerSet {
		return p.parent.obj.Namespace + "/" + p.parent.obj.Name
	}
	return ""
}

// maxListeners bounds a Gateway with its ListenerSets.
const maxListeners = 2048

// claims are the listeners that stand on one port so far.
type claims struct {
	first *placed            // of its kind: the port is HTTP, or one of HTTPS and TLS, or TCP, or UDP
	hosts map[string]*placed // by hostname
}

type portKey struct {
	transport string
	port      int32
}

// protocolClass groups the protocols that can share a port.
func protocolClass(l *listenerView) gatewayv1.ProtocolType {
	if l.protocol == gatewayv1.TLSProtocolType {
		return gatewayv1.HTTPSProtocolType
	}
	return l.protocol
}

// clash tells why a listener can't stand beside those of a port.
func (c *claims) clash(l *placed) gatewayv1.ListenerConditionReason {
	switch {
	case c == nil || c.first == nil:
		return ""
	case protocolClass(c.first.listenerView) != protocolClass(l.listenerView) || !l.byHost():
		return gatewayv1.ListenerReasonProtocolConflict
	case c.hosts[l.hostname] != nil:
		return gatewayv1.ListenerReasonHostnameConflict
	}
	return ""
}

// findConflicts finds the conflicts among a Gateway's listeners. The list holds one
// object's listeners after the other's, by precedence: the Gateway's, then those of
// each ListenerSet. A listener that conflicts with one of an earlier object
// loses. Of those of one object that can't be told apart none wins.
func findConflicts(list []*placed) {
	ports := map[portKey]*claims{}
	for len(list) > 0 {
		n := 1
		for n < len(list) && list[n].parent == list[0].parent {
			n++
		}
		conflictsOf(ports, list[:n])
		list = list[n:]
	}
}

func conflictsOf(ports map[portKey]*claims, group []*placed) {
	type slot struct {
		portKey
		host string
	}
	var left []*placed
	twins := map[slot]int{}
	classes := map[portKey]map[gatewayv1.ProtocolType]bool{}
	for _, l := range group {
		if !l.known || l.tooMany {
			continue
		}
		at := portKey{l.transport(), l.port}
		if l.conflict = ports[at].clash(l); l.conflict != "" {
			continue
		}
		left = append(left, l)
		twins[slot{at, l.hostname}]++
		if classes[at] == nil {
			classes[at] = map[gatewayv1.ProtocolType]bool{}
		}
		classes[at][protocolClass(l.listenerView)] = true
	}
	for _, l := range left {
		at := portKey{l.transport(), l.port}
		switch {
		case len(classes[at]) > 1 || (!l.byHost() && twins[slot{at, l.hostname}] > 1):
			l.conflict = gatewayv1.ListenerReasonProtocolConflict
		case twins[slot{at, l.hostname}] > 1:
			l.conflict = gatewayv1.ListenerReasonHostnameConflict
		}
		// What conflicts within its own object still bars later ones: they would
		// conflict with it as much.
		c := ports[at]
		if c == nil {
			c = &claims{first: l, hosts: map[string]*placed{}}
			ports[at] = c
		}
		c.hosts[l.hostname] = l
	}
}

// overlap marks the listeners of one port that terminate TLS for hostnames of
// which one covers the other (GEP-3567).
func overlap(list []*placed) {
	type name struct {
		port int32
		host string
	}
	by := map[name]*placed{}
	for _, l := range list {
		if l.terminates && l.stands() {
			by[name{l.port, HostOrAny(l.hostname)}] = l
		}
	}
	for at, l := range by {
		for _, h := range coveringNames(at.host) {
			if o := by[name{at.port, h}]; o != nil && o != l {
				l.overlaps, o.overlaps = true, true
			}
		}
	}
}

// conflictText says what a listener conflicts with, without naming another
// tenant's objects.
func conflictText(p *placed) string {
	others := "another listener of the Gateway"
	if p.set() != "" {
		others = "another listener of the Gateway or of its ListenerSets"
	}
	if p.conflict == gatewayv1.ListenerReasonHostnameConflict {
		return others + " has the same port and hostname"
	}
	if p.byHost() {
		return others + " has the same port with a protocol that can't share it"
	}
	return others + " has the same port"
}
