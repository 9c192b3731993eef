package resolve

import (
	"cmp"
	"fmt"
	"slices"

	corev1 "k8s.io/api/core/v1"
	"k8s.io/apimachinery/pkg/labels"
	gatewayv1 "sigs.k8s.io/gateway-api/apis/v1"

	"github.com/causeway-mesh/causeway/cluster"
	"github.com/causeway-mesh/causeway/federation"
)

// Travel is what of this cluster's certificates other clusters need to run a Gateway, and
// may have.
type Travel struct {
	Namespace, Name string              // of the Gateway
	Certificates    []TravelCertificate // sorted by the Secret's namespace and name, each once
}

// TravelCertificate is one certificate and where it goes.
type TravelCertificate struct {
	*Certificate
	Clusters []cluster.ID // sorted; empty: see Problem
	// Problem says why a Secret that is meant to travel doesn't; empty for none.
	Problem string
}

// certificateRef is a reference of this cluster's to a certificate.
type certificateRef struct {
	kind      cluster.Kind // of what refers: a Gateway or a ListenerSet
	namespace string
	ref       gatewayv1.SecretObjectReference
}

// certificatesKey is the Key of the fact by which a Gateway tells which certificates objects
// of this cluster refer to: []certificateRef.
func certificatesKey(ns, name string) federation.Key { return factKey("certificates", ns, name) }

// certificateRefs lists the certificates to which objects of this cluster refer for a
// Gateway that others may run too.
func (r *reader) certificateRefs(g *gatewayView, all []*placed) (out []certificateRef) {
	if !r.crosses(g.obj) {
		return nil
	}
	for _, l := range all {
		if l.parent.obj.Cluster != r.local {
			continue
		}
		for _, ref := range l.refs {
			out = append(out, certificateRef{l.parent.obj.Kind, l.parent.obj.Namespace, ref})
		}
	}
	if t := g.spec.Spec.TLS; g.obj.Cluster == r.local && t != nil && t.Backend != nil && t.Backend.ClientCertificateRef != nil {
		out = append(out, certificateRef{cluster.KindGateway, g.obj.Namespace, *t.Backend.ClientCertificateRef})
	}
	return out
}

// travelUnit finds out which certificates of this cluster have to reach which others for
// the Gateway of a name: those whose Secret lets them, by AnnotationTravel, and that a
// ReferenceGrant here lets the Gateway have.
func travelUnit(r *reader, ns, name string) output {
	copies := r.named(cluster.KindGateway, ns, name)
	if len(copies) == 0 {
		return output{gone: true}
	}
	refs := r.facts(certificatesKey(ns, name))
	if len(refs) == 0 {
		return output{}
	}
	followed := r.follow(r.local, copies)
	var runners []federation.Cluster
	for _, c := range r.clusters() {
		if c.ID == r.local || r.follow(c.ID, copies) != followed {
			continue
		}
		if ok, err := r.runsIn(c.ID, followed); err == nil && ok {
			runners = append(runners, c)
		}
	}
	t := &Travel{Namespace: ns, Name: name}
	for _, ref := range refs[0].([]certificateRef) {
		from := &cluster.Object{Ref: cluster.Ref{Kind: ref.kind, Namespace: ref.namespace}, Cluster: r.local}
		c := r.certificate(from, ref.ref, "").certificate
		if c == nil || slices.ContainsFunc(t.Certificates, func(o TravelCertificate) bool { return o.Namespace == c.Namespace && o.Name == c.Name }) {
			continue
		}
		if x, ok := r.travels(c, runners); ok {
			t.Certificates = append(t.Certificates, x)
		}
	}
	if len(t.Certificates) == 0 {
		return output{}
	}
	slices.SortFunc(t.Certificates, func(a, b TravelCertificate) int {
		return cmp.Or(cmp.Compare(a.Namespace, b.Namespace), cmp.Compare(a.Name, b.Name))
	})
	return output{travel: t}
}

// travels tells to which of the clusters a certificate may go; false if it is to stay.
func (r *reader) travels(c *Certificate, clusters []federation.Cluster) (TravelCertificate, bool) {
	out := TravelCertificate{Certificate: c}
	o := r.get(r.local, cluster.KindSecret, c.Namespace, c.Name)
	if o == nil {
		return out, false
	}
	s, _ := o.Value.(*corev1.Secret)
	said, ok := s.Annotations[cluster.AnnotationTravel]
	if !ok {
		return out, false
	}
	sel, err := labels.Parse(said)
	if err != nil {
		out.Problem = fmt.Sprintf("annotation %s is not a label selector over name, region, zone and network, so the Secret stays in this cluster: %s", cluster.AnnotationTravel, clipMessage(err.Error()))
		return out, true
	}
	for _, x := range clusters {
		if sel.Matches(x.Labels()) {
			out.Clusters = append(out.Clusters, x.ID)
		}
	}
	return out, len(out.Clusters) > 0
}
