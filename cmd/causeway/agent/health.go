package agent

import (
	"context"
	"maps"
	"slices"

	"github.com/spiffe/go-spiffe/v2/spiffeid"

	"github.com/causeway-mesh/causeway/cluster"
	"github.com/causeway-mesh/causeway/cluster/identity"
	"github.com/causeway-mesh/causeway/federation"
	"github.com/causeway-mesh/causeway/federation/gossip"
	"github.com/causeway-mesh/causeway/xds/translate"
)

// liveness maps what gossip judges to what a Snapshot holds. A cluster of which
// nobody knows anything is kept, at lower priority.
var liveness = map[gossip.Health]federation.Liveness{
	gossip.Alive:   federation.Alive,
	gossip.Suspect: federation.Suspect,
	gossip.Dead:    federation.Dead,
	gossip.Unknown: federation.Suspect,
}

// JudgeLoop keeps the Loop's Health as members, leases and probes have it, until
// ctx ends. A hub runs it as an agent does, with an empty local cluster.
func JudgeLoop(ctx context.Context, local cluster.ID, loop *federation.Loop, members *gossip.Gossip, judged func(map[cluster.ID]gossip.Verdict)) error {
	for {
		leases, leasesChanged := loop.Leases()
		list, membersChanged := members.Watch()
		in := gossip.Inputs{Members: list}
		for _, id := range slices.Sorted(maps.Keys(leases.Held)) {
			c := gossip.ClusterInput{ID: id, LastLease: gossip.LeaseGone}
			if leases.Held[id] {
				c.LastLease = gossip.LeaseHeld
			}
			// Without the store the last that was known stands.
			if c.Lease = gossip.LeaseUnknown; leases.Connected {
				c.Lease = c.LastLease
			}
			in.Clusters = append(in.Clusters, c)
		}
		verdicts := gossip.Judge(in)
		health := make(map[cluster.ID]federation.Health, len(verdicts))
		for id, v := range verdicts {
			health[id] = federation.Health{Liveness: liveness[v.Health], Reason: v.Reason}
		}
		if local != "" {
			// A cluster never doubts itself: what it can't reach, others can't be
			// asked about.
			health[local] = federation.Health{Liveness: federation.Alive, Reason: "this cluster"}
		}
		loop.SetHealth(health)
		judged(verdicts)
		select {
		case <-ctx.Done():
			return nil
		case <-leasesChanged:
		case <-membersChanged:
		}
	}
}

// targets lists the crossing gateways to probe: those of clusters under suspicion.
func targets(snap *federation.Snapshot, local cluster.ID, verdicts map[cluster.ID]gossip.Verdict, svid identity.SVIDSource, bundles identity.BundleSource) []gossip.Target {
	if snap == nil {
		return nil
	}
	var out []gossip.Target
	for _, id := range gossip.UnderSuspicion(verdicts) {
		c, ok := snap.Cluster(id)
		if !ok || id == local || len(c.Meta.Crossing) == 0 {
			continue
		}
		td, err := spiffeid.TrustDomainFromString(c.Meta.TrustDomain)
		if err != nil {
			continue
		}
		tc := identity.ClientConfig(svid, bundles, crossingOf(td))
		tc.ServerName = translate.ProbeServerName
		out = append(out, gossip.Target{Cluster: id, Addresses: c.Meta.Crossing, TLS: tc})
	}
	return out
}
