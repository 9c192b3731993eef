package incluster

import (
	"context"
	"fmt"
	"slices"
	"strings"
	"sync"
	"sync/atomic"

	"k8s.io/apimachinery/pkg/api/meta"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
	gatewayv1 "sigs.k8s.io/gateway-api/apis/v1"
	mcsv1beta1 "sigs.k8s.io/mcs-api/pkg/apis/v1beta1"

	"github.com/causeway-mesh/causeway/cluster"
	"github.com/causeway-mesh/causeway/cluster/kubernetes"
	"github.com/causeway-mesh/causeway/cluster/provision"
	"github.com/causeway-mesh/causeway/cluster/status"
	"github.com/causeway-mesh/causeway/federation"
	"github.com/causeway-mesh/causeway/federation/resolve"
)

// feed hands what the resolver found out to who writes it to the API server, and to
// the source what the resolver needs.
type feed struct {
	local  cluster.ID
	judged func([]cluster.Ref)
	need   func([]cluster.Ref)
	// standing tells how an import stands; false: it is none of ours, or nobody knows yet.
	standing func(namespace, name string) (provision.Standing, bool)
	// runs is told of Gateways that may stand differently, whichever cluster wrote them.
	runs func(...provision.Name)
	// gateway tells how a Gateway that is run stands; false: nobody knows yet.
	gateway func(namespace, name string) (provision.GatewayStanding, bool)
	taken   *taken

	// experimental tells whether the cluster has Gateway API's experimental channel.
	experimental func() bool

	latest atomic.Pointer[resolve.Result]
	denied atomic.Bool // the store takes nothing of this cluster's
	mu     sync.Mutex  // one follow at a time
	needed []cluster.Ref
}

// follow takes the next Result. It never blocks.
func (f *feed) follow(res *resolve.Result, delta resolve.Delta) {
	f.mu.Lock()
	defer f.mu.Unlock()
	first := f.latest.Swap(res) == nil
	var refs []cluster.Ref
	if first {
		refs = f.reported(res)
	}
	var names []provision.Name
	for _, k := range slices.Concat(delta.Reports, delta.Runs) {
		ref, home, ok := resolve.ParseKey(k)
		if !ok {
			continue
		}
		if home == f.local {
			refs = append(refs, ref)
		}
		if ref.Kind == cluster.KindGateway {
			names = append(names, provision.Name{Namespace: ref.Namespace, Name: ref.Name})
		}
	}
	f.runs(names...)
	f.judged(refs)
	if first || len(delta.Gateways) > 0 {
		if needed := foreignReferences(res); !slices.Equal(needed, f.needed) {
			f.needed = needed
			f.need(needed)
		}
	}
}

// reported lists this cluster's own objects that a Result says something of.
func (f *feed) reported(res *resolve.Result) (refs []cluster.Ref) {
	res.Reports.Root().Walk(func(_ []byte, rep *resolve.ObjectReport) bool {
		if rep.Cluster == f.local {
			refs = append(refs, rep.Ref)
		}
		return false
	})
	return refs
}

// admission follows whether the store takes what this cluster says, until ctx ends. denied
// is set before latest is read, and follow sets latest before it has anything judged: so an
// object that is not in the Result read here is judged by a follow that comes after, with
// the new denied.
func (f *feed) admission(ctx context.Context, leases func() (federation.Leases, <-chan struct{})) {
	for {
		l, changed := leases()
		if f.denied.Swap(l.Denied) != l.Denied {
			if res := f.latest.Load(); res != nil {
				f.judged(slices.DeleteFunc(f.reported(res), func(r cluster.Ref) bool { return r.Kind != cluster.KindServiceExport }))
			}
		}
		select {
		case <-changed:
		case <-ctx.Done():
			return
		}
	}
}

// shutOut is the verdict on an export of a cluster that the store refuses: whatever other
// clusters had of it, they have no more, or not for long. It is pure.
func shutOut(v *status.Verdict) *status.Verdict {
	out := *v
	out.Conditions = slices.Clone(v.Conditions)
	if c := meta.FindStatusCondition(out.Conditions, string(mcsv1beta1.ServiceExportConditionReady)); c != nil && c.Status == metav1.ConditionTrue {
		c.Status, c.Reason = metav1.ConditionFalse, string(mcsv1beta1.ServiceExportReasonPending)
		c.Message = "the global store refuses this cluster: it was removed from the clusterset, or its credentials are not its own. `causeway cluster add` makes new ones"
	}
	return &out
}

