package resolve

import (
	"cmp"
	"fmt"
	"slices"
	"strings"

	corev1 "k8s.io/api/core/v1"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
	gatewayv1 "sigs.k8s.io/gateway-api/apis/v1"

	"github.com/causeway-mesh/causeway/cluster"
	"github.com/causeway-mesh/causeway/federation"
)

// maxAncestors is PolicyStatus.ancestors' own.
const maxAncestors = 16

// backendTLS tells how the endpoints of a port of a cluster's Service are reached
// by TLS, nil for plain text.
func (r *reader) backendTLS(id cluster.ID, s *corev1.Service, ns, name string, port int32) *BackendTLS {
	o := r.policyFor(id, s, ns, name, port)
	if o == nil {
		return nil
	}
	v := r.viewPolicy(o)
	return &v.tls
}

// policyFor finds the policy that a port of a cluster's Service has. One that names
// the port comes before one for the whole Service; of several alike the senior
// counts (GEP-1897).
func (r *reader) policyFor(id cluster.ID, s *corev1.Service, ns, name string, port int32) *cluster.Object {
	p := servicePort(s, tcp, port)
	if p == nil {
		return nil
	}
	if p.Name != "" {
		if o := r.seniorPolicy(id, ns, name, p.Name); o != nil {
			return o
		}
	}
	return r.seniorPolicy(id, ns, name, "")
}

// verdictUnit tells routes which copies of a policy can't be obeyed. It stands
// between them and the policy's authorities: a new certificate is no reason to
// look at routes again.
func verdictUnit(r *reader, ns, name string) output {
	copies := r.named(cluster.KindBackendTLSPolicy, ns, name)
	out := output{gone: len(copies) == 0}
	var list []verdict
	for _, o := range copies {
		if v := r.viewPolicy(o); v.tls.Invalid != "" {
			list = append(list, verdict{o.Cluster, v.tls.Invalid})
		}
	}
	if len(list) > 0 {
		out.facts = []fact{{verdictKey(ns, name), list}}
	}
	return out
}

// verdict says why a cluster's copy of a policy can't be obeyed.
type verdict struct {
	cluster cluster.ID
	why     string
}

// verdictKey is the Key of the facts about which copies of a policy can't be
// obeyed: []verdict.
func verdictKey(ns, name string) federation.Key { return factKey("verdict", ns, name) }

// disobeyed tells why a policy can't be obeyed, empty if it can.
func (r *reader) disobeyed(o *cluster.Object) string {
	for _, v := range r.facts(verdictKey(o.Namespace, o.Name)) {
		for _, x := range v.([]verdict) {
			if x.cluster == o.Cluster {
				return x.why
			}
		}
	}
	return ""
}

// seniorPolicy finds the policy of a cluster for a Service, or for one of its
// ports by name.
func (r *reader) seniorPolicy(id cluster.ID, ns, name, section string) *cluster.Object {
	var senior *cluster.Object
	for _, o := range r.policiesOf(cluster.KindService, ns, name) {
		v, ok := o.Value.(*gatewayv1.BackendTLSPolicy)
		if !ok || o.Cluster != id || (senior != nil && !cluster.Older(o, senior)) {
			continue
		}
		if slices.ContainsFunc(v.Spec.TargetRefs, func(t gatewayv1.LocalPolicyTargetReferenceWithSectionName) bool {
			return federation.TargetKind(t) == cluster.KindService && string(t.Name) == name && string(deref(t.SectionName, "")) == section
		}) {
			senior = o
		}
	}
	return senior
}

// policyView is a policy without its targets.
type policyView struct {
	tls        BackendTLS
	refused    *problem // why it is not Accepted
	unresolved *problem // why ResolvedRefs is False
}

