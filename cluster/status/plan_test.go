package status

import (
	"encoding/json"
	"fmt"
	"reflect"
	"slices"
	"strings"
	"testing"
	"time"

	jsonpatch "gopkg.in/evanphx/json-patch.v4"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
	"pgregory.net/rapid"
	gatewayv1 "sigs.k8s.io/gateway-api/apis/v1"
	"sigs.k8s.io/gateway-api/pkg/features"
	mcsv1beta1 "sigs.k8s.io/mcs-api/pkg/apis/v1beta1"

	"github.com/causeway-mesh/causeway/cluster"
	"github.com/causeway-mesh/causeway/cluster/kubernetes"
)

var (
	earlier = time.Date(2026, 1, 1, 0, 0, 0, 0, time.UTC)
	now     = time.Date(2026, 2, 2, 0, 0, 0, 0, time.UTC)
)

func cond(typ string, ok bool, reason string) metav1.Condition {
	c := metav1.Condition{Type: typ, Status: metav1.ConditionFalse, Reason: reason}
	if ok {
		c.Status = metav1.ConditionTrue
	}
	return c
}

func written(c metav1.Condition, generation int64, at time.Time) metav1.Condition {
	c.ObservedGeneration, c.LastTransitionTime = generation, metav1.NewTime(at)
	return c
}

// become applies the patch of a Plan as an API server does.
func become[S any](t interface {
	Fatal(...any)
	Helper()
}, old *S, v *Verdict) (*S, bool) {
	t.Helper()
	patch, _, err := Plan(&kubernetes.Live{ResourceVersion: "7", Status: old}, v, now)
	if err != nil {
		t.Fatal(err)
	}
	if patch == nil {
		return old, false
	}
	var doc struct {
		Metadata struct{ ResourceVersion string }
		Status   json.RawMessage
	}
	if err := json.Unmarshal(patch, &doc); err != nil {
		t.Fatal(err)
	}
	if doc.Metadata.ResourceVersion != "7" {
		t.Fatal(fmt.Sprintf("the patch is for no version: %s", patch))
	}
	raw, err := json.Marshal(old)
	if err != nil {
		t.Fatal(err)
	}
	if raw, err = jsonpatch.MergePatch(raw, doc.Status); err != nil {
		t.Fatal(err)
	}
	next := new(S)
	if err := json.Unmarshal(raw, next); err != nil {
		t.Fatal(err)
	}
	return next, true
}

func parentRef(name string) gatewayv1.ParentReference {
	return gatewayv1.ParentReference{Name: gatewayv1.ObjectName(name)}
}

