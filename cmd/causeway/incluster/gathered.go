package incluster

import (
	"cmp"
	"fmt"
	"slices"
	"strings"

	"k8s.io/apimachinery/pkg/api/meta"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
	gatewayv1 "sigs.k8s.io/gateway-api/apis/v1"

	"github.com/causeway-mesh/causeway/cluster"
	"github.com/causeway-mesh/causeway/cluster/status"
	"github.com/causeway-mesh/causeway/federation"
	"github.com/causeway-mesh/causeway/federation/resolve"
)

// Bounds of what a status says of many clusters.
const (
	// maxNamed is how many clusters a message names with what is wrong there.
	maxNamed = 16
	// maxListed is how many clusters the condition Federated lists; its message may have
	// 32 KiB.
	maxListed   = 128
	maxListText = 200
)

// Types of those conditions of cluster.RunCondition that are summed up by rules of their own.
const (
	accepted   = string(gatewayv1.GatewayConditionAccepted)
	programmed = string(gatewayv1.GatewayConditionProgrammed)
)

// Reasons of the condition Federated of a Gateway, beside resolve's.
const (
	reasonUnreachable = "Unreachable" // a cluster that is to run it is dead
	reasonPending     = "Pending"     // a cluster has not answered for this generation
)

// runOf is a verdict as other clusters are told of it. It is pure.
func runOf(v *status.Verdict, home cluster.ID) *cluster.GatewayRun {
	out := &cluster.GatewayRun{Home: home, Generation: v.Generation, Conditions: crossing(v.Conditions, false), Addresses: v.Addresses}
	out.Addresses = out.Addresses[:min(len(out.Addresses), cluster.MaxRunAddresses)]
	for _, l := range v.Listeners {
		if bad := crossing(l.Conditions, true); len(bad) > 0 && len(out.Listeners) < cluster.MaxRunListeners {
			out.Listeners = append(out.Listeners, cluster.ListenerRun{Name: l.Name, Conditions: bad})
		}
	}
	return out
}

// crossing picks the conditions that other clusters are told of: all, or the bad ones.
func crossing(list []metav1.Condition, bad bool) (out []metav1.Condition) {
	for _, c := range list {
		if !cluster.RunCondition(c.Type) || bad && c.Status == metav1.ConditionTrue {
			continue
		}
		c.Message = cut(c.Message, cluster.MaxRunMessage)
		out = append(out, c)
	}
	return out
}

// cut shortens a text to some bytes, in one line and with whole letters.
func cut(s string, most int) string {
	s = strings.Map(func(r rune) rune {
		if r < 0x20 || r == 0x7f {
			return ' '
		}
		return r
	}, strings.ToValidUTF8(s, "?"))
	if len(s) <= most {
		return s
	}
	return strings.ToValidUTF8(s[:most-3], "") + "..."
}

// member is one cluster that is to run a Gateway.
type member struct {
	id   cluster.ID
	dead bool
	// run is what it says of the Gateway's current generation, nil while it says nothing.
	run       *cluster.GatewayRun
	addresses []gatewayv1.GatewayStatusAddress // where it serves
}

// membersOf reads what the clusters say. What this one says is known first hand.
func membersOf(v *status.Verdict, runs *resolve.GatewayRuns) []member {
	out := make([]member, 0, len(runs.Clusters))
	for _, c := range runs.Clusters {
		said := c.Run
		if c.Cluster == runs.Home {
			said = runOf(v, runs.Home)
		}
		m := member{id: c.Cluster, dead: c.Liveness == federation.Dead && c.Cluster != runs.Home}
		switch {
		case m.dead || said == nil:
		case said.Generation == v.Generation:
			m.run = said
			fallthrough
		default: // it goes on serving what it has
			if c := meta.FindStatusCondition(said.Conditions, programmed); c != nil && c.Status == metav1.ConditionTrue {
				m.addresses = said.Addresses
			}
		}
		out = append(out, m)
	}
	return out
}

// gathered is the status of a Gateway that several clusters run, in the cluster that wrote
// it: v is what that cluster makes of it. It is pure.
//
//   - Accepted is True where any cluster accepts it: what it says is in use there.
//   - Programmed and ResolvedRefs are True where they are in all clusters that are to run
//     it and are not dead. The message names those where they are not.
//   - Federated lists all clusters, with their addresses or what is wrong.
//   - Addresses are those at which clusters serve, the first ones of each before the
//     second ones.
//
// The same holds for listeners. attachedRoutes is this cluster's count: all clusters attach
// the same routes, but for those that a cluster keeps to itself.
func gathered(v *status.Verdict, runs *resolve.GatewayRuns) *status.Verdict {
	members := membersOf(v, runs)
	out := *v
	out.Addresses = addressesOf(members)
	if len(members) == 0 { // no cluster is selected
		return &out
	}
	of := func(listener string) func(member, string) *metav1.Condition {
		return func(m member, kind string) *metav1.Condition {
			if listener == "" {
				return meta.FindStatusCondition(m.run.Conditions, kind)
			}
			for _, l := range m.run.Listeners {
				if l.Name == listener {
					return meta.FindStatusCondition(l.Conditions, kind)
				}
			}
			return nil
		}
	}
	told := federated(members)
	if len(members) == 1 && members[0].id == runs.Home {
		out.Conditions = append(slices.Clone(v.Conditions), told)
		return &out
	}
	out.Conditions = append(sum(v.Conditions, members, false, of("")), told)
	slices.SortFunc(out.Conditions, func(a, b metav1.Condition) int { return cmp.Compare(a.Type, b.Type) })
	out.Listeners = slices.Clone(v.Listeners)
	for i, l := range out.Listeners {
		out.Listeners[i].Conditions = sum(l.Conditions, members, true, of(l.Name))
	}
	return &out
}