// viewPolicy reads what a policy asks for. ConfigMaps are those of its cluster.
func (r *reader) viewPolicy(o *cluster.Object) policyView {
	spec := &o.Value.(*gatewayv1.BackendTLSPolicy).Spec
	in := &spec.Validation
	v := policyView{tls: BackendTLS{Cluster: o.Cluster, Hostname: string(in.Hostname)}}
	invalid := func(format string, a ...any) {
		if v.refused == nil {
			v.refused = &problem{string(gatewayv1.PolicyReasonInvalid), fmt.Sprintf(format, a...)}
		}
	}
	switch {
	case in.Hostname == "":
		invalid("validation.hostname is missing")
	case !isHostname(v.tls.Hostname):
		invalid("validation.hostname %q is not a hostname", clip(v.tls.Hostname))
	}
	for i, san := range in.SubjectAltNames {
		switch {
		case san.Hostname != "" && !isHostname(strings.TrimPrefix(string(san.Hostname), "*.")):
			invalid("validation.subjectAltNames[%d].hostname %q is not a hostname", i, clip(string(san.Hostname)))
		case strings.ContainsFunc(string(san.URI), func(c rune) bool { return c <= ' ' || c >= 0x7f }):
			invalid("validation.subjectAltNames[%d].uri %q is not a URI", i, clip(string(san.URI)))
		case san.Type == gatewayv1.HostnameSubjectAltNameType && san.Hostname != "":
			v.tls.DNSNames = append(v.tls.DNSNames, strings.ToLower(string(san.Hostname)))
		case san.Type == gatewayv1.URISubjectAltNameType && san.URI != "":
			v.tls.URIs = append(v.tls.URIs, string(san.URI))
		default:
			invalid("validation.subjectAltNames[%d] is of an unknown type or lacks its value", i)
		}
	}
	for _, list := range []*[]string{&v.tls.DNSNames, &v.tls.URIs} {
		slices.Sort(*list)
		*list = slices.Compact(*list)
	}
	switch known := deref(in.WellKnownCACertificates, ""); {
	case known != "" && len(in.CACertificateRefs) > 0:
		invalid("validation has both caCertificateRefs and wellKnownCACertificates")
	case known == gatewayv1.WellKnownCACertificatesSystem:
		v.tls.System = true
	case known != "":
		invalid("validation.wellKnownCACertificates %s is not supported: use %s", clip(string(known)), gatewayv1.WellKnownCACertificatesSystem)
	case len(in.CACertificateRefs) == 0:
		invalid("validation has neither caCertificateRefs nor wellKnownCACertificates")
	default:
		r.policyAuthorities(o, in.CACertificateRefs, &v)
	}
	if v.refused != nil {
		v.tls = BackendTLS{Cluster: o.Cluster, Invalid: fmt.Sprintf("%s of cluster %s: %s", o.Ref, o.Cluster, v.refused.message)}
	}
	return v
}

func (r *reader) policyAuthorities(o *cluster.Object, refs []gatewayv1.LocalObjectReference, v *policyView) {
	for i, ref := range refs {
		var p *problem
		if ref.Group != "" || string(ref.Kind) != string(cluster.KindConfigMap) {
			p = &problem{string(gatewayv1.BackendTLSPolicyReasonInvalidKind), fmt.Sprintf("authorities of kind %s are not supported: use a ConfigMap of the core group", kindText(string(ref.Group), string(ref.Kind)))}
		} else if pem, err := r.authorities(o.Cluster, o.Namespace, string(ref.Name)); err != nil {
			p = &problem{string(gatewayv1.BackendTLSPolicyReasonInvalidCACertificateRef), err.Error()}
		} else {
			v.tls.CAs = append(v.tls.CAs, pem...)
			continue
		}
		p.message = fmt.Sprintf("validation.caCertificateRefs[%d]: %s", i, p.message)
		if v.unresolved == nil {
			v.unresolved = &problem{reason: p.reason}
		}
		if v.unresolved.reason == p.reason {
			v.unresolved.message = joinMessage(v.unresolved.message, p.message)
		}
	}
	if len(v.tls.CAs) == 0 && v.refused == nil {
		v.refused = &problem{string(gatewayv1.BackendTLSPolicyReasonNoValidCACertificate), "none of validation.caCertificateRefs can be used: " + v.unresolved.message}
	}
}

// policyTarget is a targetRef that a policy governs.
type policyTarget struct {
	service string
	ports   []int32
}

