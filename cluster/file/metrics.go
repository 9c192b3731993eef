package file

import (
	"fmt"

	"github.com/prometheus/client_golang/prometheus"

	"github.com/causeway-mesh/causeway/cluster"
)

type metrics struct {
	objects, problems prometheus.Gauge
	seconds           prometheus.Histogram
}

// newMetrics registers the metrics of one cluster, told apart by their label.
func newMetrics(reg prometheus.Registerer, id cluster.ID) (metrics, error) {
	m := metrics{
		objects:  prometheus.NewGauge(prometheus.GaugeOpts{Name: "causeway_manifest_objects", Help: "Objects delivered from the cluster's folder of manifests, made-up ones included."}),
		problems: prometheus.NewGauge(prometheus.GaugeOpts{Name: "causeway_manifest_problems", Help: "Problems in the cluster's folder of manifests that wait for a person."}),
		seconds:  prometheus.NewHistogram(prometheus.HistogramOpts{Name: "causeway_manifest_scan_seconds", Help: "Time that a look at the cluster's folder of manifests takes.", Buckets: prometheus.ExponentialBuckets(0.0005, 4, 8)}),
	}
	if reg == nil {
		return m, nil
	}
	reg = prometheus.WrapRegistererWith(prometheus.Labels{"cluster": string(id)}, reg)
	for _, c := range []prometheus.Collector{m.objects, m.problems, m.seconds} {
		if err := reg.Register(c); err != nil {
			return metrics{}, fmt.Errorf("register metrics: %w", err)
		}
	}
	return m, nil
}
