package gossip

import (
	"fmt"
	"net/netip"
	"slices"
	"strings"
	"testing"

	"github.com/google/go-cmp/cmp"
	"github.com/google/go-cmp/cmp/cmpopts"
	"pgregory.net/rapid"

	"github.com/causeway-mesh/causeway/cluster"
)

func sortedStrings(s []string) []string {
	slices.Sort(s)
	return s
}

// world builds Inputs from a table's short form: for each cluster its lease
// (h held, g gone, u unknown, or now/last as in u/h), then its agents: + alive,
// ? suspect, x dead, each followed by its votes in brackets, as in "-a,b,+c".
//
//	"a:h +[-t]  b:h +[-t]x  t:g x"
func world(t testing.TB, text string) Inputs {
	t.Helper()
	var in Inputs
	leases := map[string]Lease{"h": LeaseHeld, "g": LeaseGone, "u": LeaseUnknown, "": ""}
	var id cluster.ID
	for field := range strings.FieldsSeq(text) {
		if name, lease, ok := strings.Cut(field, ":"); ok {
			now, last, _ := strings.Cut(lease, "/")
			id = cluster.ID(name)
			if id != "hub" {
				in.Clusters = append(in.Clusters, ClusterInput{ID: id, Lease: leases[now], LastLease: leases[last]})
			}
			continue
		}
		for i := 0; i < len(field); i++ {
			m := Member{Name: fmt.Sprintf("%s/%d", id, len(in.Members)), Role: RoleAgent, Cluster: id}
			m.State = map[byte]MemberState{'+': MemberAlive, '?': MemberSuspect, 'x': MemberDead}[field[i]]
			if id == "hub" {
				m.Role, m.Cluster = RoleHub, ""
			}
			if m.State == "" {
				t.Fatalf("%q of %q", field[i], text)
			}
			if i+1 < len(field) && field[i+1] == '[' {
				votes, _, _ := strings.Cut(field[i+2:], "]")
				i += len(votes) + 2
				for v := range strings.SplitSeq(votes, ",") {
					m.Votes = append(m.Votes, Vote{Cluster: cluster.ID(v[1:]), Reachable: v[0] == '+'})
				}
			}
			in.Members = append(in.Members, m)
		}
	}
	return in
}

func TestJudge(t *testing.T) {
	for _, c := range []struct {
		name, world string
		want        Health // of cluster t
	}{
		{"lease and gossip fine", "a:h + t:h +", Alive},
		{"one agent of two dead", "a:h + t:h +x", Alive},
		{"no gossip with it at all", "a:h + t:h", Alive},
		{"gossip only, store never seen", "a:u + t:u +", Alive},
		{"nothing known", "a:h + t:u", Unknown},
		{"nothing known, empty lease", "a:h + t:", Unknown},

		{"gossip suspects", "a:h + t:h ?", Suspect},
		{"gossip says dead, all probes fail, lease held", "a:h +[-t] b:h +[-t] c:h +[-t] t:h x", Suspect},
		{"lease gone, gossip fine", "a:h + b:h + t:g +", Suspect},
		{"lease gone, nobody has probed", "a:h + b:h + t:g x", Suspect},
		{"lease gone, all reach it", "a:h +[+t] b:h +[+t] t:g x", Suspect},

		{"lease gone, all fail", "a:h +[-t] b:h +[-t] t:g x", Dead},
		{"lease gone, gossip fine, all fail", "a:h +[-t] b:h +[-t] t:g +", Dead},
		{"two of three fail", "a:h +[-t] b:h +[-t] c:h +[+t] t:g x", Dead},
		{"two of three fail, the third has no opinion", "a:h +[-t] b:h +[-t] c:h + t:g x", Dead},
		{"two of four fail: no majority", "a:h +[-t] b:h +[-t] c:h + d:h + t:g x", Suspect},
		{"one of three fails", "a:h +[-t] b:h +[+t] c:h +[+t] t:g x", Suspect},

		{"set of two: one vote is all there is", "a:h +[-t] t:g x", Dead},
		{"set of two, reachable", "a:h +[+t] t:g x", Suspect},
		{"set of one", "t:g +[-t]", Suspect},
		{"set of three, one live voter is too few", "a:h +[-t] b:g x t:g x", Suspect},
		{"set of four, one live voter is too few", "a:h +[-t] b:g x c:g x t:g x", Suspect},

		{"its own vote doesn't count", "a:h +[-t] b:h + t:g +[-t]", Suspect},
		{"suspects don't vote", "a:h +[-t] b:h ?[-t] t:g x", Suspect},
		{"clusters without lease don't vote", "a:h +[-t] b:g +[-t] t:g x", Suspect},
		{"hubs don't vote", "a:h +[-t] b:h + hub: +[-t]+[-t] t:g x", Suspect},
		{"dead agents don't vote", "a:h +[-t] b:h +x[-t] t:g x", Suspect},
		{"clusters unknown to the store don't vote", "a:h +[-t] b:h + t:g x zz:u", Suspect},
		{"two agents, one vote", "a:h +[-t]+[-t] b:h + c:h + t:g x", Suspect},
		{"one agent that gets through speaks for its cluster", "a:h +[-t] b:h +[-t]+[+t] c:h + t:g x", Suspect},

		{"store lost while fine", "a:u/h + t:u/h +", Alive},
		{"store lost, gossip says dead, all probes fail", "a:u/h +[-t] b:u/h +[-t] t:u/h x", Suspect},
		{"store lost after the lease went", "a:u/h +[-t] b:u/h +[-t] t:u/g x", Dead},
		{"store back: what it says now counts", "a:h/g +[-t] b:h/g +[-t] t:h/g +", Alive},
	} {
		t.Run(c.name, func(t *testing.T) {
			got := Judge(world(t, c.world))["t"]
			if got.Health != c.want || got.Reason == "" {
				t.Errorf("t is %s (%s), want %s", got.Health, got.Reason, c.want)
			}
		})
	}
	// A member of a cluster that isn't in the set has no say.
	in := world(t, "a:h +[-t] b:h + t:g x")
	in.Members = append(in.Members, Member{Role: RoleAgent, Cluster: "stranger", State: MemberAlive, Report: Report{Votes: []Vote{{"t", false}}}})
	if v := Judge(in); v["t"].Health != Suspect || len(v) != 3 {
		t.Errorf("a stranger's vote counts: %v", v)
	}
}

