package incluster

import (
	"context"
	"fmt"
	"strings"
	"sync/atomic"
	"testing"
	"testing/synctest"
	"time"

	iradix "github.com/hashicorp/go-immutable-radix/v2"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
	gatewayv1 "sigs.k8s.io/gateway-api/apis/v1"

	"github.com/causeway-mesh/causeway/cluster"
	"github.com/causeway-mesh/causeway/cluster/provision"
	"github.com/causeway-mesh/causeway/cluster/status"
	"github.com/causeway-mesh/causeway/federation"
	"github.com/causeway-mesh/causeway/federation/resolve"
)

func condition(kind string, ok bool, reason string) metav1.Condition {
	c := metav1.Condition{Type: kind, Status: metav1.ConditionFalse, Reason: reason}
	if ok {
		c.Status = metav1.ConditionTrue
	}
	return c
}

// What the resolver finds fit to be programmed is so once it is provided; what it doesn't
// stays as it says, and so does what else it says.
func TestProvided(t *testing.T) {
	ip := gatewayv1.IPAddressType
	v := &status.Verdict{
		Generation: 3, Conditions: []metav1.Condition{condition("Accepted", true, "Accepted"), condition("Programmed", true, "Programmed")},
		Listeners: []status.Listener{
			{Name: "good", AttachedRoutes: 2, Conditions: []metav1.Condition{condition("Accepted", true, "Accepted"), condition("Programmed", true, "Programmed")}},
			{Name: "bad", Conditions: []metav1.Condition{condition("Programmed", false, "Invalid")}},
		},
	}
	show := func(v *status.Verdict) string {
		out := fmt.Sprint(len(v.Addresses))
		for _, c := range v.Conditions {
			out += " " + c.Type + "=" + string(c.Status) + "/" + c.Reason
		}
		for _, l := range v.Listeners {
			out += fmt.Sprintf(" %s:%d", l.Name, l.AttachedRoutes)
			for _, c := range l.Conditions {
				out += "," + c.Type + "=" + string(c.Status) + "/" + c.Reason
			}
		}
		return out
	}
	before := show(v)
	there := provision.GatewayStanding{Programmed: condition("Programmed", true, "Programmed"), Addresses: []gatewayv1.GatewayStatusAddress{{Type: &ip, Value: "192.0.2.1"}}}
	missing := provision.GatewayStanding{Programmed: condition("Programmed", false, "AddressNotAssigned")}
	const good = " good:2,Accepted=True/Accepted,Programmed=True/Programmed bad:0,Programmed=False/Invalid"
	const wait = " good:2,Accepted=True/Accepted,Programmed=False/Pending bad:0,Programmed=False/Invalid"
	for _, c := range []struct {
		kind cluster.Kind
		st   provision.GatewayStanding
		want string
	}{
		{cluster.KindGateway, there, "1 Accepted=True/Accepted Programmed=True/Programmed" + good},
		{cluster.KindGateway, missing, "0 Accepted=True/Accepted Programmed=False/AddressNotAssigned" + wait},
		{cluster.KindListenerSet, there, "0 Accepted=True/Accepted Programmed=True/Programmed" + good},
		{cluster.KindListenerSet, missing, "0 Accepted=True/Accepted Programmed=False/Pending" + wait},
	} {
		if got := show(provided(c.kind, v, c.st)); got != c.want {
			t.Errorf("%s that stands %s:\n%s, want\n%s", c.kind, c.st.Programmed.Reason, got, c.want)
		}
	}
	for _, c := range []struct {
		names []string
		want  string
	}{
		{nil, "0 Accepted=True/Accepted Programmed=True/Programmed" + good},
		{[]string{"good"}, "0 Accepted=True/Accepted Programmed=False/Invalid good:2,Accepted=False/PortUnavailable,Programmed=False/Invalid bad:0,Programmed=False/Invalid"},
		{[]string{"bad"}, "0 Accepted=True/Accepted Programmed=True/Programmed" + good},
	} {
		if got := show(withoutPorts(cluster.KindGateway, v, c.names)); got != c.want {
			t.Errorf("without the ports of %v:\n%s, want\n%s", c.names, got, c.want)
		}
	}
	if after := show(v); after != before {
		t.Errorf("the verdict was changed: %s", after)
	}
	if got := provided(cluster.KindGateway, v, missing); got.Addresses == nil {
		t.Error("addresses that are gone would stay in the status")
	}
}

