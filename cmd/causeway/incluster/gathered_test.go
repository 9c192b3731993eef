package incluster

import (
	"context"
	"fmt"
	"strings"
	"testing"
	"testing/synctest"

	"github.com/google/go-cmp/cmp"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
	gatewayv1 "sigs.k8s.io/gateway-api/apis/v1"

	"github.com/causeway-mesh/causeway/cluster"
	"github.com/causeway-mesh/causeway/cluster/provision"
	"github.com/causeway-mesh/causeway/cluster/status"
	"github.com/causeway-mesh/causeway/federation"
	"github.com/causeway-mesh/causeway/federation/resolve"
)

func said(kind string, ok bool, reason, message string) metav1.Condition {
	c := condition(kind, ok, reason)
	c.Message = message
	return c
}

func at(values ...string) (out []gatewayv1.GatewayStatusAddress) {
	for _, v := range values {
		out = append(out, gatewayv1.GatewayStatusAddress{Type: new(gatewayv1.IPAddressType), Value: v})
	}
	return out
}

// A Gateway's status, where it was written, is what all clusters say of it.
func TestGathered(t *testing.T) {
	fine := []metav1.Condition{said("Accepted", true, "Accepted", ""), said("Programmed", true, "Programmed", ""), said("ResolvedRefs", true, "ResolvedRefs", "")}
	listener := func(name string) status.Listener {
		return status.Listener{Name: name, AttachedRoutes: 3, Conditions: []metav1.Condition{said("Accepted", true, "Accepted", ""), said("Conflicted", false, "NoConflicts", ""),
			said("Programmed", true, "Programmed", ""), said("ResolvedRefs", true, "ResolvedRefs", "")}}
	}
	home := &status.Verdict{Generation: 2, Conditions: fine, Addresses: at("192.0.2.1", "192.0.2.11"), Listeners: []status.Listener{listener("http"), listener("https")}}
	idle := &status.Verdict{Generation: 2, Conditions: []metav1.Condition{said("Accepted", true, "Accepted", ""), said("Programmed", false, "NotSelected", "left out"), said("ResolvedRefs", true, "ResolvedRefs", "")}}
	run := func(edit func(*cluster.GatewayRun), addresses ...string) *cluster.GatewayRun {
		r := &cluster.GatewayRun{Home: "c1", Generation: 2, Conditions: fine, Addresses: at(addresses...)}
		if edit != nil {
			edit(r)
		}
		return r
	}
	noCertificate := func(r *cluster.GatewayRun) {
		r.Conditions = []metav1.Condition{said("Accepted", false, "ListenersNotValid", "no listener can be used"), said("Programmed", false, "Invalid", ""), said("ResolvedRefs", false, "ListenersNotResolved", "some listeners")}
		r.Listeners = []cluster.ListenerRun{{Name: "https", Conditions: []metav1.Condition{said("Programmed", false, "Invalid", ""), said("ResolvedRefs", false, "InvalidCertificateRef", "there is no Secret")}}}
	}
	old := func(r *cluster.GatewayRun) { r.Generation = 1 }
	one := func(id cluster.ID, r *cluster.GatewayRun) resolve.ClusterRun {
		return resolve.ClusterRun{Cluster: id, Liveness: federation.Alive, Run: r}
	}
	dead := func(id cluster.ID, r *cluster.GatewayRun) resolve.ClusterRun {
		return resolve.ClusterRun{Cluster: id, Liveness: federation.Dead, Run: r}
	}
	const good = "  Accepted=True Accepted\n  Conflicted=False NoConflicts\n  Programmed=True Programmed\n  ResolvedRefs=True ResolvedRefs\n"
	for _, c := range []struct {
		name string
		v    *status.Verdict
		runs []resolve.ClusterRun
		want string
	}{
		{"all serve", home, []resolve.ClusterRun{one("c1", nil), one("c2", run(nil, "192.0.2.2")), one("c3", run(nil, "192.0.2.3", "192.0.2.1"))},
			`at 192.0.2.1 192.0.2.2 192.0.2.3 192.0.2.11
Accepted=True Accepted
Federated=True Federated 3 of 3 clusters: c1 at 192.0.2.1, 192.0.2.11; c2 at 192.0.2.2; c3 at 192.0.2.3, 192.0.2.1
Programmed=True Programmed
ResolvedRefs=True ResolvedRefs
http 3
` + good + "https 3\n" + good},
		{"one lacks a certificate, another says nothing yet, a third is late", home,
			[]resolve.ClusterRun{one("c1", nil), one("c2", run(noCertificate)), one("c3", nil), one("c4", run(old, "192.0.2.4"))},
			`at 192.0.2.1 192.0.2.4 192.0.2.11
Accepted=True ListenersNotValid c2: no listener can be used
Federated=False Pending 1 of 4 clusters: c2 is not programmed (Invalid); c3 has not answered for this generation yet; c4 has not answered for this generation yet; c1 at 192.0.2.1, 192.0.2.11
Programmed=False Invalid programmed in 1 of 4 clusters; c2: Invalid; c3, c4: has not answered for this generation yet
ResolvedRefs=False ListenersNotResolved c2: some listeners
http 3
  Accepted=True Accepted
  Conflicted=False NoConflicts
  Programmed=False Pending programmed in 2 of 4 clusters; c3, c4: has not answered for this generation yet
  ResolvedRefs=True ResolvedRefs
https 3
  Accepted=True Accepted
  Conflicted=False NoConflicts
  Programmed=False Invalid programmed in 1 of 4 clusters; c2: Invalid; c3, c4: has not answered for this generation yet
  ResolvedRefs=False InvalidCertificateRef c2: there is no Secret
`},
		{"a dead one is no reason to wait, and none to be sent to", home, []resolve.ClusterRun{one("c1", nil), dead("c2", run(nil, "192.0.2.2"))},
			`at 192.0.2.1 192.0.2.11
Accepted=True Accepted
Federated=False Unreachable 1 of 2 clusters: c2 can't be reached; c1 at 192.0.2.1, 192.0.2.11
Programmed=True Programmed
ResolvedRefs=True ResolvedRefs
http 3
` + good + "https 3\n" + good},
		{"the home is not selected", idle, []resolve.ClusterRun{one("c2", run(nil, "192.0.2.2"))},
			`at 192.0.2.2
Accepted=True Accepted
Federated=True Federated 1 of 1 clusters: c2 at 192.0.2.2
Programmed=True Programmed
ResolvedRefs=True ResolvedRefs
`},
		{"nobody is", idle, nil, "at\nAccepted=True Accepted\nProgrammed=False NotSelected left out\nResolvedRefs=True ResolvedRefs\n"},
		{"nobody else accepts it either", &status.Verdict{Generation: 2, Conditions: []metav1.Condition{said("Accepted", false, "InvalidParameters", "no ConfigMap")}},
			[]resolve.ClusterRun{one("c1", nil), one("c2", run(noCertificate))},
			`at
Accepted=False InvalidParameters c1: no ConfigMap; c2: no listener can be used
Federated=True Federated 0 of 2 clusters: c1 is not programmed; c2 is not programmed (Invalid)
`},
	} {
		before := c.v.Conditions[0]
		got := gathered(c.v, &resolve.GatewayRuns{Home: "c1", Generation: 2, Clusters: c.runs})
		if diff := cmp.Diff(c.want, written(got)); diff != "" {
			t.Errorf("%s (-want +got):\n%s", c.name, diff)
		}
		if before != c.v.Conditions[0] {
			t.Errorf("%s: the verdict was changed", c.name)
		}
	}
}

