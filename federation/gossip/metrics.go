package gossip

import (
	"fmt"

	"github.com/prometheus/client_golang/prometheus"
)

type metrics struct {
	members   *prometheus.GaugeVec
	rejected  *prometheus.CounterVec
	conflicts prometheus.Counter
	joins     *prometheus.CounterVec
	votesCut  prometheus.Counter
}

// newMetrics registers on reg unless it is nil.
func newMetrics(reg prometheus.Registerer) (*metrics, error) {
	m := &metrics{
		members: prometheus.NewGaugeVec(prometheus.GaugeOpts{
			Name: "causeway_gossip_members",
			Help: "Members of the gossip that this process knows, by state.",
		}, []string{"state"}),
		rejected: prometheus.NewCounterVec(prometheus.CounterOpts{
			Name: "causeway_gossip_rejected_total",
			Help: "Gossip that was dropped: malformed messages, members with an unusable name, members above the bound.",
		}, []string{"reason"}),
		conflicts: prometheus.NewCounter(prometheus.CounterOpts{
			Name: "causeway_gossip_name_conflicts_total",
			Help: "Times that one member's name was claimed by two.",
		}),
		joins: prometheus.NewCounterVec(prometheus.CounterOpts{
			Name: "causeway_gossip_joins_total",
			Help: "Attempts to join a member, by result.",
		}, []string{"result"}),
		votesCut: prometheus.NewCounter(prometheus.CounterOpts{
			Name: "causeway_gossip_votes_cut_total",
			Help: "Votes left out of a report because it was full.",
		}),
	}
	if reg == nil {
		return m, nil
	}
	for _, c := range []prometheus.Collector{m.members, m.rejected, m.conflicts, m.joins, m.votesCut} {
		if err := reg.Register(c); err != nil {
			return nil, fmt.Errorf("register metrics of gossip: %w", err)
		}
	}
	return m, nil
}

func (m *metrics) reject(reason string) { m.rejected.WithLabelValues(reason).Inc() }

func (m *metrics) conflict() { m.conflicts.Inc() }

func (m *metrics) join(err error) {
	result := "ok"
	if err != nil {
		result = "error"
	}
	m.joins.WithLabelValues(result).Inc()
}

func (m *metrics) count(members []Member) {
	counts := map[MemberState]int{MemberAlive: 0, MemberSuspect: 0, MemberDead: 0}
	for _, member := range members {
		counts[member.State]++
	}
	for state, n := range counts {
		m.members.WithLabelValues(string(state)).Set(float64(n))
	}
}