// foreignReferences lists the Secrets and ConfigMaps of this cluster to which Gateways
// that other clusters wrote for all, and ListenerSets of others, refer.
func foreignReferences(res *resolve.Result) []cluster.Ref {
	seen := map[cluster.Ref]bool{}
	var out []cluster.Ref
	add := func(o *cluster.Object) {
		for _, r := range kubernetes.References(o) {
			if !seen[r] {
				seen[r] = true
				out = append(out, r)
			}
		}
	}
	res.Gateways.Root().Walk(func(_ []byte, g *resolve.Gateway) bool {
		if o, ok := res.Snapshot.Get(g.Home, cluster.KindGateway, g.Namespace, g.Name); ok && g.Home != res.Local {
			add(o)
		}
		for _, o := range res.Snapshot.ListenerSetsOf(g.Namespace, g.Name) {
			if o.Cluster != res.Local {
				add(o)
			}
		}
		return false
	})
	slices.SortFunc(out, func(a, b cluster.Ref) int { return strings.Compare(a.String(), b.String()) })
	return out
}

// judge implements status.Config.Judge.
func (f *feed) judge(ref cluster.Ref) (*status.Verdict, bool) {
	res := f.latest.Load()
	if res == nil {
		return nil, false
	}
	if ref.Kind == cluster.KindServiceImport {
		st, ok := f.standing(ref.Namespace, ref.Name)
		if !ok {
			return nil, true
		}
		return &status.Verdict{Conditions: []metav1.Condition{st.Ready}, Clusters: st.Clusters, EndpointSlices: st.EndpointSlices}, true
	}
	v, known := f.here(res, res.Local, ref)
	if runs, ok := res.Runs.Get([]byte(resolve.RunsKey(ref.Namespace, ref.Name, res.Local))); ok && ref.Kind == cluster.KindGateway && v != nil && known {
		v = gathered(v, runs)
	}
	return v, known
}

// here is what this cluster makes of an object that home wrote, or has a copy of: of a
// Gateway as it is run in this cluster.
func (f *feed) here(res *resolve.Result, home cluster.ID, ref cluster.Ref) (*status.Verdict, bool) {
	v := verdict(res, home, ref)
	if v != nil && ref.Kind == cluster.KindServiceExport && f.denied.Load() {
		return shutOut(v), true
	}
	if v != nil && ref.Kind == cluster.KindGatewayClass {
		v.Experimental = f.experimental()
		return v, true
	}
	of, runs := gatewayBehind(res, ref)
	if v != nil {
		v = withoutPorts(ref.Kind, v, unavailable(res, of, ref))
	}
	if v == nil || !runs {
		if ref.Kind == cluster.KindGateway {
			f.taken.forget(of)
		}
		return v, true
	}
	if _, ok := res.Snapshot.Get(res.Local, cluster.KindNamespace, "", of.Namespace); !ok {
		return provided(ref.Kind, v, homeless(of, res.Local)), true
	}
	st, ok := f.gateway(of.Namespace, of.Name)
	if !ok {
		return nil, false
	}
	if ref.Kind == cluster.KindGateway && st.Programmed.Status == metav1.ConditionTrue {
		behind, known := f.taken.look(of, v.Generation)
		if !known {
			return nil, false
		}
		if behind > 0 {
			st = unanswered(st, behind)
		}
	}
	return provided(ref.Kind, v, st), true
}

// gatewayBehind names the Gateway whose pods and Service an object's status depends on:
// a Gateway itself, a ListenerSet's. It is false unless this cluster runs that, with a
// listener that its pods can have.
func gatewayBehind(res *resolve.Result, ref cluster.Ref) (of provision.Name, runs bool) {
	of = provision.Name{Namespace: ref.Namespace, Name: ref.Name}
	switch ref.Kind {
	case cluster.KindGateway:
	case cluster.KindListenerSet:
		o, ok := res.Snapshot.Get(res.Local, ref.Kind, ref.Namespace, ref.Name)
		if !ok {
			return of, false
		}
		s, ok := o.Value.(*gatewayv1.ListenerSet)
		if !ok {
			return of, false
		}
		of.Name = string(s.Spec.ParentRef.Name)
		if ns := s.Spec.ParentRef.Namespace; ns != nil {
			of.Namespace = string(*ns)
		}
	default:
		return of, false
	}
	g, ok := res.Gateways.Get([]byte(of.String()))
	return of, ok && !g.Refused && slices.ContainsFunc(g.Listeners, possible)
}

func possible(l resolve.Listener) bool {
	_, ok := provision.TargetPort(l.Port)
	return ok
}

// unavailable lists the listeners of an object whose ports the Gateway's pods can't have.
func unavailable(res *resolve.Result, of provision.Name, ref cluster.Ref) (names []string) {
	g, ok := res.Gateways.Get([]byte(of.String()))
	if !ok {
		return nil
	}
	set := ""
	if ref.Kind == cluster.KindListenerSet {
		set = ref.Namespace + "/" + ref.Name
	}
	for _, l := range g.Listeners {
		if l.Set == set && !possible(l) {
			names = append(names, l.Name)
		}
	}
	return names
}