func TestRoute(t *testing.T) {
	t.Parallel()
	accepted := cond("Accepted", true, "Accepted")
	theirs := gatewayv1.RouteParentStatus{ParentRef: parentRef("front"), ControllerName: "example.com/other", Conditions: []metav1.Condition{written(accepted, 1, earlier)}}
	mine := func(name string, c ...metav1.Condition) gatewayv1.RouteParentStatus {
		return gatewayv1.RouteParentStatus{ParentRef: parentRef(name), ControllerName: cluster.ControllerName, Conditions: c}
	}
	foreign := written(cond("example.com/Audited", true, "Audited"), 1, earlier)
	for name, c := range map[string]struct {
		old  []gatewayv1.RouteParentStatus
		v    *Verdict
		want []gatewayv1.RouteParentStatus // nil: nothing is written
	}{
		"first": {
			v:    &Verdict{Generation: 3, Parents: []Parent{{parentRef("front"), []metav1.Condition{accepted}}}, Conditions: []metav1.Condition{cond("Federated", true, "Federated")}},
			want: []gatewayv1.RouteParentStatus{mine("front", written(accepted, 3, now), written(cond("Federated", true, "Federated"), 3, now))},
		},
		"nothing changed": {
			old: []gatewayv1.RouteParentStatus{theirs, mine("front", written(accepted, 3, earlier), foreign)},
			v:   &Verdict{Generation: 3, Parents: []Parent{{parentRef("front"), []metav1.Condition{accepted}}}},
		},
		"only the generation": {
			old:  []gatewayv1.RouteParentStatus{theirs, mine("front", written(accepted, 3, earlier), foreign)},
			v:    &Verdict{Generation: 4, Parents: []Parent{{parentRef("front"), []metav1.Condition{accepted}}}},
			want: []gatewayv1.RouteParentStatus{theirs, mine("front", written(accepted, 4, earlier), foreign)},
		},
		"a transition": {
			old:  []gatewayv1.RouteParentStatus{mine("front", written(accepted, 3, earlier), foreign), theirs},
			v:    &Verdict{Generation: 3, Parents: []Parent{{parentRef("front"), []metav1.Condition{cond("Accepted", false, "Conflicted")}}}},
			want: []gatewayv1.RouteParentStatus{mine("front", written(cond("Accepted", false, "Conflicted"), 3, now), foreign), theirs},
		},
		"a condition of ours that is not wanted any more": {
			old:  []gatewayv1.RouteParentStatus{mine("front", written(accepted, 3, earlier), written(cond("PartiallyInvalid", true, "UnsupportedValue"), 3, earlier))},
			v:    &Verdict{Generation: 3, Parents: []Parent{{parentRef("front"), []metav1.Condition{accepted}}}},
			want: []gatewayv1.RouteParentStatus{mine("front", written(accepted, 3, earlier))},
		},
		"a parent that is not ours any more": {
			old:  []gatewayv1.RouteParentStatus{mine("front", written(accepted, 3, earlier)), theirs, mine("back", written(accepted, 3, earlier))},
			v:    &Verdict{Generation: 3, Parents: []Parent{{parentRef("back"), []metav1.Condition{accepted}}}},
			want: []gatewayv1.RouteParentStatus{theirs, mine("back", written(accepted, 3, earlier))},
		},
		"none of our business": {
			old:  []gatewayv1.RouteParentStatus{mine("front", written(accepted, 3, earlier)), theirs},
			want: []gatewayv1.RouteParentStatus{theirs},
		},
		"never our business": {old: []gatewayv1.RouteParentStatus{theirs}},
	} {
		t.Run(name, func(t *testing.T) {
			next, changed := become(t, &gatewayv1.RouteStatus{Parents: c.old}, c.v)
			if changed != (c.want != nil) {
				t.Fatalf("written: %v, to %+v", changed, next)
			}
			if changed && !sameJSON(next.Parents, c.want) {
				t.Errorf("parents are\n%s, want\n%s", dump(next.Parents), dump(c.want))
			}
		})
	}
}

func dump(v any) string {
	raw, _ := json.MarshalIndent(v, "", " ")
	return string(raw)
}

func sameJSON(a, b any) bool { return dump(a) == dump(b) }

// The API's bounds hold, and foreign entries have precedence within them.
func TestBounds(t *testing.T) {
	t.Parallel()
	var old gatewayv1.RouteStatus
	var policy gatewayv1.PolicyStatus
	v := &Verdict{Generation: 1}
	for i := range 20 {
		old.Parents = append(old.Parents, gatewayv1.RouteParentStatus{ParentRef: parentRef(fmt.Sprint("theirs-", i)), ControllerName: "example.com/other"})
		v.Parents = append(v.Parents, Parent{parentRef(fmt.Sprint("ours-", i)), []metav1.Condition{cond("Accepted", true, "Accepted")}})
	}
	for i := range 10 {
		policy.Ancestors = append(policy.Ancestors, gatewayv1.PolicyAncestorStatus{AncestorRef: parentRef(fmt.Sprint("theirs-", i)), ControllerName: "example.com/other"})
	}
	route, _ := become(t, &old, v)
	if len(route.Parents) != maxParents || !sameJSON(route.Parents[:20], old.Parents) {
		t.Errorf("%d parents: %s", len(route.Parents), dump(route.Parents))
	}
	if p, _ := become(t, &policy, v); len(p.Ancestors) != maxAncestors || !sameJSON(p.Ancestors[:10], policy.Ancestors) {
		t.Errorf("%d ancestors: %s", len(p.Ancestors), dump(p.Ancestors))
	}
}

