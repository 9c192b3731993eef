package status

import (
	"encoding/json"
	"fmt"
	"slices"
	"time"

	"k8s.io/apimachinery/pkg/api/equality"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
	gatewayv1 "sigs.k8s.io/gateway-api/apis/v1"
	mcsv1beta1 "sigs.k8s.io/mcs-api/pkg/apis/v1beta1"

	"github.com/causeway-mesh/causeway/cluster"
	"github.com/causeway-mesh/causeway/cluster/kubernetes"
)

// Bounds of the API.
const (
	maxParents    = 32
	maxAncestors  = 16
	maxConditions = 8
)

// Verdict is what the status of one object should say. Conditions carry neither
// a time nor a generation: Plan adds them.
type Verdict struct {
	// Generation is that of the object that was judged; 0 for a ServiceImport, whose
	// status does not depend on what it says.
	Generation int64
	Conditions []metav1.Condition
	Parents    []Parent // routes: parents; policies: ancestors
	Listeners  []Listener
	// AttachedListenerSets, of Gateways.
	AttachedListenerSets *int32
	// Addresses of a Gateway; nil leaves those that are there.
	Addresses []gatewayv1.GatewayStatusAddress
	// Clusters that export a ServiceImport, sorted.
	Clusters []cluster.ID
	// Experimental, of GatewayClasses: the cluster has the CRDs of Gateway API's experimental
	// channel, and so their features.
	Experimental bool
	// EndpointSlices of a ServiceImport: Present, Absent, or empty to leave it.
	EndpointSlices mcsv1beta1.EndpointSliceObjectsStatus
}

// Parent is what became of a route at one parent, or of a policy for one ancestor.
type Parent struct {
	Ref        gatewayv1.ParentReference
	Conditions []metav1.Condition
}

// Listener is what became of one listener.
type Listener struct {
	Name           string
	AttachedRoutes int32
	SupportedKinds []gatewayv1.RouteGroupKind
	Conditions     []metav1.Condition
}

// ours lists the types of conditions that we write, by the kind of what bears
// them: one that we write and don't want is taken away, any other stays.
var ours = map[string][]string{
	"parent":   {string(gatewayv1.RouteConditionAccepted), string(gatewayv1.RouteConditionResolvedRefs), string(gatewayv1.RouteConditionPartiallyInvalid), "Federated"},
	"ancestor": {string(gatewayv1.PolicyConditionAccepted), string(gatewayv1.BackendTLSPolicyConditionResolvedRefs)},
	"gateway": {string(gatewayv1.GatewayConditionAccepted), string(gatewayv1.GatewayConditionProgrammed), string(gatewayv1.GatewayConditionResolvedRefs),
		string(gatewayv1.GatewayConditionInsecureFrontendValidationMode), "Federated"},
	"listener": {string(gatewayv1.ListenerConditionAccepted), string(gatewayv1.ListenerConditionConflicted), string(gatewayv1.ListenerConditionOverlappingTLSConfig),
		string(gatewayv1.ListenerConditionProgrammed), string(gatewayv1.ListenerConditionResolvedRefs)},
	"set":    {string(gatewayv1.ListenerSetConditionAccepted), string(gatewayv1.ListenerSetConditionProgrammed), "Federated"},
	"class":  {string(gatewayv1.GatewayClassConditionStatusAccepted)},
	"export": {string(mcsv1beta1.ServiceExportConditionValid), string(mcsv1beta1.ServiceExportConditionReady), string(mcsv1beta1.ServiceExportConditionConflict)},
	"import": {string(mcsv1beta1.ServiceImportConditionReady)},
}

// Plan gives the JSON merge patch that makes an object's status say what a verdict
// does, nil if it does already. A nil verdict says that the object is none of our
// business (any more): it takes our entries out of routes and policies, and leaves
// other kinds as they are. now dates transitions, to the second. turns says that somebody
// may wait for it: more than counts and messages differ.
func Plan(live *kubernetes.Live, v *Verdict, now time.Time) (patch []byte, turns bool, err error) {
	p := planner{now: metav1.NewTime(now.Truncate(time.Second))}
	if v != nil {
		p.generation = v.Generation
	}
	var next any
	switch old := live.Status.(type) {
	case *gatewayv1.RouteStatus:
		next = p.route(old, v)
	case *gatewayv1.PolicyStatus:
		next = p.policy(old, v)
	case *gatewayv1.GatewayStatus:
		next = p.gateway(old, v)
	case *gatewayv1.ListenerSetStatus:
		next = p.set(old, v)
	case *gatewayv1.GatewayClassStatus:
		next = p.class(old, v)
	case *mcsv1beta1.ServiceExportStatus:
		next = p.export(old, v)
	case *mcsv1beta1.ServiceImportStatus:
		next = p.imported(old, v)
	default:
		return nil, false, fmt.Errorf("no status of type %T is ours to write", live.Status)
	}
	if next == nil || equality.Semantic.DeepEqual(live.Status, next) {
		return nil, false, nil
	}
	fields, turns, err := difference(live.Status, next)
	if err != nil {
		return nil, false, err
	}
	patch, err = json.Marshal(map[string]any{"metadata": map[string]string{"resourceVersion": live.ResourceVersion}, "status": fields})
	return patch, turns, err
}