// withoutPorts says of listeners that they can't have their ports, and of an object that it
// is not programmed if that leaves it none. It is pure.
func withoutPorts(kind cluster.Kind, v *status.Verdict, names []string) *status.Verdict {
	if len(names) == 0 || kind != cluster.KindGateway && kind != cluster.KindListenerSet {
		return v
	}
	no := func(c gatewayv1.ListenerConditionType, reason gatewayv1.ListenerConditionReason, message string) metav1.Condition {
		return metav1.Condition{Type: string(c), Status: metav1.ConditionFalse, Reason: string(reason), Message: message}
	}
	const why = "in Kubernetes the ports from 61000 to 62023 stand for others in a Gateway's pods: choose another"
	out := *v
	out.Listeners = slices.Clone(v.Listeners)
	left := 0
	for i, l := range out.Listeners {
		if slices.Contains(names, l.Name) {
			out.Listeners[i].Conditions = turned(turned(l.Conditions, no(gatewayv1.ListenerConditionAccepted, gatewayv1.ListenerReasonPortUnavailable, why)),
				no(gatewayv1.ListenerConditionProgrammed, gatewayv1.ListenerReasonInvalid, ""))
		} else if slices.ContainsFunc(l.Conditions, func(c metav1.Condition) bool {
			return c.Type == string(gatewayv1.ListenerConditionProgrammed) && c.Status == metav1.ConditionTrue
		}) {
			left++
		}
	}
	if left == 0 {
		out.Conditions = turned(v.Conditions, no(gatewayv1.ListenerConditionProgrammed, gatewayv1.ListenerReasonInvalid, "no listener has a port that it can have"))
	}
	return &out
}

// turned gives conditions of which one that is True has become another.
func turned(in []metav1.Condition, c metav1.Condition) []metav1.Condition {
	list := slices.Clone(in)
	for i := range list {
		if list[i].Type == c.Type && list[i].Status == metav1.ConditionTrue {
			list[i] = c
		}
	}
	return list
}

// provided adds to a verdict how the Gateway stands: what the resolver finds fit to be
// programmed is so once Envoys serve it at an address. It is pure.
func provided(kind cluster.Kind, v *status.Verdict, st provision.GatewayStanding) *status.Verdict {
	out := *v
	if kind == cluster.KindGateway {
		out.Addresses = append([]gatewayv1.GatewayStatusAddress{}, st.Addresses...)
	}
	if st.Programmed.Status == metav1.ConditionTrue {
		return &out
	}
	pending := metav1.Condition{Type: string(gatewayv1.ListenerConditionProgrammed), Status: metav1.ConditionFalse, Reason: string(gatewayv1.ListenerReasonPending), Message: "the Gateway is not programmed yet"}
	if kind == cluster.KindGateway {
		out.Conditions = turned(v.Conditions, st.Programmed)
	} else {
		out.Conditions = turned(v.Conditions, pending)
	}
	out.Listeners = slices.Clone(v.Listeners)
	for i := range out.Listeners {
		out.Listeners[i].Conditions = turned(out.Listeners[i].Conditions, pending)
	}
	return &out
}

// homeless is the standing of a Gateway in a cluster that lacks its namespace.
func homeless(of provision.Name, local cluster.ID) provision.GatewayStanding {
	return provision.GatewayStanding{Programmed: metav1.Condition{
		Type: string(gatewayv1.GatewayConditionProgrammed), Status: metav1.ConditionFalse, Reason: string(gatewayv1.GatewayReasonNoResources),
		Message: fmt.Sprintf("there is no namespace %s in cluster %s: create it", of.Namespace, local),
	}}
}

// verdict is what a Result says of an object of a cluster; nil: nothing. It is pure.
func verdict(res *resolve.Result, home cluster.ID, ref cluster.Ref) *status.Verdict {
	rep, ok := res.Report(ref, home)
	if !ok {
		return nil
	}
	o, ok := res.Snapshot.Get(home, ref.Kind, ref.Namespace, ref.Name)
	if !ok {
		return nil
	}
	m, ok := o.Value.(metav1.Object)
	if !ok {
		return nil
	}
	v := &status.Verdict{Generation: m.GetGeneration(), Conditions: rep.Conditions, AttachedListenerSets: rep.AttachedListenerSets}
	for _, p := range slices.Concat(rep.Parents, rep.Ancestors) {
		v.Parents = append(v.Parents, status.Parent{Ref: p.ParentRef, Conditions: p.Conditions})
	}
	for _, l := range rep.Listeners {
		v.Listeners = append(v.Listeners, status.Listener{Name: l.Name, AttachedRoutes: l.AttachedRoutes, SupportedKinds: slices.Clone[[]gatewayv1.RouteGroupKind](l.SupportedKinds), Conditions: l.Conditions})
	}
	return v
}