func written(v *status.Verdict) string {
	var b strings.Builder
	line := func(format string, a ...any) { b.WriteString(strings.TrimRight(fmt.Sprintf(format, a...), " ") + "\n") }
	values := []string{"at"}
	for _, a := range v.Addresses {
		values = append(values, a.Value)
	}
	line("%s", strings.Join(values, " "))
	for _, c := range v.Conditions {
		line("%s=%s %s %s", c.Type, c.Status, c.Reason, c.Message)
	}
	for _, l := range v.Listeners {
		line("%s %d", l.Name, l.AttachedRoutes)
		for _, c := range l.Conditions {
			line("  %s=%s %s %s", c.Type, c.Status, c.Reason, c.Message)
		}
	}
	return b.String()
}

// Hundreds of clusters with much to say fit into what an API server takes.
func TestGatheredIsBounded(t *testing.T) {
	long := strings.Repeat("ü", 400)
	var clusters []resolve.ClusterRun
	for i := range 500 {
		r := &cluster.GatewayRun{Home: "home", Generation: 1, Conditions: []metav1.Condition{said("Programmed", i%2 == 0, "Reason", fmt.Sprint(i, long))}}
		for j := range 16 {
			r.Addresses = append(r.Addresses, at(fmt.Sprintf("2001:db8::%d:%d", i, j))...)
		}
		clusters = append(clusters, resolve.ClusterRun{Cluster: cluster.ID(fmt.Sprintf("cluster-%03d", i)), Liveness: federation.Alive, Run: r})
	}
	got := gathered(&status.Verdict{Generation: 1, Conditions: []metav1.Condition{said("Programmed", true, "Programmed", "")}}, &resolve.GatewayRuns{Home: "home", Clusters: clusters})
	if len(got.Addresses) != 16 {
		t.Errorf("%d addresses", len(got.Addresses))
	}
	for _, c := range got.Conditions {
		if len(c.Message) > 32768 || !strings.Contains(c.Message, "more") {
			t.Errorf("%s has a message of %d bytes: %.100s", c.Type, len(c.Message), c.Message)
		}
	}
	if c := runOf(&status.Verdict{Conditions: []metav1.Condition{said("Programmed", false, "Pending", "two\nlines, and "+long)}}, "home").Conditions[0]; len(c.Message) > cluster.MaxRunMessage || strings.ContainsAny(c.Message, "\n\ufffd") {
		t.Errorf("a message of %d bytes: %q", len(c.Message), c.Message)
	}
}

