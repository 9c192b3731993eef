package federation

import (
	"fmt"
	"time"

	"github.com/prometheus/client_golang/prometheus"
)

type loopMetrics struct {
	build, push             prometheus.Histogram
	relists, copyErrors     prometheus.Counter
	copyBytes, copyRevision prometheus.Gauge
}

func newLoopMetrics(reg prometheus.Registerer, l *Loop) (*loopMetrics, error) {
	histogram := func(name, help string) prometheus.Histogram {
		return prometheus.NewHistogram(prometheus.HistogramOpts{Name: "causeway_snapshot_" + name, Help: help, Buckets: prometheus.ExponentialBuckets(0.0001, 2, 18)})
	}
	counter := func(name, help string) prometheus.Counter {
		return prometheus.NewCounter(prometheus.CounterOpts{Name: "causeway_snapshot_" + name, Help: help})
	}
	gauge := func(name, help string) prometheus.Gauge {
		return prometheus.NewGauge(prometheus.GaugeOpts{Name: "causeway_snapshot_" + name, Help: help})
	}
	ofSnapshot := func(name, help string, value func(*Snapshot) float64) prometheus.Collector {
		return prometheus.NewGaugeFunc(prometheus.GaugeOpts{Name: "causeway_snapshot_" + name, Help: help}, func() float64 {
			if s := l.Snapshot(); s != nil {
				return value(s)
			}
			return 0
		})
	}
	m := &loopMetrics{
		build:        histogram("build_seconds", "Time to build a snapshot from the inputs that led to it."),
		push:         histogram("push_seconds", "Time that resolving and serving a snapshot held up the next."),
		relists:      counter("relists_total", "Times that the store had to be listed afresh, after a compaction or a restore."),
		copyErrors:   counter("copy_errors_total", "Times that the copy of the store could not be written to disk."),
		copyBytes:    gauge("copy_bytes", "Size of the copy of the store on disk."),
		copyRevision: gauge("copy_revision", "Store revision of the copy on disk."),
	}
	for _, c := range []prometheus.Collector{
		m.build, m.push, m.relists, m.copyErrors, m.copyBytes, m.copyRevision,
		ofSnapshot("revision", "Store revision that the newest snapshot includes.", func(s *Snapshot) float64 { return float64(s.Revision) }),
		ofSnapshot("objects", "Objects in the newest snapshot.", func(s *Snapshot) float64 { return float64(s.Len()) }),
		ofSnapshot("clusters", "Clusters in the newest snapshot.", func(s *Snapshot) float64 { return float64(len(s.Clusters())) }),
		prometheus.NewGaugeFunc(prometheus.GaugeOpts{Name: "causeway_snapshot_problems", Help: "Inputs that can't be used, of all clusters."},
			func() float64 { return float64(len(l.Problems())) }),
		prometheus.NewGaugeFunc(prometheus.GaugeOpts{Name: "causeway_snapshot_lag_seconds", Help: "Time since the store was last heard; it speaks about once a second."},
			func() float64 {
				if _, last, _ := l.conn.state(); !last.IsZero() {
					return time.Since(last).Seconds()
				}
				return 0
			}),
	} {
		if err := reg.Register(c); err != nil {
			return nil, fmt.Errorf("metrics: %w", err)
		}
	}
	return m, nil
}