// difference gives the fields of next that differ from old's, and null for those
// that are gone. turns is as in Plan.
func difference(old, next any) (out map[string]any, turns bool, err error) {
	fields := func(v any) (map[string]any, error) {
		raw, err := json.Marshal(v)
		if err != nil {
			return nil, err
		}
		var m map[string]any
		return m, json.Unmarshal(raw, &m)
	}
	a, err := fields(old)
	if err != nil {
		return nil, false, err
	}
	b, err := fields(next)
	if err != nil {
		return nil, false, err
	}
	out = map[string]any{}
	for k, v := range b {
		if !equality.Semantic.DeepEqual(a[k], v) {
			out[k] = v
		}
	}
	for k := range a {
		if _, ok := b[k]; !ok {
			out[k] = nil
		}
	}
	return out, !equality.Semantic.DeepEqual(weighty(a), weighty(b)), nil
}

// weighty gives a copy of JSON without what nobody waits for.
func weighty(v any) any {
	switch v := v.(type) {
	case map[string]any:
		out := make(map[string]any, len(v))
		for k, x := range v {
			if k != "attachedRoutes" && k != "attachedListenerSets" && k != "message" {
				out[k] = weighty(x)
			}
		}
		return out
	case []any:
		out := make([]any, 0, len(v))
		for _, x := range v {
			out = append(out, weighty(x))
		}
		return out
	}
	return v
}

type planner struct {
	now        metav1.Time
	generation int64
}

// conditions merges what is wanted into what is there.
func (p planner) conditions(old, want []metav1.Condition, bearer string) []metav1.Condition {
	out := make([]metav1.Condition, 0, len(old)+len(want))
	find := func(list []metav1.Condition, typ string) *metav1.Condition {
		for i := range list {
			if list[i].Type == typ {
				return &list[i]
			}
		}
		return nil
	}
	mine := func(w metav1.Condition, was *metav1.Condition) metav1.Condition {
		w.ObservedGeneration, w.LastTransitionTime = p.generation, p.now
		if was != nil && was.Status == w.Status && !was.LastTransitionTime.IsZero() {
			w.LastTransitionTime = was.LastTransitionTime
		}
		return w
	}
	for i := range old {
		w := find(want, old[i].Type)
		switch {
		case w != nil:
			out = append(out, mine(*w, &old[i]))
		case !slices.Contains(ours[bearer], old[i].Type):
			out = append(out, old[i])
		}
	}
	for _, w := range want {
		if find(old, w.Type) == nil && len(out) < maxConditions {
			out = append(out, mine(w, nil))
		}
	}
	return out
}

func (p planner) route(old *gatewayv1.RouteStatus, v *Verdict) any {
	var want []Parent
	if v != nil {
		for _, w := range v.Parents {
			w.Conditions = append(slices.Clip(w.Conditions), v.Conditions...)
			want = append(want, w)
		}
	}
	type entry = gatewayv1.RouteParentStatus
	parents := merge(old.Parents, want, maxParents,
		func(e *entry) (gatewayv1.ParentReference, bool) {
			return e.ParentRef, e.ControllerName == cluster.ControllerName
		},
		func(e *entry, w Parent) entry {
			var was []metav1.Condition
			if e != nil { // the reference is there with its defaults
				was, w.Ref = e.Conditions, e.ParentRef
			}
			return entry{ParentRef: w.Ref, ControllerName: cluster.ControllerName, Conditions: p.conditions(was, w.Conditions, "parent")}
		})
	return &gatewayv1.RouteStatus{Parents: parents}
}

func (p planner) policy(old *gatewayv1.PolicyStatus, v *Verdict) any {
	var want []Parent
	if v != nil {
		want = v.Parents
	}
	type entry = gatewayv1.PolicyAncestorStatus
	ancestors := merge(old.Ancestors, want, maxAncestors,
		func(e *entry) (gatewayv1.ParentReference, bool) {
			return e.AncestorRef, e.ControllerName == cluster.ControllerName
		},
		func(e *entry, w Parent) entry {
			var was []metav1.Condition
			if e != nil {
				was, w.Ref = e.Conditions, e.AncestorRef
			}
			return entry{AncestorRef: w.Ref, ControllerName: cluster.ControllerName, Conditions: p.conditions(was, w.Conditions, "ancestor")}
		})
	return &gatewayv1.PolicyStatus{Ancestors: ancestors}
}