// policyTargets finds what a policy governs, and what is wrong with its other
// targetRefs.
func (r *reader) policyTargets(o *cluster.Object) (out []policyTarget, problems []problem, notes []string) {
	spec := &o.Value.(*gatewayv1.BackendTLSPolicy).Spec
	for i, t := range spec.TargetRefs {
		no := func(reason gatewayv1.PolicyConditionReason, format string, a ...any) {
			problems = append(problems, problem{string(reason), fmt.Sprintf("targetRefs[%d]: ", i) + fmt.Sprintf(format, a...)})
		}
		if federation.TargetKind(t) != cluster.KindService {
			no(gatewayv1.PolicyReasonInvalid, "targets of kind %s are not supported: use Service", kindText(string(t.Group), string(t.Kind)))
			continue
		}
		name, section := string(t.Name), string(deref(t.SectionName, ""))
		s := r.service(o.Cluster, o.Namespace, name)
		if s == nil {
			no(gatewayv1.PolicyReasonTargetNotFound, "there is no Service %s/%s in cluster %s", o.Namespace, name, o.Cluster)
			continue
		}
		target := policyTarget{service: name}
		others := 0
		for _, p := range s.Spec.Ports {
			switch {
			case section != "" && p.Name != section:
			case protocolOf(p.Protocol) == tcp:
				target.ports = append(target.ports, p.Port)
			default:
				others++
			}
		}
		switch winner := r.seniorPolicy(o.Cluster, o.Namespace, name, section); {
		case len(target.ports) == 0 && others == 0 && section != "":
			no(gatewayv1.PolicyReasonTargetNotFound, "Service %s/%s has no port named %q", o.Namespace, name, clip(section))
		case len(target.ports) == 0:
			no(gatewayv1.PolicyReasonInvalid, "Service %s/%s has no TCP port there, and TLS takes TCP", o.Namespace, name)
		case winner != nil && winner != o:
			no(gatewayv1.PolicyReasonConflicted, "%s is older and has the same target", winner.Ref)
		default:
			out = append(out, target)
			if others > 0 {
				notes = append(notes, fmt.Sprintf("targetRefs[%d]: it holds for the TCP ports of Service %s/%s alone", i, o.Namespace, name))
			}
		}
	}
	return out, problems, notes
}

// policyUnit reports on a policy: this cluster's own, and those of other clusters
// whose endpoints this cluster's Gateways reach directly.
func policyUnit(r *reader, ns, name string) output {
	copies := r.named(cluster.KindBackendTLSPolicy, ns, name)
	out := output{gone: len(copies) == 0}
	for _, o := range copies {
		if o.Cluster != r.local {
			if c, ok := r.cluster(o.Cluster); !ok || !r.direct(c) {
				continue
			}
		}
		if rep := r.reportPolicy(o); rep != nil {
			out.reports = append(out.reports, rep)
		}
	}
	return out
}

func (r *reader) reportPolicy(o *cluster.Object) *ObjectReport {
	spec := &o.Value.(*gatewayv1.BackendTLSPolicy).Spec
	v := r.viewPolicy(o)
	targets, problems, notes := r.policyTargets(o)
	accepted := condition(string(gatewayv1.PolicyConditionAccepted), true, string(gatewayv1.PolicyReasonAccepted), "")
	switch {
	case len(targets) == 0 && len(problems) > 0:
		accepted = condition(string(gatewayv1.PolicyConditionAccepted), false, problems[0].reason, problems[0].message)
	case v.refused != nil:
		accepted = condition(string(gatewayv1.PolicyConditionAccepted), false, v.refused.reason, v.refused.message)
	default:
		for _, p := range problems {
			notes = append(notes, p.message)
		}
		accepted.Message = clipMessage(strings.Join(notes, "; "))
	}
	resolved := condition(string(gatewayv1.BackendTLSPolicyConditionResolvedRefs), true, string(gatewayv1.BackendTLSPolicyReasonResolvedRefs), "")
	if v.unresolved != nil {
		resolved = condition(string(gatewayv1.BackendTLSPolicyConditionResolvedRefs), false, v.unresolved.reason, v.unresolved.message)
	}
	rep := &ObjectReport{Ref: o.Ref, Cluster: o.Cluster}
	add := func(ref gatewayv1.ParentReference) {
		if len(rep.Ancestors) < maxAncestors {
			rep.Ancestors = append(rep.Ancestors, ParentReport{ParentRef: ref, Conditions: []metav1.Condition{accepted, resolved}})
		}
	}
	gateways := map[string]bool{}
	for _, t := range spec.TargetRefs {
		ports := []int32(nil)
		for _, x := range targets {
			if x.service == string(t.Name) {
				ports = append(ports, x.ports...)
			}
		}
		r.usersOf(o, string(t.Name), ports, gateways)
	}
	for _, key := range sortedKeys(gateways) {
		ns, name, _ := strings.Cut(key, "/")
		add(gatewayv1.ParentReference{Group: ptr(gatewayv1.Group(gatewayv1.GroupName)), Kind: ptr(gatewayv1.Kind(cluster.KindGateway)),
			Namespace: ptr(gatewayv1.Namespace(ns)), Name: gatewayv1.ObjectName(name)})
	}
	if len(rep.Ancestors) == 0 {
		if o.Cluster != r.local {
			return nil
		}
		// No Gateway uses it. What it is to sidecars is said of the target.
		for _, t := range spec.TargetRefs {
			add(gatewayv1.ParentReference{Group: ptr(t.Group), Kind: ptr(t.Kind), Namespace: ptr(gatewayv1.Namespace(o.Namespace)), Name: t.Name, SectionName: t.SectionName})
		}
	}
	return rep
}

