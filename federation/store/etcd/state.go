package etcd

import (
	"context"
	"errors"
	"log/slog"
	"math/rand/v2"
	"sync"
	"time"

	"github.com/prometheus/client_golang/prometheus"
	"google.golang.org/grpc/connectivity"

	"github.com/causeway-mesh/causeway/federation/store"
)

// state is the last evidence, by any request or watch, of the store being there.
type state struct {
	lg    *slog.Logger
	hook  func(connected bool, err error)
	gauge prometheus.Gauge

	mu        sync.Mutex // held while the hook runs, so that calls have an order
	known     bool
	connected bool
}

func (s *state) set(connected bool, err error) {
	s.mu.Lock()
	defer s.mu.Unlock()
	if s.known && s.connected == connected {
		return
	}
	s.known, s.connected = true, connected
	if connected {
		s.gauge.Set(1)
		s.lg.Info("connected to the store")
	} else {
		s.gauge.Set(0)
		s.lg.Warn("lost the store; going on with what is known", "error", err)
	}
	if s.hook != nil {
		s.hook(connected, err)
	}
}

// meters are the metrics of one Store.
type meters struct {
	requests   *prometheus.CounterVec
	duration   *prometheus.HistogramVec
	connected  prometheus.Gauge
	events     prometheus.Counter
	reconnects prometheus.Counter
	holds      prometheus.Counter
}

func newMeters(reg prometheus.Registerer) (*meters, error) {
	m := &meters{
		requests: prometheus.NewCounterVec(prometheus.CounterOpts{
			Name: "causeway_store_requests_total",
			Help: "Requests to the global store, by operation and result (ok, or the error of the store's contract).",
		}, []string{"operation", "result"}),
		duration: prometheus.NewHistogramVec(prometheus.HistogramOpts{
			Name:    "causeway_store_request_duration_seconds",
			Help:    "Time until a request to the global store was answered, waiting for a connection included.",
			Buckets: prometheus.ExponentialBuckets(0.0005, 2, 15),
		}, []string{"operation"}),
		connected: prometheus.NewGauge(prometheus.GaugeOpts{
			Name: "causeway_store_connected",
			Help: "Whether the global store could be reached when last tried (1) or not (0).",
		}),
		events: prometheus.NewCounter(prometheus.CounterOpts{
			Name: "causeway_store_watch_events_total",
			Help: "Events delivered by watches of the global store.",
		}),
		reconnects: prometheus.NewCounter(prometheus.CounterOpts{
			Name: "causeway_store_watch_interruptions_total",
			Help: "How often a watch of the global store broke and had to be resumed.",
		}),
		holds: prometheus.NewCounter(prometheus.CounterOpts{
			Name: "causeway_store_holds_lost_total",
			Help: "How often a key held in the global store was lost, or had to be assumed lost.",
		}),
	}
	for i, c := range m.all() {
		if err := reg.Register(c); err != nil {
			for _, done := range m.all()[:i] {
				reg.Unregister(done)
			}
			return nil, err
		}
	}
	return m, nil
}

func (m *meters) all() []prometheus.Collector {
	return []prometheus.Collector{m.requests, m.duration, m.connected, m.events, m.reconnects, m.holds}
}

func (m *meters) unregister(reg prometheus.Registerer) {
	for _, c := range m.all() {
		reg.Unregister(c)
	}
}

// result is the label for err.
func result(err error) string {
	for _, r := range []struct {
		err  error
		name string
	}{
		{nil, "ok"},
		{store.ErrConflict, "conflict"},
		{store.ErrCompacted, "compacted"},
		{store.ErrFutureRevision, "future_revision"},
		{store.ErrTooLarge, "too_large"},
		{store.ErrDenied, "denied"},
		{store.ErrUnavailable, "unavailable"},
		{store.ErrInvalid, "invalid"},
	} {
		if errors.Is(err, r.err) {
			return r.name
		}
	}
	return "error"
}

// delays yields growing waits between attempts, with jitter, up to maxBackoff.
type delays struct{ last time.Duration }

func (d *delays) next() time.Duration {
	d.last = min(max(20*time.Millisecond, 2*d.last), maxBackoff)
	return d.last - rand.N(d.last/5)
}

func (d *delays) reset() { d.last = 0 }

// pause waits for d, or until the connection has come back, or ctx ends.
func (s *Store) pause(ctx context.Context, d time.Duration) {
	ctx, cancel := context.WithTimeout(ctx, d)
	defer cancel()
	for changed := false; ; changed = true {
		st := s.conn.GetState()
		if st == connectivity.Idle {
			s.conn.Connect()
		}
		if changed && st == connectivity.Ready || !s.conn.WaitForStateChange(ctx, st) {
			return
		}
	}
}
