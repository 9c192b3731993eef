package resolve

import (
	"slices"

	corev1 "k8s.io/api/core/v1"
	gatewayv1beta1 "sigs.k8s.io/gateway-api/apis/v1beta1"

	"github.com/causeway-mesh/causeway/cluster"
	"github.com/causeway-mesh/causeway/federation"
)

// reader is the only way by which units see the Snapshot: it notes the Key of
// everything that was read, absences included.
type reader struct {
	snap  *federation.Snapshot
	local cluster.ID
	keys  map[federation.Key]struct{}
	// sub remembers a piece of the unit's work by itself: compute gets a reader
	// of its own, so what it reads does not make the rest of the unit stale.
	// compute must depend on nothing but its reader and what part names.
	sub func(part string, compute func(*reader) any) any
	// factsOf finds facts of units of earlier classes; nil outside the engine.
	factsOf func(k federation.Key) []any
}

func newReader(local cluster.ID, snap *federation.Snapshot) *reader {
	return &reader{snap: snap, local: local, keys: make(map[federation.Key]struct{}, 8)}
}

func (r *reader) note(k federation.Key) { r.keys[k] = struct{}{} }

// sorted gives the Keys of all that was read.
func (r *reader) sorted() []federation.Key {
	out := make([]federation.Key, 0, len(r.keys))
	for k := range r.keys {
		out = append(out, k)
	}
	slices.Sort(out)
	return out
}

// facts lists what units of earlier classes found out under a Key, in the order
// of their ids.
func (r *reader) facts(k federation.Key) []any {
	r.note(k)
	if r.factsOf == nil {
		return nil
	}
	return r.factsOf(k)
}

func (r *reader) get(id cluster.ID, kind cluster.Kind, ns, name string) *cluster.Object {
	r.note(federation.KeyNamed(kind, ns, name))
	o, _ := r.snap.Get(id, kind, ns, name)
	return o
}

func (r *reader) named(kind cluster.Kind, ns, name string) []*cluster.Object {
	r.note(federation.KeyNamed(kind, ns, name))
	return r.snap.Named(kind, ns, name)
}

func (r *reader) routesOf(parent cluster.Kind, ns, name string) []*cluster.Object {
	r.note(federation.KeyParent(parent, ns, name))
	return r.snap.RoutesOf(parent, ns, name)
}

func (r *reader) listenerSetsOf(ns, gateway string) []*cluster.Object {
	r.note(federation.KeyListenerSets(ns, gateway))
	return r.snap.ListenerSetsOf(ns, gateway)
}

func (r *reader) policiesOf(target cluster.Kind, ns, name string) []*cluster.Object {
	r.note(federation.KeyPolicies(target, ns, name))
	return r.snap.PoliciesOf(target, ns, name)
}

func (r *reader) slicesOf(id cluster.ID, ns, service string) []*cluster.Object {
	r.note(federation.KeySlices(ns, service, id))
	return r.snap.SlicesOf(id, ns, service)
}

func (r *reader) cluster(id cluster.ID) (federation.Cluster, bool) {
	r.note(federation.KeyClusters)
	c, ok := r.snap.Cluster(id)
	c.Drained, c.DrainTarget = 0, 0
	return c, ok
}

// clusters lists all clusters, with the Drained that cluster leaves out: nobody may read
// that here.
func (r *reader) clusters() []federation.Cluster {
	r.note(federation.KeyClusters)
	return r.snap.Clusters()
}

// drained gives the percentage by which a cluster is drained. What cluster gives
// has none: a reader that does not ask for it is not woken by its steps.
func (r *reader) drained(id cluster.ID) int {
	r.note(federation.KeyDrained(id))
	c, _ := r.snap.Cluster(id)
	return c.Drained
}

func (r *reader) service(id cluster.ID, ns, name string) *corev1.Service {
	o := r.get(id, cluster.KindService, ns, name)
	if o == nil {
		return nil
	}
	s, _ := o.Value.(*corev1.Service)
	return s
}

// grants lists one cluster's ReferenceGrants of a namespace.
func (r *reader) grants(id cluster.ID, ns string) []*gatewayv1beta1.ReferenceGrant {
	r.note(federation.KeyNamespace(cluster.KindReferenceGrant, ns))
	var out []*gatewayv1beta1.ReferenceGrant
	for _, o := range r.snap.InNamespace(cluster.KindReferenceGrant, ns) {
		if g, ok := o.Value.(*gatewayv1beta1.ReferenceGrant); ok && o.Cluster == id {
			out = append(out, g)
		}
	}
	return out
}

// namespaceLabels gives a namespace's labels in one cluster. The label that
// Kubernetes itself sets on every namespace is there even where the Namespace
// object isn't.
func (r *reader) namespaceLabels(id cluster.ID, ns string) map[string]string {
	out := map[string]string{}
	if o := r.get(id, cluster.KindNamespace, "", ns); o != nil {
		if n, ok := o.Value.(*corev1.Namespace); ok {
			for k, v := range n.Labels {
				out[k] = v
			}
		}
	}
	out[cluster.LabelNamespaceName] = ns
	return out
}
