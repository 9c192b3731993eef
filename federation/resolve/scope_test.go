package resolve

import (
	"testing"

	gatewayv1 "sigs.k8s.io/gateway-api/apis/v1"

	"github.com/causeway-mesh/causeway/cluster"
	"github.com/causeway-mesh/causeway/federation"
	"github.com/causeway-mesh/causeway/federation/record/recordtest"
)

// routesOfEveryKind makes a route of each kind with this parent; n makes them differ.
func routesOfEveryKind(id cluster.ID, parent gatewayv1.ParentReference, n int) []*cluster.Object {
	http := recordtest.Route(id, "app", "r", 1, "x", "b", "/"+string(rune('a'+n)))
	http.Value.(*gatewayv1.HTTPRoute).Spec.ParentRefs = []gatewayv1.ParentReference{parent}
	return []*cluster.Object{
		http,
		recordtest.GRPCRoute(id, "app", "r", 1, parent, "a.B"+string(rune('a'+n))),
		recordtest.TLSRoute(id, "app", "r", 1, parent, string(rune('a'+n))+".example"),
		recordtest.TCPRoute(id, "app", "r", 1, parent, int32(80+n)),
		recordtest.UDPRoute(id, "app", "r", 1, parent, int32(80+n)),
	}
}

// Whether a route crosses follows from its parent alone, whatever its kind; a
// ListenerSet goes where its Gateway goes, and its routes with it.
func TestCrossesByParent(t *testing.T) {
	b := federation.NewBuilder()
	e := b.Edit()
	put := func(o *cluster.Object) *cluster.Object {
		if err := e.Apply(federation.Change{Cluster: o.Cluster, Ref: o.Ref, Object: o}); err != nil {
			t.Fatal(err)
		}
		return o
	}
	gateway := func(name, class string) {
		put(recordtest.Gateway("east", "app", name, 1, 80)).Value.(*gatewayv1.Gateway).Spec.GatewayClassName = gatewayv1.ObjectName(class)
	}
	gateway("everywhere", cluster.ClassClusterset)
	gateway("here", cluster.ClassCauseway)
	wide := put(recordtest.ListenerSet("east", "app", "wide", 1, "everywhere", 443))
	narrow := put(recordtest.ListenerSet("east", "app", "narrow", 1, "here", 443))
	put(recordtest.ListenerSet("east", "app", "orphan", 1, "nowhere", 443))
	home := put(recordtest.ListenerSet("east", "app", "home", 1, "everywhere", 443))
	home.Value.(*gatewayv1.ListenerSet).Annotations = map[string]string{cluster.AnnotationScope: cluster.ScopeCluster}
	// A ListenerSet has a Gateway for a parent, whatever it claims.
	loop := put(recordtest.ListenerSet("east", "app", "loop", 1, "loop", 443))
	itself := gatewayv1.Kind(cluster.KindListenerSet)
	loop.Value.(*gatewayv1.ListenerSet).Spec.ParentRef.Kind = &itself
	put(recordtest.Service("east", "app", "exported", 1, 80))
	put(recordtest.Export("east", "app", "exported", 1, "1"))
	put(recordtest.Service("east", "app", "hidden", 1, 80))
	s, _ := e.Commit()

	for o, want := range map[*cluster.Object]bool{wide: true, narrow: false, home: false, loop: false} {
		if got := Crosses(s, o); got != want {
			t.Errorf("%s crosses: %v", o.Ref, got)
		}
	}
	for _, c := range []struct {
		kind cluster.Kind
		name string
		want bool
	}{
		{cluster.KindListenerSet, "wide", true}, {cluster.KindListenerSet, "narrow", false}, {cluster.KindListenerSet, "orphan", false},
		{cluster.KindListenerSet, "home", false}, {cluster.KindListenerSet, "missing", false},
		{cluster.KindGateway, "everywhere", true}, {cluster.KindGateway, "here", false},
		{cluster.KindService, "exported", true}, {cluster.KindService, "hidden", false}, {cluster.KindServiceImport, "any", true},
	} {
		for _, o := range routesOfEveryKind("east", recordtest.Parent(c.kind, c.name), 0) {
			if got := Crosses(s, o); got != c.want {
				t.Errorf("%s with the parent %s/%s crosses: %v", o.Kind, c.kind, c.name, got)
			}
		}
	}
}

// Copies are compared by their whole spec, whatever the kind.
func TestSameRoute(t *testing.T) {
	parent := recordtest.Parent(cluster.KindServiceImport, "a")
	east, west, other := routesOfEveryKind("east", parent, 0), routesOfEveryKind("west", parent, 0), routesOfEveryKind("west", parent, 1)
	for i := range east {
		if !sameRoute(east[i], west[i]) {
			t.Errorf("equal %ss are told to differ", east[i].Kind)
		}
		if sameRoute(east[i], other[i]) {
			t.Errorf("%ss that differ are told to be equal", east[i].Kind)
		}
		if j := (i + 1) % len(west); sameRoute(east[i], west[j]) {
			t.Errorf("a %s is told to be the same as a %s", east[i].Kind, west[j].Kind)
		}
	}
}
