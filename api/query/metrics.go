package query

import (
	"fmt"

	"github.com/prometheus/client_golang/prometheus"
)

type metrics struct {
	requests *prometheus.CounterVec
	duration *prometheus.HistogramVec
	panics   prometheus.Counter
	watches  prometheus.Gauge
	events   prometheus.Counter
}

func newMetrics(reg prometheus.Registerer) (*metrics, error) {
	m := &metrics{
		requests: prometheus.NewCounterVec(prometheus.CounterOpts{
			Name: "causeway_query_requests_total", Help: "Calls of the query API that have ended, by method and gRPC code.",
		}, []string{"method", "code"}),
		duration: prometheus.NewHistogramVec(prometheus.HistogramOpts{
			Name: "causeway_query_request_duration_seconds", Help: "Duration of calls that are neither streams nor waiting.",
			Buckets: prometheus.ExponentialBuckets(0.0005, 4, 8),
		}, []string{"method"}),
		panics: prometheus.NewCounter(prometheus.CounterOpts{
			Name: "causeway_query_panics_total", Help: "Panics in handlers of the query API; each is a bug.",
		}),
		watches: prometheus.NewGauge(prometheus.GaugeOpts{
			Name: "causeway_query_watches", Help: "Watches that are running.",
		}),
		events: prometheus.NewCounter(prometheus.CounterOpts{
			Name: "causeway_query_watch_events_total", Help: "Events sent to watchers.",
		}),
	}
	for _, c := range []prometheus.Collector{m.requests, m.duration, m.panics, m.watches, m.events} {
		if err := reg.Register(c); err != nil {
			return nil, fmt.Errorf("register metrics of the query API: %w", err)
		}
	}
	return m, nil
}
