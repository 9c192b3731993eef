package federation

import (
	"cmp"
	"fmt"
	"slices"
	"time"

	"github.com/causeway-mesh/causeway/cluster"
	"github.com/causeway-mesh/causeway/federation/record"
)

// settleClusters brings Meta, Health and drain of all clusters up to date. It
// gives the moment of the next step of a drain, zero if there is none.
func (m *merger) settleClusters(e *Edit, now time.Time) (step time.Time) {
	set := func(c Cluster) {
		if d, ok := m.drains[c.ID]; ok {
			var next time.Time
			c.Drained, next = d.At(now)
			c.DrainTarget = d.Target
			if !next.IsZero() && (step.IsZero() || next.Before(step)) {
				step = next
			}
		}
		e.SetCluster(c)
	}
	if m.local != "" {
		set(Cluster{ID: m.local, Meta: m.localMeta, Health: Health{Liveness: Alive, Reason: "this cluster"}})
	}
	for id, p := range m.peers {
		if id == m.local {
			continue
		}
		if !p.shown {
			e.RemoveCluster(id)
			if len(p.alive)+len(p.trust)+len(p.slices) == 0 {
				delete(m.peers, id) // comes back with its next record
			}
			continue
		}
		set(Cluster{ID: id, Meta: *p.meta, Health: m.healthOf(id, p)})
	}
	return step
}

func (m *merger) healthOf(id cluster.ID, p *peer) Health {
	if h, ok := m.health[id]; ok {
		return h
	}
	if len(p.alive) > 0 {
		return Health{Liveness: Alive, Reason: "an agent of the cluster holds its lease"}
	}
	return Health{Liveness: Suspect, Reason: "no agent of the cluster holds its lease"}
}

// settleTrust gives each trust domain to one cluster that claims it in its Meta:
// the local one, else the one whose bundle is the oldest in the store.
func (m *merger) settleTrust(e *Edit) {
	type claim struct {
		id      cluster.ID
		key     string
		bundle  *record.Trust
		created int64
	}
	var claims []claim
	disputes := map[string]struct{}{}
	dispute := func(id cluster.ID, key, why string) {
		name := "trust" + sep + key
		disputes[name] = struct{}{}
		m.problems.set(name, cluster.Problem{Cluster: id, Where: key, Message: "trust bundle is left out: " + why})
	}
	for id, p := range m.peers {
		meta, mine := p.meta, id == m.local
		if mine {
			meta = &m.localMeta
		}
		if meta == nil || mine && m.localTrust != nil {
			continue
		}
		for key, t := range p.trust {
			if t.TrustDomain == meta.TrustDomain {
				claims = append(claims, claim{id, key, t.Trust, t.created})
				continue
			}
			dispute(id, key, fmt.Sprintf("the cluster's Meta names the trust domain %q, and it may speak for no other", meta.TrustDomain))
		}
	}
	if m.local != "" && m.localTrust != nil && m.localTrust.TrustDomain == m.localMeta.TrustDomain {
		claims = append(claims, claim{id: m.local, bundle: m.localTrust})
	}
	slices.SortFunc(claims, func(a, b claim) int {
		if (a.id == m.local) != (b.id == m.local) {
			if a.id == m.local {
				return -1
			}
			return 1
		}
		return cmp.Or(cmp.Compare(a.created, b.created), cmp.Compare(a.id, b.id))
	})
	owner, trust, sealing := map[string]cluster.ID{}, map[string][][]byte{}, map[cluster.ID][]byte{}
	for _, c := range claims {
		td := c.bundle.TrustDomain
		if by, taken := owner[td]; taken {
			dispute(c.id, c.key, fmt.Sprintf("the trust domain %q is that of cluster %q, which had it before", td, by))
			continue
		}
		owner[td], trust[td] = c.id, c.bundle.Authorities
		if len(c.bundle.Sealing) > 0 {
			sealing[c.id] = c.bundle.Sealing
		}
	}
	for name := range m.disputes {
		if _, still := disputes[name]; !still {
			m.problems.clear(name)
		}
	}
	m.disputes = disputes
	e.SetTrust(trust)
	e.SetSealing(sealing)
}

// leases tells of each cluster of the clusterset whether an agent holds a lease.
func (m *merger) leases() map[cluster.ID]bool {
	out := map[cluster.ID]bool{}
	for id, p := range m.peers {
		if p.shown || id == m.local {
			out[id] = len(p.alive) > 0
		}
	}
	if _, ok := out[m.local]; !ok && m.local != "" {
		out[m.local] = false
	}
	return out
}
