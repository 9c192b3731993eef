package resolve

import (
	"fmt"
	"reflect"
	"sort"
	"strings"

	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
	"k8s.io/apimachinery/pkg/labels"
	gatewayv1 "sigs.k8s.io/gateway-api/apis/v1"

	"github.com/causeway-mesh/causeway/cluster"
	"github.com/causeway-mesh/causeway/federation"
)

// Crosses reports whether an object of the cluster `o.Cluster` concerns other
// clusters, as that cluster sees it: whether its agent publishes it, and whether
// the copy takes part when others look for the one to follow. It answers for
// routes, Gateways and ListenerSets, which go where their Gateway goes.
func Crosses(snap *federation.Snapshot, o *cluster.Object) bool {
	return newReader(o.Cluster, snap).crosses(o)
}

func (r *reader) crosses(o *cluster.Object) bool {
	if _, gateway := o.Value.(*gatewayv1.Gateway); !gateway && staysHome(o) || r.refused(o) != "" {
		return false
	}
	return r.wouldCross(o)
}

// wouldCross is crosses without a word of the administrators' policy on o itself.
func (r *reader) wouldCross(o *cluster.Object) bool {
	if g, ok := o.Value.(*gatewayv1.Gateway); ok {
		return string(g.Spec.GatewayClassName) == cluster.ClassClusterset && r.ourClass(o.Cluster, cluster.ClassClusterset)
	}
	for _, ref := range federation.ParentRefs(o) {
		ns, kind := parentNamespace(o, ref), federation.ParentKind(ref)
		if o.Kind == cluster.KindListenerSet && kind != cluster.KindGateway {
			continue // whatever it says: one that named itself would go round for ever
		}
		switch kind {
		case cluster.KindServiceImport:
			return true
		case cluster.KindService:
			if ns == o.Namespace && r.exportedService(o.Cluster, ns, string(ref.Name)) != nil {
				return true
			}
		case cluster.KindGateway:
			if g := r.followedGateway(o.Cluster, ns, string(ref.Name)); g != nil && r.crosses(g) {
				return true
			}
		case cluster.KindListenerSet:
			if s := r.follow(o.Cluster, r.named(cluster.KindListenerSet, ns, string(ref.Name))); s != nil && r.crosses(s) {
				return true
			}
		}
	}
	return false
}

// refused tells why the administrators' policy keeps an object from other
// clusters; empty if it doesn't.
func (r *reader) refused(o *cluster.Object) string {
	r.note(federation.KeyNamed(o.Kind, o.Namespace, o.Name))
	return r.snap.Refused(o)
}

// Refused tells why the administrators' policy keeps an export, route, Gateway or
// ListenerSet from other clusters; empty if it doesn't, or if the object would not
// reach them anyway.
func Refused(snap *federation.Snapshot, o *cluster.Object) string {
	r := newReader(o.Cluster, snap)
	why := r.refused(o)
	if why == "" || o.Kind != cluster.KindServiceExport && (staysHome(o) || !r.wouldCross(o)) {
		return ""
	}
	return why
}

// staysHome: causeway.dev/scope: cluster.
func staysHome(o *cluster.Object) bool {
	m, ok := o.Value.(metav1.Object)
	return ok && m.GetAnnotations()[cluster.AnnotationScope] == cluster.ScopeCluster
}

func parentNamespace(o *cluster.Object, ref gatewayv1.ParentReference) string {
	if ref.Namespace != nil {
		return string(*ref.Namespace)
	}
	return o.Namespace
}

// ourClass tells whether a cluster's GatewayClass of that name is ours. Our two
// classes exist without an object; an object of their name with another
// controllerName takes them away.
func (r *reader) ourClass(id cluster.ID, name string) bool {
	if o := r.get(id, cluster.KindGatewayClass, "", name); o != nil {
		c, ok := o.Value.(*gatewayv1.GatewayClass)
		return ok && string(c.Spec.ControllerName) == cluster.ControllerName
	}
	return name == cluster.ClassCauseway || name == cluster.ClassClusterset
}

// followedRoute picks the copy of a route that this cluster obeys: its own, else
// the senior one of those that cross clusters.
func (r *reader) followedRoute(kind cluster.Kind, ns, name string) *cluster.Object {
	return r.follow(r.local, r.named(kind, ns, name))
}

