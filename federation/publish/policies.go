package publish

import (
	corev1 "k8s.io/api/core/v1"
	gatewayv1 "sigs.k8s.io/gateway-api/apis/v1"

	"github.com/causeway-mesh/causeway/cluster"
	"github.com/causeway-mesh/causeway/federation"
	"github.com/causeway-mesh/causeway/federation/record"
)

// policies are the BackendTLSPolicies of the cluster, by what they name. All that
// a policy names is in its own namespace.
type policies struct {
	named    map[name]links
	byTarget map[name]map[name]struct{} // policies by the Service
	byCA     map[name]map[name]struct{} // policies by the ConfigMap of their CA certificates
}

// links are what one policy names.
type links struct{ targets, authorities []name }

func newPolicies() policies {
	return policies{named: map[name]links{}, byTarget: map[name]map[name]struct{}{}, byCA: map[name]map[name]struct{}{}}
}

// put replaces a policy; nil removes it.
func (p *policies) put(n name, o *cluster.Object) {
	old := p.named[n]
	for _, t := range old.targets {
		drop(p.byTarget, t, n)
	}
	for _, c := range old.authorities {
		drop(p.byCA, c, n)
	}
	delete(p.named, n)
	if o == nil {
		return
	}
	v, ok := o.Value.(*gatewayv1.BackendTLSPolicy)
	if !ok {
		return // EncodeObject will say so
	}
	var l links
	for _, t := range v.Spec.TargetRefs {
		if federation.TargetKind(t) == cluster.KindService {
			to := name{n.namespace, string(t.Name)}
			l.targets = append(l.targets, to)
			add(p.byTarget, to, n)
		}
	}
	for _, c := range v.Spec.Validation.CACertificateRefs {
		if c.Group == "" && c.Kind == gatewayv1.Kind(cluster.KindConfigMap) {
			to := name{n.namespace, string(c.Name)}
			l.authorities = append(l.authorities, to)
			add(p.byCA, to, n)
		}
	}
	p.named[n] = l
}

func add(m map[name]map[name]struct{}, key, n name) {
	if m[key] == nil {
		m[key] = map[name]struct{}{}
	}
	m[key][n] = struct{}{}
}

func drop(m map[name]map[name]struct{}, key, n name) {
	if delete(m[key], n); len(m[key]) == 0 {
		delete(m, key)
	}
}

func policyRef(n name) cluster.Ref {
	return cluster.Ref{Kind: cluster.KindBackendTLSPolicy, Namespace: n.namespace, Name: n.name}
}

// touchPolicy marks the keys of a policy and of the CA certificates that it names.
func (x *exports) touchPolicy(ref cluster.Ref) {
	x.touchObject(ref)
	for _, c := range x.policies.named[name{ref.Namespace, ref.Name}].authorities {
		x.touchObject(cluster.Ref{Kind: cluster.KindConfigMap, Namespace: c.namespace, Name: c.name})
	}
}

// policyCrosses: with the export of a Service that the policy targets.
func (x *exports) policyCrosses(n name) bool {
	for _, t := range x.policies.named[n].targets {
		if x.isExported(t) {
			return true
		}
	}
	return false
}

// caCrosses: with a policy that names the ConfigMap, if it has certificates. One
// that has lost them is taken back, so that the policy fails everywhere alike.
func (x *exports) caCrosses(o *cluster.Object) bool {
	v, ok := o.Value.(*corev1.ConfigMap)
	if !ok || !record.HasCA(v) {
		return false
	}
	for policy := range x.policies.byCA[name{o.Namespace, o.Name}] {
		if x.policyCrosses(policy) {
			return true
		}
	}
	return false
}