// usersOf collects the Gateways of this cluster whose requests reach ports of a
// Service in the policy's cluster; no ports means any, for a policy that governs
// none.
func (r *reader) usersOf(o *cluster.Object, service string, ports []int32, gateways map[string]bool) {
	reaches := func(k BackendKey) bool {
		if k.Protocol != "" || (len(ports) > 0 && !slices.Contains(ports, k.Port)) {
			return false
		}
		switch k.Kind {
		case BackendService:
			return o.Cluster == r.local
		case BackendShare:
			return o.Cluster == k.Cluster
		}
		return o.Cluster == r.local || r.exportedService(o.Cluster, o.Namespace, service) != nil
	}
	for _, f := range r.facts(useKey(o.Namespace, service)) {
		u := f.(*usage)
		if !slices.ContainsFunc(u.backends, reaches) {
			continue
		}
		if u.gateway != "" {
			gateways[u.gateway] = true
			continue
		}
		for _, g := range r.facts(chainedKey(u.frontend)) {
			gateways[g.(string)] = true
		}
	}
}

// usage says that a Gateway's requests, or those that go through a frontend's
// producer routes, may reach a service, and by which backends.
type usage struct {
	gateway  string       // "namespace/name", or
	frontend FrontendKey  // without a Gateway
	backends []BackendKey // sorted
}

func (u *usage) equal(v any) bool {
	o, ok := v.(*usage)
	return ok && u.gateway == o.gateway && u.frontend == o.frontend && slices.Equal(u.backends, o.backends)
}

// useKey is the Key of the facts about who uses a service: *usage.
func useKey(ns, name string) federation.Key { return factKey("use", ns, name) }

// chainedKey is the Key of the facts about which Gateways chain through a
// frontend: "namespace/name".
func chainedKey(f FrontendKey) federation.Key { return factKey("chained", f.String()) }

// usesOfGateway tells of the services to which BackendTLSPolicies matter for a
// Gateway: bytes that are passed as they are don't count.
func usesOfGateway(g *Gateway) []fact {
	var used []BackendKey
	chains := map[FrontendKey]bool{}
	visit := func(k BackendKey, chain *FrontendKey) {
		if chain != nil {
			chains[*chain] = true
		} else {
			used = append(used, k)
		}
	}
	for i := range g.Listeners {
		l := &g.Listeners[i]
		for _, h := range l.Hosts {
			if l.Protocol != string(gatewayv1.TLSProtocolType) || l.TLS != nil {
				eachWanted(h.Table, visit)
			}
		}
	}
	out := usageFacts(used, usage{gateway: g.Key()})
	for f := range chains {
		out = append(out, fact{chainedKey(f), g.Key()})
	}
	return out
}

// usesOfFrontend tells of the services that requests reach through a frontend's
// producer routes.
func usesOfFrontend(f *Frontend) []fact {
	var used []BackendKey
	for _, p := range f.Ports {
		if p.Producer != nil && p.Producer.Forward == nil {
			eachWanted(p.Producer, func(k BackendKey, _ *FrontendKey) { used = append(used, k) })
		}
	}
	return usageFacts(used, usage{frontend: f.Key})
}

// usageFacts makes one fact for each service.
func usageFacts(used []BackendKey, by usage) []fact {
	slices.SortFunc(used, compareBackends)
	used = slices.Compact(used)
	list := make([]usage, 0, len(used))
	out := make([]fact, 0, len(used))
	for len(used) > 0 {
		n := 1
		for n < len(used) && used[n].Namespace == used[0].Namespace && used[n].Name == used[0].Name {
			n++
		}
		by.backends = used[:n:n]
		list = append(list, by)
		out = append(out, fact{useKey(used[0].Namespace, used[0].Name), &list[len(list)-1]})
		used = used[n:]
	}
	return out
}

func compareBackends(a, b BackendKey) int {
	http2 := 0
	switch {
	case a.HTTP2 && !b.HTTP2:
		http2 = 1
	case b.HTTP2 && !a.HTTP2:
		http2 = -1
	}
	return cmp.Or(strings.Compare(a.Namespace, b.Namespace), strings.Compare(a.Name, b.Name), strings.Compare(string(a.Kind), string(b.Kind)),
		cmp.Compare(a.Port, b.Port), strings.Compare(string(a.Cluster), string(b.Cluster)), strings.Compare(a.Protocol, b.Protocol), http2)
}

func sortedKeys(m map[string]bool) []string {
	out := make([]string, 0, len(m))
	for k := range m {
		out = append(out, k)
	}
	slices.Sort(out)
	return out
}