// sum puts what all clusters say of the conditions that cross in the place of what this
// one says, of a Gateway or of a listener. said gives what a cluster that has answered
// says, nil for nothing but good.
func sum(own []metav1.Condition, members []member, listener bool, said func(member, string) *metav1.Condition) []metav1.Condition {
	var out []metav1.Condition
	for _, c := range own {
		if !cluster.RunCondition(c.Type) {
			if c.Type != resolve.ConditionFederated {
				out = append(out, c)
			}
			continue
		}
		var bad []verdictOf
		good, silent := 0, 0
		for _, m := range members {
			switch {
			case m.dead:
			case m.run == nil:
				silent++
				if c.Type == programmed {
					bad = append(bad, verdictOf{m.id, reasonPending, "has not answered for this generation yet"})
				}
			default:
				if x := said(m, c.Type); x != nil && x.Status != metav1.ConditionTrue {
					bad = append(bad, verdictOf{m.id, x.Reason, x.Message})
				} else {
					good++
				}
			}
		}
		failed := len(bad) > 0 || good == 0
		if c.Type == accepted {
			failed = good == 0
		}
		next := c
		switch {
		case good+len(bad) == 0 && c.Type != programmed: // nobody but this cluster has an opinion
		case failed:
			next = metav1.Condition{Type: c.Type, Status: metav1.ConditionFalse, Reason: reasonPending, Message: worded(bad)}
			if len(bad) > 0 {
				next.Reason = bad[0].reason
			}
			if c.Type == programmed {
				next.Message = fmt.Sprintf("programmed in %d of %d clusters; %s", good, good+len(bad), next.Message)
			}
		default:
			if c.Status != metav1.ConditionTrue {
				next = metav1.Condition{Type: c.Type, Status: metav1.ConditionTrue, Reason: c.Type}
			}
			if len(bad) > 0 {
				next.Message = strings.TrimPrefix(next.Message+"; "+worded(bad), "; ")
				if !listener {
					next.Reason = string(gatewayv1.GatewayReasonListenersNotValid)
				}
			}
		}
		out = append(out, next)
	}
	return out
}

// verdictOf is what is wrong in a cluster.
type verdictOf struct {
	id              cluster.ID
	reason, message string
}

// worded names clusters with what is wrong there, those with the same at once.
func worded(bad []verdictOf) string {
	var groups []string
	named := map[string][]string{}
	for i, b := range bad {
		if i == maxNamed {
			break
		}
		text := cut(cmp.Or(b.message, b.reason), cluster.MaxRunMessage)
		if named[text] == nil {
			groups = append(groups, text)
		}
		named[text] = append(named[text], string(b.id))
	}
	var out []string
	for _, text := range groups {
		out = append(out, strings.Join(named[text], ", ")+": "+text)
	}
	if more := len(bad) - maxNamed; more > 0 {
		out = append(out, fmt.Sprintf("and in %d more clusters", more))
	}
	return strings.Join(out, "; ")
}

// federated tells how each cluster fares, those with something wrong first.
func federated(members []member) metav1.Condition {
	c := metav1.Condition{Type: resolve.ConditionFederated, Status: metav1.ConditionTrue, Reason: resolve.ReasonFederated}
	var good, bad []string
	for _, m := range members {
		var at []string
		for _, a := range m.addresses {
			at = append(at, a.Value)
		}
		where := cut(strings.Join(at, ", "), maxListText)
		switch {
		case m.dead:
			c.Status, c.Reason = metav1.ConditionFalse, reasonUnreachable
			bad = append(bad, string(m.id)+" can't be reached")
		case m.run == nil:
			if c.Reason != reasonUnreachable {
				c.Status, c.Reason = metav1.ConditionFalse, reasonPending
			}
			bad = append(bad, string(m.id)+" has not answered for this generation yet")
		case where == "":
			why := "is not programmed"
			if p := meta.FindStatusCondition(m.run.Conditions, programmed); p != nil {
				why += " (" + cut(strings.TrimSuffix(p.Reason+": "+p.Message, ": "), maxListText) + ")"
			}
			bad = append(bad, string(m.id)+" "+why)
		default:
			good = append(good, string(m.id)+" at "+where)
		}
	}
	all := append(bad, good...)
	more := ""
	if n := len(all) - maxListed; n > 0 {
		all, more = all[:maxListed], fmt.Sprintf("; and %d more", n)
	}
	c.Message = fmt.Sprintf("%d of %d clusters: ", len(good), len(members)) + strings.Join(all, "; ") + more
	return c
}

// addressesOf gives the first address of each cluster, then the second ones, and so on, as
// many as a status may have.
func addressesOf(members []member) []gatewayv1.GatewayStatusAddress {
	out := []gatewayv1.GatewayStatusAddress{}
	for i, more := 0, true; more; i++ {
		more = false
		for _, m := range members {
			if i >= len(m.addresses) {
				continue
			}
			more = true
			a := m.addresses[i]
			if len(out) < cluster.MaxRunAddresses && !slices.ContainsFunc(out, func(b gatewayv1.GatewayStatusAddress) bool { return a.Value == b.Value }) {
				out = append(out, a)
			}
		}
	}
	return out
}
