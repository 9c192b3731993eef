package kubernetes

import (
	"fmt"
	"time"

	"github.com/prometheus/client_golang/prometheus"

	"github.com/causeway-mesh/causeway/cluster"
)

type metrics struct {
	connected prometheus.Gauge
	outages   prometheus.Counter
	objects   *prometheus.GaugeVec
	lastHeard *prometheus.GaugeVec
	restarts  *prometheus.CounterVec
	lag       prometheus.Histogram
	delivered prometheus.Histogram
}

func newMetrics(reg prometheus.Registerer) (*metrics, error) {
	m := &metrics{
		connected: prometheus.NewGauge(prometheus.GaugeOpts{Name: "causeway_kubernetes_connected", Help: "1 while the API server answers."}),
		outages:   prometheus.NewCounter(prometheus.CounterOpts{Name: "causeway_kubernetes_outages_total", Help: "How often the API server was lost."}),
		objects:   prometheus.NewGaugeVec(prometheus.GaugeOpts{Name: "causeway_kubernetes_objects", Help: "Objects that are kept, by kind."}, []string{"kind"}),
		lastHeard: prometheus.NewGaugeVec(prometheus.GaugeOpts{Name: "causeway_kubernetes_last_heard_timestamp_seconds", Help: "When a kind's watch last said anything, bookmarks included, in seconds since the epoch."}, []string{"kind"}),
		restarts:  prometheus.NewCounterVec(prometheus.CounterOpts{Name: "causeway_kubernetes_reconnects_total", Help: "Lists and watches of a kind that were started again."}, []string{"kind"}),
		lag: prometheus.NewHistogram(prometheus.HistogramOpts{Name: "causeway_kubernetes_lag_seconds",
			Help:    "Time from the write of an object until its event arrived. The API server keeps whole seconds, so that up to one second is rounding.",
			Buckets: []float64{1, 2, 3, 5, 10, 30, 60, 300}}),
		delivered: prometheus.NewHistogram(prometheus.HistogramOpts{Name: "causeway_kubernetes_delivery_seconds",
			Help: "Time from the arrival of the first event of a batch until the batch was delivered.", Buckets: prometheus.ExponentialBuckets(0.0001, 4, 9)}),
	}
	if reg == nil {
		return m, nil
	}
	for _, c := range []prometheus.Collector{m.connected, m.outages, m.objects, m.lastHeard, m.restarts, m.lag, m.delivered} {
		if err := reg.Register(c); err != nil {
			return nil, fmt.Errorf("register metrics: %w", err)
		}
	}
	return m, nil
}

func (m *metrics) setConnected(open bool) {
	if open {
		m.connected.Set(1)
		return
	}
	m.connected.Set(0)
	m.outages.Inc()
}

func (m *metrics) heard(kind cluster.Kind) {
	m.lastHeard.WithLabelValues(string(kind)).SetToCurrentTime()
}

// arrived notes an event of an object that was written at a time.
func (m *metrics) arrived(kind cluster.Kind, at time.Time) {
	m.heard(kind)
	if !at.IsZero() {
		m.lag.Observe(max(0, time.Since(at).Seconds()))
	}
}

func (m *metrics) count(objects map[cluster.Kind]int) {
	for kind, n := range objects {
		m.objects.WithLabelValues(string(kind)).Set(float64(n))
	}
}
