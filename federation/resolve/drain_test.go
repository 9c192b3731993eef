package resolve

import (
	"net/netip"
	"slices"
	"testing"

	"github.com/google/go-cmp/cmp"

	"github.com/causeway-mesh/causeway/cluster"
	"github.com/causeway-mesh/causeway/federation"
)

// TestDrainStep: a step of a drain changes the endpoints of the backends that the
// cluster serves for others, and nothing else; its own cluster works out nothing.
func TestDrainStep(t *testing.T) {
	members := map[cluster.ID]federation.Cluster{}
	var steps []step
	for _, id := range someClusters {
		c := federation.Cluster{ID: id, Meta: cluster.Meta{Network: "n"}, Health: federation.Health{Liveness: federation.Alive}}
		members[id] = c
		steps = append(steps, step{member: &c})
	}
	steps = append(steps, richWorld()...) // east and west export app/a and app/b
	for i, of := range []struct {
		id   cluster.ID
		name string
	}{{"east", "a"}, {"west", "a"}, {"east", "b"}} {
		ref := cluster.Ref{Kind: cluster.KindEndpointSlice, Namespace: "app", Name: of.name}
		steps = append(steps, step{change: &federation.Change{Cluster: of.id, Ref: ref, Object: &cluster.Object{Ref: ref, Cluster: of.id, Value: &cluster.EndpointSlice{
			Service: of.name, Ports: []cluster.EndpointPort{{Port: 8080, Protocol: "TCP"}},
			Endpoints: []cluster.Endpoint{{Addr: netip.AddrFrom4([4]byte{10, 0, 0, byte(i)}), Pod: "p", Ready: true, Serving: true}},
		}}}})
	}
	changes := map[cluster.ID][]int{
		"north": {50, 55, 100, 0},
		"east":  {100, 0}, // west is behind east itself, which takes everything
	}
	for _, local := range someClusters {
		b := federation.NewBuilder()
		snap, _ := applySteps(t, b, steps)
		res := Resolve(local, snap)
		for _, percent := range []int{50, 55, 100, 0} {
			c := members["west"]
			c.Drained = percent
			snap, changed := applySteps(t, b, []step{{member: &c}})
			next, delta := res.Update(snap, changed)
			if diff := cmp.Diff(dump(Resolve(local, snap)), dump(next)); diff != "" {
				t.Fatalf("%s, west at %d%%: updated and rebuilt differ (-rebuilt +updated):\n%s", local, percent, diff)
			}
			var want []string
			if slices.Contains(changes[local], percent) {
				want = []string{BackendKey{Kind: BackendImport, Namespace: "app", Name: "a", Port: 80}.String()}
			}
			if !slices.Equal(delta.BackendEndpoints, want) || len(delta.BackendConfigs)+len(delta.Frontends)+len(delta.Gateways)+len(delta.Imports)+len(delta.Reports)+len(delta.Remotes) > 0 {
				t.Errorf("%s, west at %d%%: the Delta is %+v, want %q", local, percent, delta, want)
			}
			res = next
		}
	}
}