// merge puts entries that are wanted in the place of ours, within a bound, in
// which foreign ones have precedence.
func merge[E any](old []E, want []Parent, most int, view func(*E) (gatewayv1.ParentReference, bool), build func(*E, Parent) E) []E {
	foreign := 0
	for i := range old {
		if _, mine := view(&old[i]); !mine {
			foreign++
		}
	}
	room := max(0, most-foreign)
	if len(want) > room {
		want = want[:room]
	}
	out := make([]E, 0, len(old)+len(want))
	placed := make([]bool, len(want))
	for i := range old {
		ref, mine := view(&old[i])
		if !mine {
			out = append(out, old[i])
			continue
		}
		for j := range want {
			if !placed[j] && sameRef(ref, want[j].Ref) {
				placed[j] = true
				out = append(out, build(&old[i], want[j]))
				break
			}
		}
	}
	for j := range want {
		if !placed[j] {
			out = append(out, build(nil, want[j]))
		}
	}
	return out
}

// sameRef compares references, with the API's defaults for what isn't said.
func sameRef(a, b gatewayv1.ParentReference) bool {
	full := func(r gatewayv1.ParentReference) gatewayv1.ParentReference {
		if r.Group == nil {
			g := gatewayv1.Group(gatewayv1.GroupName)
			r.Group = &g
		}
		if r.Kind == nil {
			k := gatewayv1.Kind(cluster.KindGateway)
			r.Kind = &k
		}
		return r
	}
	return equality.Semantic.DeepEqual(full(a), full(b))
}

func (p planner) gateway(old *gatewayv1.GatewayStatus, v *Verdict) any {
	if v == nil {
		return nil
	}
	next := old.DeepCopy()
	next.Conditions = p.conditions(old.Conditions, v.Conditions, "gateway")
	next.Listeners = listeners(p, old.Listeners, v.Listeners)
	next.AttachedListenerSets = v.AttachedListenerSets
	if v.Addresses != nil {
		next.Addresses = v.Addresses
	}
	return next
}

func (p planner) set(old *gatewayv1.ListenerSetStatus, v *Verdict) any {
	if v == nil {
		return nil
	}
	next := old.DeepCopy()
	next.Conditions = p.conditions(old.Conditions, v.Conditions, "set")
	next.Listeners = listeners(p, old.Listeners, v.Listeners)
	return next
}

// listeners puts those that are wanted in the place of those that are there. The entries of
// a ListenerSet have the fields of a Gateway's listeners.
func listeners[E gatewayv1.ListenerStatus | gatewayv1.ListenerEntryStatus](p planner, old []E, want []Listener) []E {
	was := make(map[string][]metav1.Condition, len(old))
	for _, e := range old {
		l := gatewayv1.ListenerStatus(e)
		was[string(l.Name)] = l.Conditions
	}
	out := make([]E, 0, len(want))
	for _, l := range want {
		out = append(out, E(gatewayv1.ListenerStatus{
			Name: gatewayv1.SectionName(l.Name), AttachedRoutes: l.AttachedRoutes, SupportedKinds: kinds(l), Conditions: p.conditions(was[l.Name], l.Conditions, "listener"),
		}))
	}
	return out
}

// kinds is never nil: a Gateway's listener has to name its kinds even if there are
// none. The API's default for the group is filled in, as the API server will.
func kinds(l Listener) []gatewayv1.RouteGroupKind {
	out := append([]gatewayv1.RouteGroupKind{}, l.SupportedKinds...)
	for i := range out {
		if out[i].Group == nil {
			g := gatewayv1.Group(gatewayv1.GroupName)
			out[i].Group = &g
		}
	}
	return out
}

func (p planner) class(old *gatewayv1.GatewayClassStatus, v *Verdict) any {
	if v == nil {
		return nil
	}
	return &gatewayv1.GatewayClassStatus{Conditions: p.conditions(old.Conditions, v.Conditions, "class"), SupportedFeatures: Features(v.Experimental)}
}

func (p planner) export(old *mcsv1beta1.ServiceExportStatus, v *Verdict) any {
	if v == nil {
		return nil
	}
	return &mcsv1beta1.ServiceExportStatus{Conditions: p.conditions(old.Conditions, v.Conditions, "export")}
}

func (p planner) imported(old *mcsv1beta1.ServiceImportStatus, v *Verdict) any {
	if v == nil {
		return nil
	}
	next := old.DeepCopy()
	next.Conditions = p.conditions(old.Conditions, v.Conditions, "import")
	next.Clusters = make([]mcsv1beta1.ClusterStatus, 0, len(v.Clusters))
	for _, id := range v.Clusters {
		next.Clusters = append(next.Clusters, mcsv1beta1.ClusterStatus{Cluster: string(id)})
	}
	if v.EndpointSlices != "" {
		next.EndpointSliceObjects = v.EndpointSlices
	}
	return next
}
