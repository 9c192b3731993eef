package up

import (
	"sync"

	"github.com/prometheus/client_golang/prometheus"
	dto "github.com/prometheus/client_model/go"
)

// gatherer joins the metrics of parts that come and go. Each part registers on a
// registry of its own, whose series carry the label "part".
type gatherer struct {
	mu    sync.Mutex
	parts map[string]*prometheus.Registry
}

func newGatherer() *gatherer { return &gatherer{parts: map[string]*prometheus.Registry{}} }

// part gives a new registry for a part; what the part had before is forgotten.
func (g *gatherer) part(name string) prometheus.Registerer {
	g.mu.Lock()
	defer g.mu.Unlock()
	r := prometheus.NewRegistry()
	g.parts[name] = r
	return prometheus.WrapRegistererWith(prometheus.Labels{"part": name}, r)
}

// Gather implements prometheus.Gatherer.
func (g *gatherer) Gather() ([]*dto.MetricFamily, error) {
	g.mu.Lock()
	all := make(prometheus.Gatherers, 0, len(g.parts))
	for _, r := range g.parts {
		all = append(all, r)
	}
	g.mu.Unlock()
	return all.Gather()
}