func TestGateway(t *testing.T) {
	t.Parallel()
	n := int32(2)
	address := gatewayv1.GatewayStatusAddress{Value: "192.0.2.1"}
	pending := metav1.Condition{Type: "Accepted", Status: metav1.ConditionUnknown, Reason: "Pending", LastTransitionTime: metav1.NewTime(earlier)}
	old := &gatewayv1.GatewayStatus{
		Addresses: []gatewayv1.GatewayStatusAddress{address}, Conditions: []metav1.Condition{pending},
		Listeners: []gatewayv1.ListenerStatus{{Name: "gone"}, {Name: "http", Conditions: []metav1.Condition{written(cond("Accepted", true, "Accepted"), 1, earlier), written(cond("example.com/Audited", true, "Audited"), 1, earlier)}}},
	}
	v := &Verdict{Generation: 2, AttachedListenerSets: &n, Conditions: []metav1.Condition{cond("Accepted", true, "Accepted")},
		Listeners: []Listener{{Name: "http", AttachedRoutes: 3, Conditions: []metav1.Condition{cond("Accepted", true, "Accepted")}}}}
	next, _ := become(t, old, v)
	want := &gatewayv1.GatewayStatus{
		Addresses: []gatewayv1.GatewayStatusAddress{address}, AttachedListenerSets: &n,
		Conditions: []metav1.Condition{written(cond("Accepted", true, "Accepted"), 2, now)},
		Listeners: []gatewayv1.ListenerStatus{{Name: "http", AttachedRoutes: 3, SupportedKinds: []gatewayv1.RouteGroupKind{},
			Conditions: []metav1.Condition{written(cond("Accepted", true, "Accepted"), 2, earlier), written(cond("example.com/Audited", true, "Audited"), 1, earlier)}}},
	}
	if !sameJSON(next, want) {
		t.Errorf("the status is\n%s, want\n%s", dump(next), dump(want))
	}
	if _, again := become(t, next, v); again {
		t.Error("it is written again")
	}
	if _, changed := become(t, next, nil); changed {
		t.Error("somebody else's Gateway is written to")
	}
}

func TestMultiCluster(t *testing.T) {
	t.Parallel()
	export, _ := become(t, &mcsv1beta1.ServiceExportStatus{Conditions: []metav1.Condition{written(cond("Ready", false, "Pending"), 1, earlier)}},
		&Verdict{Generation: 1, Conditions: []metav1.Condition{cond("Valid", true, "Valid"), cond("Ready", true, "Exported")}})
	if want := []metav1.Condition{written(cond("Ready", true, "Exported"), 1, now), written(cond("Valid", true, "Valid"), 1, now)}; !sameJSON(export.Conditions, want) {
		t.Errorf("the export's conditions are %s", dump(export.Conditions))
	}
	old := &mcsv1beta1.ServiceImportStatus{Clusters: []mcsv1beta1.ClusterStatus{{Cluster: "east"}, {Cluster: "gone"}}, EndpointSliceObjects: mcsv1beta1.EndpointSliceObjectsPresent}
	imp, _ := become(t, old, &Verdict{Clusters: []cluster.ID{"east", "west"}})
	if want := (&mcsv1beta1.ServiceImportStatus{Clusters: []mcsv1beta1.ClusterStatus{{Cluster: "east"}, {Cluster: "west"}}, EndpointSliceObjects: mcsv1beta1.EndpointSliceObjectsPresent}); !sameJSON(imp, want) {
		t.Errorf("the import's status is %s", dump(imp))
	}
}