func TestUnderSuspicion(t *testing.T) {
	got := UnderSuspicion(Judge(world(t, "a:h +[-d] b:h +[-d] u:u z:h ? d:g x")))
	if diff := cmp.Diff([]cluster.ID{"d", "z"}, got); diff != "" {
		t.Error(diff)
	}
}

var ids = []cluster.ID{"a", "b", "c", "d", "e", "f", "g"}

func drawInputs(t *rapid.T, n int) Inputs {
	var in Inputs
	lease := rapid.SampledFrom([]Lease{LeaseHeld, LeaseGone, LeaseUnknown})
	for _, id := range ids[:n] {
		in.Clusters = append(in.Clusters, ClusterInput{ID: id, Lease: lease.Draw(t, "lease"), LastLease: lease.Draw(t, "last")})
		for range rapid.IntRange(0, 3).Draw(t, "agents") {
			in.Members = append(in.Members, drawMember(t, id, n))
		}
	}
	return in
}

func drawMember(t *rapid.T, id cluster.ID, n int) Member {
	m := Member{Role: RoleAgent, Cluster: id, State: rapid.SampledFrom([]MemberState{MemberAlive, MemberAlive, MemberSuspect, MemberDead}).Draw(t, "state")}
	if rapid.IntRange(0, 9).Draw(t, "hub") == 0 {
		m.Role, m.Cluster = RoleHub, ""
	}
	for _, target := range ids[:n] {
		switch rapid.IntRange(0, 3).Draw(t, "vote") {
		case 0:
			m.Votes = append(m.Votes, Vote{target, true})
		case 1, 2:
			m.Votes = append(m.Votes, Vote{target, false})
		}
	}
	return m
}

func clone(in Inputs) Inputs {
	return Inputs{Clusters: slices.Clone(in.Clusters), Members: slices.Clone(in.Members)}
}

// A dead cluster has lost its lease, and at least two others that are live, and
// more than half of those, have an agent that failed and none that got through.
func TestJudgeDeathIsFounded(t *testing.T) {
	rapid.Check(t, func(t *rapid.T) {
		in := drawInputs(t, rapid.IntRange(2, 7).Draw(t, "n"))
		verdicts := Judge(in)
		live := 0
		for _, v := range verdicts {
			if v.Health == Alive {
				live++
			}
		}
		for _, c := range in.Clusters {
			against := map[cluster.ID]bool{}
			for _, m := range in.Members {
				if reachable, ok := voteOn(m.Votes, c.ID); ok && m.Role == RoleAgent && m.State == MemberAlive && m.Cluster != c.ID && verdicts[m.Cluster].Health == Alive {
					if _, seen := against[m.Cluster]; !seen {
						against[m.Cluster] = true
					}
					against[m.Cluster] = against[m.Cluster] && !reachable
				}
			}
			n := 0
			for _, yes := range against {
				if yes {
					n++
				}
			}
			founded := c.lease() == LeaseGone && 2*n > live && (n >= 2 || len(in.Clusters) == 2)
			if dead := verdicts[c.ID].Health == Dead; dead != founded {
				t.Fatalf("%s: dead %v, founded %v: %s", c.ID, dead, founded, verdicts[c.ID].Reason)
			}
		}
	})
}

