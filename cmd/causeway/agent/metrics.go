package agent

import (
	"fmt"

	"github.com/prometheus/client_golang/prometheus"
)

type metrics struct {
	resolve, push prometheus.Histogram
}

func newMetrics(reg prometheus.Registerer) (*metrics, error) {
	buckets := prometheus.ExponentialBuckets(0.0001, 4, 9)
	m := &metrics{
		resolve: prometheus.NewHistogram(prometheus.HistogramOpts{Name: "causeway_agent_resolve_seconds", Help: "Time to resolve one change of the state.", Buckets: buckets}),
		push:    prometheus.NewHistogram(prometheus.HistogramOpts{Name: "causeway_agent_push_seconds", Help: "Time from a new Snapshot until all proxies' streams have what changed.", Buckets: buckets}),
	}
	for _, c := range []prometheus.Collector{m.resolve, m.push} {
		if err := reg.Register(c); err != nil {
			return nil, fmt.Errorf("register the agent's metrics: %w", err)
		}
	}
	return m, nil
}