// A class says what is supported, by names that Gateway API knows, in their order: all
// of gateways there is where the CRDs have the fields, and nothing of meshes.
func TestFeatures(t *testing.T) {
	t.Parallel()
	for _, experimental := range []bool{false, true} {
		next, _ := become(t, &gatewayv1.GatewayClassStatus{}, &Verdict{Generation: 1, Conditions: []metav1.Condition{cond("Accepted", true, "Accepted")}, Experimental: experimental})
		list := next.SupportedFeatures
		if len(list) > 64 {
			t.Errorf("%d features", len(list))
		}
		if !slices.IsSortedFunc(list, func(a, b gatewayv1.SupportedFeature) int { return strings.Compare(string(a.Name), string(b.Name)) }) {
			t.Error("they are not sorted")
		}
		want := features.SetsToNamesSet(features.AllFeatures)
		for f := range features.SetsToNamesSet(features.MeshCoreFeatures, features.MeshExtendedFeatures) {
			want.Delete(f)
		}
		if !experimental {
			want.Delete(features.SupportHTTPRouteRetry, features.SupportHTTPRouteRetryBackendTimeout, features.SupportHTTPRouteRetryConnectionError)
		}
		for _, f := range list {
			if !want.Has(features.FeatureName(f.Name)) {
				t.Errorf("experimental %v: %s is not a feature of Gateways there", experimental, f.Name)
			}
			want.Delete(features.FeatureName(f.Name))
		}
		for f := range want {
			t.Errorf("experimental %v: %s is missing", experimental, f)
		}
	}
}

// Whatever is there and whatever is wanted: a second Plan has nothing to do, what
// is foreign stays as it was and where it was among its like, and ours is there.
func TestPlanProperty(t *testing.T) {
	t.Parallel()
	condition := rapid.Custom(func(t *rapid.T) metav1.Condition {
		return cond(rapid.SampledFrom([]string{"Accepted", "ResolvedRefs", "PartiallyInvalid", "example.com/A", "example.com/B"}).Draw(t, "type"), rapid.Bool().Draw(t, "status"), "Reason")
	})
	conditions := rapid.SliceOfNDistinct(condition, 0, 4, func(c metav1.Condition) string { return c.Type })
	rapid.Check(t, func(t *rapid.T) {
		old := &gatewayv1.RouteStatus{}
		for i := range rapid.IntRange(0, 6).Draw(t, "old") {
			p := gatewayv1.RouteParentStatus{ParentRef: parentRef(fmt.Sprint("p", i)), ControllerName: rapid.SampledFrom([]gatewayv1.GatewayController{cluster.ControllerName, "example.com/other"}).Draw(t, "controller")}
			for _, c := range conditions.Draw(t, "conditions") {
				p.Conditions = append(p.Conditions, written(c, rapid.Int64Range(1, 2).Draw(t, "generation"), earlier))
			}
			old.Parents = append(old.Parents, p)
		}
		var v *Verdict
		if rapid.Bool().Draw(t, "ours") {
			v = &Verdict{Generation: 2}
			for i := range 8 {
				if rapid.Bool().Draw(t, "parent") {
					v.Parents = append(v.Parents, Parent{parentRef(fmt.Sprint("p", i)), []metav1.Condition{cond("Accepted", rapid.Bool().Draw(t, "accepted"), "Reason")}})
				}
			}
		}
		next, _ := become(t, old, v)
		if _, again := become(t, next, v); again {
			t.Fatal("a second plan has something to do")
		}
		foreign := func(s *gatewayv1.RouteStatus) (out []gatewayv1.RouteParentStatus) {
			for _, p := range s.Parents {
				if p.ControllerName != cluster.ControllerName {
					out = append(out, p)
				}
			}
			return out
		}
		if !sameJSON(foreign(old), foreign(next)) {
			t.Fatalf("foreign parents were\n%s, now\n%s", dump(foreign(old)), dump(foreign(next)))
		}
		n := 0
		for _, p := range next.Parents {
			if p.ControllerName != cluster.ControllerName {
				continue
			}
			n++
			i := slices.IndexFunc(v.Parents, func(w Parent) bool { return w.Ref.Name == p.ParentRef.Name })
			if i < 0 {
				t.Fatalf("nobody wanted %s", dump(p))
			}
			for _, o := range old.Parents {
				for _, c := range o.Conditions {
					if reflect.DeepEqual(o.ParentRef, p.ParentRef) && o.ControllerName == p.ControllerName && strings.HasPrefix(c.Type, "example.com/") && !slices.ContainsFunc(p.Conditions, func(d metav1.Condition) bool { return sameJSON(c, d) }) {
						t.Fatalf("foreign condition %s is gone from %s", dump(c), dump(p))
					}
				}
			}
		}
		if v != nil && n != len(v.Parents) {
			t.Fatalf("%d of %d parents are there", n, len(v.Parents))
		}
	})
}