// The status of a new generation waits for Envoys, not for ever, and for one time.
func TestTaken(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		edge := provision.Name{Namespace: "shop", Name: "edge"}
		var late, judged atomic.Int32
		late.Store(1)
		k := &taken{behind: func(provision.Name) int { return int(late.Load()) }, judged: func(r []cluster.Ref) { judged.Add(int32(len(r))) }}
		expect := func(what string, generation int64, behind int, known bool) {
			t.Helper()
			if b, ok := k.look(edge, generation); b != behind || ok != known {
				t.Errorf("%s: %d behind, known %v; want %d, %v", what, b, ok, behind, known)
			}
		}
		expect("a new generation", 1, 1, false)
		time.Sleep(patience)
		synctest.Wait()
		if judged.Load() != 1 {
			t.Errorf("judged again %d times", judged.Load())
		}
		expect("patience has ended", 1, 1, true)
		late.Store(0)
		expect("it is taken", 1, 0, true)
		late.Store(1)
		expect("a route has changed", 1, 0, true)
		expect("another generation", 2, 1, false)
		var bell cluster.Bell
		go k.follow(t.Context(), bell.Next)
		synctest.Wait()
		if judged.Load() != 1 {
			t.Errorf("judged again %d times, though nothing was taken", judged.Load())
		}
		late.Store(0)
		bell.Ring()
		synctest.Wait()
		if judged.Load() != 2 {
			t.Errorf("judged again %d times once it was taken", judged.Load())
		}
		expect("the other generation is taken", 2, 0, true)
	})
}

// An export that other clusters can't have, because the store refuses its cluster, says so.
func TestShutOut(t *testing.T) {
	ready := metav1.Condition{Type: "Ready", Status: metav1.ConditionTrue, Reason: "Exported", ObservedGeneration: 2}
	valid := metav1.Condition{Type: "Valid", Status: metav1.ConditionTrue, Reason: "Valid", ObservedGeneration: 2}
	v := &status.Verdict{Generation: 2, Conditions: []metav1.Condition{ready, valid}}
	got := shutOut(v)
	if c := got.Conditions[0]; c.Status != metav1.ConditionFalse || c.Reason != "Pending" || !strings.Contains(c.Message, "causeway cluster add") || c.ObservedGeneration != 2 || got.Conditions[1] != valid || got.Generation != 2 {
		t.Errorf("got %+v", got)
	}
	if v.Conditions[0] != ready {
		t.Error("the resolver's own verdict was changed")
	}
	held := metav1.Condition{Type: "Ready", Status: metav1.ConditionFalse, Reason: "Failed", Message: "why"}
	if got := shutOut(&status.Verdict{Conditions: []metav1.Condition{held}}); got.Conditions[0] != held {
		t.Errorf("another reason is not said any more: %+v", got)
	}
}

// Whichever comes first, a Result or that the store refuses this cluster: in the end its
// exports have been judged with both, and nobody else's objects.
func TestAdmission(t *testing.T) {
	report := func(kind cluster.Kind, name string, id cluster.ID) *resolve.ObjectReport {
		return &resolve.ObjectReport{Ref: cluster.Ref{Kind: kind, Namespace: "shop", Name: name}, Cluster: id}
	}
	own, other := report(cluster.KindServiceExport, "own", "east"), report(cluster.KindServiceExport, "other", "west")
	reports := iradix.New[*resolve.ObjectReport]()
	for _, r := range []*resolve.ObjectReport{own, other, report(cluster.KindHTTPRoute, "own", "east")} {
		reports, _, _ = reports.Insert([]byte(r.Key()), r)
	}
	res := &resolve.Result{Local: "east", Reports: reports, Gateways: iradix.New[*resolve.Gateway]()}
	over, end := context.WithCancel(t.Context())
	end()
	denied := func() (federation.Leases, <-chan struct{}) { return federation.Leases{Denied: true}, nil }
	result := func(f *feed) { f.follow(res, resolve.Delta{}) }
	admission := func(f *feed) { f.admission(over, denied) }
	for name, order := range map[string][2]func(*feed){"the Result first": {result, admission}, "the store first": {admission, result}} {
		with := map[cluster.Ref]bool{} // what judging saw last of denied
		f := &feed{local: "east", runs: func(...provision.Name) {}, need: func([]cluster.Ref) {}}
		f.judged = func(refs []cluster.Ref) {
			for _, r := range refs {
				with[r] = f.denied.Load()
			}
		}
		for _, do := range order {
			do(f)
		}
		if _, foreign := with[other.Ref]; !with[own.Ref] || len(with) != 2 || foreign {
			t.Errorf("%s: judged %v", name, with)
		}
	}
}