// followedGateway picks the Gateway that the given cluster runs under a name. A
// cluster's own Gateway of somebody else's class hides others' of that name.
func (r *reader) followedGateway(id cluster.ID, ns, name string) *cluster.Object {
	o := r.follow(id, r.named(cluster.KindGateway, ns, name))
	if o == nil {
		return nil
	}
	g, ok := o.Value.(*gatewayv1.Gateway)
	if !ok || !r.ourClass(o.Cluster, string(g.Spec.GatewayClassName)) {
		return nil
	}
	return o
}

func (r *reader) follow(id cluster.ID, copies []*cluster.Object) *cluster.Object {
	var senior *cluster.Object
	for _, o := range copies {
		if o.Cluster == id {
			return o
		}
	}
	for _, o := range copies {
		if (senior == nil || cluster.Older(o, senior)) && r.crosses(o) {
			senior = o
		}
	}
	return senior
}

// federatedCondition compares a route's copies. It is nil for routes that
// concern their own cluster alone.
func (r *reader) federatedCondition(o *cluster.Object) *metav1.Condition {
	if staysHome(o) {
		return nil
	}
	if why := r.refused(o); why != "" && r.wouldCross(o) {
		c := condition(ConditionFederated, false, ReasonNotAllowedByPolicy, why)
		return &c
	}
	var copies []*cluster.Object
	cross := false
	for _, c := range r.named(o.Kind, o.Namespace, o.Name) {
		if staysHome(c) {
			continue
		}
		x := r.crosses(c)
		if x || c.Cluster == o.Cluster {
			copies = append(copies, c)
			cross = cross || x
		}
	}
	if !cross {
		return nil
	}
	sort.Slice(copies, func(i, j int) bool { return copies[i].Cluster < copies[j].Cluster })
	names := make([]string, len(copies))
	differ := false
	for i, c := range copies {
		names[i] = string(c.Cluster)
		differ = differ || !sameRoute(copies[0], c) || r.crosses(c) != r.crosses(copies[0])
	}
	if differ {
		c := condition(ConditionFederated, false, ReasonConflicted, fmt.Sprintf("clusters %s have differing copies of this route, or one that reaches only itself: each obeys its own, all others obey the senior one", strings.Join(names, ", ")))
		return &c
	}
	msg := "written in cluster " + names[0]
	if len(names) > 1 {
		msg = "the same in clusters " + strings.Join(names, ", ")
	}
	c := condition(ConditionFederated, true, ReasonFederated, msg)
	return &c
}

func sameRoute(a, b *cluster.Object) bool {
	if a == b {
		return true
	}
	x, y := specOf(a), specOf(b)
	return x != nil && y != nil && reflect.DeepEqual(x, y)
}

// specOf points to the spec of a route or ListenerSet, nil for other kinds.
func specOf(o *cluster.Object) any {
	switch v := o.Value.(type) {
	case *gatewayv1.HTTPRoute:
		return &v.Spec
	case *gatewayv1.GRPCRoute:
		return &v.Spec
	case *gatewayv1.TLSRoute:
		return &v.Spec
	case *gatewayv1.TCPRoute:
		return &v.Spec
	case *gatewayv1.UDPRoute:
		return &v.Spec
	case *gatewayv1.ListenerSet:
		return &v.Spec
	}
	return nil
}

// runsHere tells whether a followed Gateway is to be run in this cluster: always
// for the cluster's own class, by causeway.dev/clusters for a clusterset Gateway.
func (r *reader) runsHere(g *cluster.Object) (bool, error) { return r.runsIn(r.local, g) }

// runsIn is runsHere for another cluster that follows the Gateway.
func (r *reader) runsIn(id cluster.ID, g *cluster.Object) (bool, error) {
	v := g.Value.(*gatewayv1.Gateway)
	if !r.crosses(g) {
		return true, nil
	}
	said, ok := v.Annotations[cluster.AnnotationClusters]
	if !ok {
		return true, nil
	}
	sel, err := labels.Parse(said)
	if err != nil {
		return false, fmt.Errorf("annotation %s is not a label selector over name, region, zone and network: %w", cluster.AnnotationClusters, err)
	}
	c, known := r.cluster(id)
	if !known {
		return false, nil
	}
	return sel.Matches(c.Labels()), nil
}