// told is a publisher that remembers.
type told struct {
	runs   map[string]*cluster.GatewayRun
	known  int
	forgot int
}

func (p *told) SetRun(ns, name string, run *cluster.GatewayRun) { p.runs[ns+"/"+name] = run }
func (p *told) RunsKnown()                                      { p.known++ }
func (p *told) ForgetRuns()                                     { p.forgot++ }

// Each Gateway that is for several clusters is told of once something can be said; and once
// that holds of all, what else the store has may go.
func TestRunsAreTold(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		gateway := func(name string) *cluster.Object {
			return &cluster.Object{Cluster: "c1", Ref: cluster.Ref{Kind: cluster.KindGateway, Namespace: "shop", Name: name}, Value: &gatewayv1.Gateway{
				ObjectMeta: metav1.ObjectMeta{Namespace: "shop", Name: name, Generation: 4}, Spec: gatewayv1.GatewaySpec{GatewayClassName: cluster.ClassClusterset}}}
		}
		e := federation.NewBuilder().Edit()
		for _, id := range []cluster.ID{"c1", "c2"} {
			e.SetCluster(federation.Cluster{ID: id})
		}
		for _, n := range []string{"fast", "slow"} {
			if err := e.Apply(federation.Change{Cluster: "c1", Ref: gateway(n).Ref, Object: gateway(n)}); err != nil {
				t.Fatal(err)
			}
		}
		snap, _ := e.Commit()
		res := resolve.Resolve("c2", snap)
		to, ready := &told{runs: map[string]*cluster.GatewayRun{}}, false
		r := &runs{local: "c2", to: to, result: func() *resolve.Result { return res }, here: func(_ *resolve.Result, home cluster.ID, n provision.Name) (*status.Verdict, bool) {
			return &status.Verdict{Generation: 4}, home == "c1" && (ready || n.Name == "fast")
		}}
		ctx, cancel := context.WithCancel(t.Context())
		done := make(chan error)
		go func() { done <- r.Run(ctx) }()
		synctest.Wait()
		if to.runs["shop/fast"] == nil || to.runs["shop/slow"] != nil || to.known != 0 {
			t.Errorf("told of %v, known %d", to.runs, to.known)
		}
		ready = true
		r.touch(provision.Name{Namespace: "shop", Name: "slow"}, provision.Name{Namespace: "shop", Name: "none"})
		synctest.Wait()
		if run := to.runs["shop/slow"]; run == nil || run.Home != "c1" || run.Generation != 4 || to.known != 1 || to.runs["shop/none"] != nil {
			t.Errorf("told of %v, known %d", to.runs, to.known)
		}
		cancel()
		if err := <-done; err != nil || to.forgot != 1 {
			t.Errorf("%v, forgot %d", err, to.forgot)
		}
	})
}