// In a set of three or more, whoever controls all that one cluster's members
// say, adds members under its name, and has any others declared dead by
// memberlist, kills no cluster that nobody else fails to reach.
func TestJudgeForgedMembersKillNoOne(t *testing.T) {
	rapid.Check(t, func(t *rapid.T) {
		n := rapid.IntRange(3, 7).Draw(t, "n")
		in := drawInputs(t, n)
		forger := rapid.SampledFrom(ids[:n]).Draw(t, "forger")
		for i := range in.Members {
			m := &in.Members[i]
			if m.Cluster != forger { // the honest say that they reach everyone, or nothing
				m.Votes = slices.DeleteFunc(slices.Clone(m.Votes), func(v Vote) bool { return !v.Reachable })
			}
			if rapid.Bool().Draw(t, "declared dead") {
				m.State = MemberDead
			}
		}
		for range rapid.IntRange(0, 5).Draw(t, "forged") {
			in.Members = append(in.Members, drawMember(t, forger, n))
		}
		for id, v := range Judge(in) {
			if v.Health == Dead {
				t.Fatalf("%s killed %s: %s", forger, id, v.Reason)
			}
		}
	})
}

// Members that are made up beside a cluster's true agents don't turn the
// cluster's vote against a target that a true one reaches.
func TestJudgeMadeUpAgentsDontTurnAVote(t *testing.T) {
	in := world(t, "a:h +[+t] b:h +[+t] c:h +[+t] t:g x")
	for _, id := range []cluster.ID{"a", "b", "c"} {
		for range 3 {
			in.Members = append(in.Members, Member{Role: RoleAgent, Cluster: id, State: MemberAlive, Report: Report{Revision: 1 << 60, Votes: []Vote{{"t", false}}}})
		}
	}
	if v := Judge(in)["t"]; v.Health != Suspect {
		t.Errorf("t is %s: %s", v.Health, v.Reason)
	}
}

// Losing the store changes no verdict, whatever the store said before it said
// what it said last.
func TestJudgeStoreLossChangesNothing(t *testing.T) {
	rapid.Check(t, func(t *rapid.T) {
		before := drawInputs(t, rapid.IntRange(1, 7).Draw(t, "n"))
		after := clone(before)
		for i, c := range after.Clusters {
			if c.Lease != LeaseUnknown {
				after.Clusters[i].LastLease = c.Lease
			}
			after.Clusters[i].Lease = LeaseUnknown
		}
		if diff := cmp.Diff(Judge(before), Judge(after)); diff != "" {
			t.Fatal(diff)
		}
	})
}

// The order of the inputs is of no account, and they aren't touched; hubs and
// the accused have no say.
func TestJudgeIgnores(t *testing.T) {
	rapid.Check(t, func(t *rapid.T) {
		n := rapid.IntRange(2, 7).Draw(t, "n")
		in := drawInputs(t, n)
		kept := clone(in)
		want := Judge(in)
		if diff := cmp.Diff(kept, in, cmpopts.EquateComparable(netip.AddrPort{})); diff != "" {
			t.Fatalf("inputs changed: %s", diff)
		}
		shuffled := Inputs{Clusters: rapid.Permutation(in.Clusters).Draw(t, "clusters"), Members: rapid.Permutation(in.Members).Draw(t, "members")}
		if diff := cmp.Diff(want, Judge(shuffled)); diff != "" {
			t.Fatalf("in another order: %s", diff)
		}
		target := rapid.SampledFrom(ids[:n]).Draw(t, "target")
		biased := clone(in)
		for i, m := range biased.Members {
			if m.Cluster == target || m.Role == RoleHub {
				biased.Members[i].Votes = []Vote{{target, rapid.Bool().Draw(t, "own vote")}}
			}
		}
		if got := Judge(biased)[target]; got != want[target] {
			t.Fatalf("%s is %v by its own or a hub's vote, %v without", target, got, want[target])
		}
	})
}

// A lease that is held again never makes things worse for its cluster.
func TestJudgeLeaseHelps(t *testing.T) {
	rank := map[Health]int{Alive: 0, Unknown: 1, Suspect: 1, Dead: 2}
	rapid.Check(t, func(t *rapid.T) {
		in := drawInputs(t, rapid.IntRange(1, 7).Draw(t, "n"))
		i := rapid.IntRange(0, len(in.Clusters)-1).Draw(t, "i")
		better := clone(in)
		better.Clusters[i].Lease = LeaseHeld
		id := in.Clusters[i].ID
		was, is := Judge(in)[id], Judge(better)[id]
		if rank[is.Health] > rank[was.Health] || is.Health == Dead {
			t.Fatalf("%s goes from %v to %v when its lease is held", id, was, is)
		}
	})
}
