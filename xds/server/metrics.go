package server

import (
	"errors"
	"fmt"

	"github.com/prometheus/client_golang/prometheus"
)

// metrics of one Server. None is labelled by proxy: there are too many.
type metrics struct {
	streams   prometheus.Gauge
	refused   *prometheus.CounterVec
	replaced  prometheus.Counter
	kinds     [kinds]kindMetrics
	rejected  *prometheus.CounterVec
	standing  *prometheus.GaugeVec
	healed    *prometheus.CounterVec
	overflows prometheus.Counter
	cold      prometheus.Counter
	unknown   prometheus.Counter
	lag       prometheus.Histogram
}

// kindMetrics are those of one type that count at every step: looked up once.
type kindMetrics struct{ responses, resources, bytes, acks, nacks prometheus.Counter }

func newMetrics(reg prometheus.Registerer) (*metrics, error) {
	counter := func(name, help string) prometheus.Counter {
		return prometheus.NewCounter(prometheus.CounterOpts{Namespace: "causeway", Subsystem: "xds", Name: name, Help: help})
	}
	counters := func(name, help string, labels ...string) *prometheus.CounterVec {
		return prometheus.NewCounterVec(prometheus.CounterOpts{Namespace: "causeway", Subsystem: "xds", Name: name, Help: help}, labels)
	}
	m := &metrics{
		streams: prometheus.NewGauge(prometheus.GaugeOpts{Namespace: "causeway", Subsystem: "xds", Name: "streams",
			Help: "Discovery streams that are open."}),
		standing: prometheus.NewGaugeVec(prometheus.GaugeOpts{Namespace: "causeway", Subsystem: "xds", Name: "rejected_resources",
			Help: "Resources that connected proxies do not take at present, by type."}, []string{"type"}),
		lag: prometheus.NewHistogram(prometheus.HistogramOpts{Namespace: "causeway", Subsystem: "xds", Name: "lag_seconds",
			Help:    "Time from a state of the world becoming known to a proxy's acknowledgement of all that it calls for.",
			Buckets: prometheus.ExponentialBuckets(0.001, 2, 16)}),
		refused:   counters("refused_total", "Streams refused or ended by the server, by reason.", "reason"),
		replaced:  counter("replaced_total", "Streams ended because the same node opened a newer one."),
		rejected:  counters("rejections_total", "Resources set aside, by type and by whether the proxy or the check before sending rejected them.", "type", "by"),
		healed:    counters("healed_total", "Resources taken by a proxy that had rejected them, by type.", "type"),
		overflows: counter("overflows_total", "Backlogs of changes given up for a comparison of everything: slow proxies."),
		cold:      counter("cold_clusters_total", "Clusters whose endpoints or secrets a proxy did not ask for or take in time."),
		unknown:   counter("unknown_types_total", "Requests for types that are not served."),
	}
	responses := counters("responses_total", "Responses sent, by type.", "type")
	resources := counters("resources_total", "Resources and removals sent, by type.", "type")
	bytes := counters("bytes_total", "Bytes of responses sent, by type.", "type")
	acks := counters("acks_total", "Responses acknowledged, by type.", "type")
	nacks := counters("nacks_total", "Responses rejected by proxies, by type.", "type")
	for k := range kinds {
		t := k.String()
		m.kinds[k] = kindMetrics{responses.WithLabelValues(t), resources.WithLabelValues(t), bytes.WithLabelValues(t), acks.WithLabelValues(t), nacks.WithLabelValues(t)}
	}
	if reg == nil {
		return m, nil
	}
	var errs []error
	for _, c := range []prometheus.Collector{
		m.streams, m.refused, m.replaced, responses, resources, bytes, acks, nacks, m.rejected,
		m.standing, m.healed, m.overflows, m.cold, m.unknown, m.lag,
	} {
		if err := reg.Register(c); err != nil {
			errs = append(errs, fmt.Errorf("register metrics of the discovery server: %w", err))
		}
	}
	return m, errors.Join(errs...)
}
