package publish

import (
	"errors"
	"fmt"
	"time"

	"github.com/prometheus/client_golang/prometheus"

	"github.com/causeway-mesh/causeway/federation/store"
)

type metrics struct {
	pending, records, revision, refused, addresses prometheus.Gauge
	operations                                     *prometheus.CounterVec
	errors                                         *prometheus.CounterVec
	seconds                                        prometheus.Histogram
}

func newMetrics(reg prometheus.Registerer) (*metrics, error) {
	gauge := func(name, help string) prometheus.Gauge {
		return prometheus.NewGauge(prometheus.GaugeOpts{Name: "causeway_publish_" + name, Help: help})
	}
	m := &metrics{
		pending:   gauge("pending", "Records that may have to be written."),
		records:   gauge("records", "Records that the store holds of this cluster."),
		revision:  gauge("revision", "Store revision that includes all that was written."),
		addresses: gauge("addresses", "1 while endpoints are published with their addresses, since another cluster shares the network; 0 while with their number alone."),
		refused:   gauge("refused", "Objects of this cluster that can't be published."),
		operations: prometheus.NewCounterVec(prometheus.CounterOpts{
			Name: "causeway_publish_operations_total", Help: "Records written, by operation."}, []string{"operation"}),
		errors: prometheus.NewCounterVec(prometheus.CounterOpts{
			Name: "causeway_publish_errors_total", Help: "Failed attempts, by reason; conflict means that someone else writes this cluster's records."}, []string{"reason"}),
		seconds: prometheus.NewHistogram(prometheus.HistogramOpts{
			Name: "causeway_publish_write_seconds", Help: "Duration of a transaction.", Buckets: prometheus.ExponentialBuckets(0.0005, 2, 14)}),
	}
	for _, c := range []prometheus.Collector{m.pending, m.records, m.revision, m.refused, m.addresses, m.operations, m.errors, m.seconds} {
		if err := reg.Register(c); err != nil {
			return nil, fmt.Errorf("metrics: %w", err)
		}
	}
	return m, nil
}

func (m *metrics) wrote(txn store.Txn, took time.Duration) {
	m.seconds.Observe(took.Seconds())
	for _, op := range txn.Ops {
		if op.Remove {
			m.operations.WithLabelValues("delete").Inc()
		} else {
			m.operations.WithLabelValues("put").Inc()
		}
	}
}

func (m *metrics) failed(err error) {
	reason := "other"
	switch {
	case foreign(err):
		reason = "conflict"
	case errors.Is(err, store.ErrUnavailable):
		reason = "unavailable"
	case errors.Is(err, store.ErrDenied):
		reason = "denied"
	case store.Resync(err):
		reason = "resync"
	case errors.Is(err, store.ErrTooLarge), errors.Is(err, store.ErrInvalid):
		reason = "invalid"
	}
	m.errors.WithLabelValues(reason).Inc()
}
