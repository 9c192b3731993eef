package gossip

import (
	"cmp"
	"fmt"
	"slices"

	"github.com/causeway-mesh/causeway/cluster"
)

// Health is what a Verdict comes to.
type Health string

// The healths of clusters (DESIGN section 3).
const (
	Alive   Health = "alive"
	Suspect Health = "suspect" // kept, at lower priority
	Dead    Health = "dead"    // withdrawn; its State is kept
	Unknown Health = "unknown" // neither the store nor gossip has ever told of it
)

// Lease is the state of a cluster's lease in the store.
type Lease string

// The states of leases.
const (
	LeaseHeld    Lease = "held"
	LeaseGone    Lease = "gone"
	LeaseUnknown Lease = "unknown" // the store can't be asked
)

// ClusterInput is what the store says of a cluster's liveness.
type ClusterInput struct {
	ID cluster.ID
	// Lease is its state now, LeaseUnknown while the store can't be asked; empty
	// means LeaseUnknown.
	Lease Lease
	// LastLease is the last state that was known. It stands in for Lease while
	// that is unknown, hence losing the store changes no verdict.
	LastLease Lease
}

func (c ClusterInput) lease() Lease {
	if c.Lease == LeaseHeld || c.Lease == LeaseGone {
		return c.Lease
	}
	if c.LastLease == LeaseHeld || c.LastLease == LeaseGone {
		return c.LastLease
	}
	return LeaseUnknown
}

// Inputs are all that a judgement depends on.
type Inputs struct {
	Clusters []ClusterInput // those of the clusterset; each once
	Members  []Member       // as Gossip.Members gives them
}

// Verdict is the health of a cluster. The Reason is for people; it may change
// while the Health doesn't.
type Verdict struct {
	Health Health
	Reason string
}

// Judge says which clusters are alive. It is pure: equal inputs in any order
// give equal verdicts. Damping (how long a lease or a member may be silent, how
// many probes must fail) belongs to the inputs.
//
// A cluster is suspect when its lease is gone, or when gossip knows agents of it
// and none is alive. It is dead when its lease is gone and the clusters that can
// tell say that it can't be reached:
//
//   - Each live cluster has one vote: one that is not suspect itself. The
//     cluster in question has none, hubs have none, nor has a member of a
//     cluster that is not in the set.
//   - A cluster votes against another if all its living agents that have probed
//     it failed; one that got through is proof enough. So a member that is made
//     up beside a cluster's true agents can't turn its vote against anyone.
//   - The votes against must be more than half of all live clusters', counting
//     those without an opinion, and at least two: one cluster, or whoever took
//     the names of one, kills no other. Where a set has but two clusters there
//     can't be two voters, and one is enough: it then concerns its own traffic alone.
//
// A gossip message, forged or not, hence never makes a cluster dead whose lease
// is held, nor one that fewer than two other clusters fail to reach; the worst
// that it can do alone is to make one suspect, until memberlist refutes it.
func Judge(in Inputs) map[cluster.ID]Verdict {
	agents := agentsByCluster(in)
	type standing struct {
		lease          Lease
		agents, living int
		suspect, live  bool
	}
	standings := make(map[cluster.ID]standing, len(in.Clusters))
	live := 0
	for _, c := range in.Clusters {
		s := standing{lease: c.lease(), agents: len(agents[c.ID]), living: countAlive(agents[c.ID])}
		s.suspect = s.lease == LeaseGone || s.agents > 0 && s.living == 0
		s.live = !s.suspect && (s.lease == LeaseHeld || s.living > 0)
		if s.live {
			live++
		}
		standings[c.ID] = s
	}
	// A set of two has one other cluster at most, larger ones need two votes.
	atLeast := min(2, max(1, len(standings)-1))

	verdicts := make(map[cluster.ID]Verdict, len(standings))
	for id, s := range standings {
		evidence := fmt.Sprintf("lease %s, %d of %d agents alive in gossip", s.lease, s.living, s.agents)
		switch {
		case s.lease == LeaseUnknown && s.agents == 0:
			verdicts[id] = Verdict{Unknown, "neither the store nor gossip has told of it"}
		case !s.suspect:
			verdicts[id] = Verdict{Alive, evidence}
		case s.lease != LeaseGone:
			verdicts[id] = Verdict{Suspect, evidence}
		default:
			against := 0
			for voter, v := range standings {
				if voter != id && v.live && votesAgainst(agents[voter], id) {
					against++
				}
			}
			evidence = fmt.Sprintf("%s, %d of %d live clusters fail to reach its crossing gateways", evidence, against, live)
			if against >= max(live/2+1, atLeast) {
				verdicts[id] = Verdict{Dead, evidence}
			} else {
				verdicts[id] = Verdict{Suspect, evidence}
			}
		}
	}
	return verdicts
}

// UnderSuspicion lists the clusters whose crossing gateways are to be probed,
// sorted: those that are suspect, and the dead, so that they may return.
func UnderSuspicion(verdicts map[cluster.ID]Verdict) []cluster.ID {
	var out []cluster.ID
	for id, v := range verdicts {
		if v.Health == Suspect || v.Health == Dead {
			out = append(out, id)
		}
	}
	slices.Sort(out)
	return out
}

func agentsByCluster(in Inputs) map[cluster.ID][]Member {
	out := make(map[cluster.ID][]Member, len(in.Clusters))
	for _, c := range in.Clusters {
		out[c.ID] = nil
	}
	for _, m := range in.Members {
		if _, ok := out[m.Cluster]; ok && m.Role == RoleAgent {
			out[m.Cluster] = append(out[m.Cluster], m)
		}
	}
	return out
}

func countAlive(members []Member) int {
	n := 0
	for _, m := range members {
		if m.State == MemberAlive {
			n++
		}
	}
	return n
}

func votesAgainst(voter []Member, target cluster.ID) bool {
	failed := false
	for _, m := range voter {
		if m.State != MemberAlive {
			continue
		}
		if reachable, ok := voteOn(m.Votes, target); ok && reachable {
			return false
		} else if ok {
			failed = true
		}
	}
	return failed
}

// voteOn searches votes, which are sorted by cluster.
func voteOn(votes []Vote, target cluster.ID) (reachable, ok bool) {
	i, ok := slices.BinarySearchFunc(votes, target, func(v Vote, id cluster.ID) int { return cmp.Compare(v.Cluster, id) })
	return ok && votes[i].Reachable, ok
}
