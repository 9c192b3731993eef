package status

import (
	"context"
	"errors"
	"fmt"
	"log/slog"
	"slices"
	"sync"
	"time"

	"github.com/prometheus/client_golang/prometheus"
	"golang.org/x/time/rate"
	apierrors "k8s.io/apimachinery/pkg/api/errors"

	"github.com/causeway-mesh/causeway/cluster"
	"github.com/causeway-mesh/causeway/cluster/kubernetes"
)

// fieldManager is whom the API server names as the writer.
const fieldManager = "causeway-status"

// Bounds of the writing.
const (
	workers      = 4
	writeTimeout = 10 * time.Second
	firstRetry   = time.Second
	longestRetry = 30 * time.Second
)

// Config of a Writer. All but Registerer, Rate and Burst are required.
type Config struct {
	// Live finds what the API server said last of an object. Source.Live does.
	Live func(cluster.Ref) (*kubernetes.Live, bool)
	// Judge gives the verdict on an object; nil: it is none of our business. It is
	// false while nothing can be said yet.
	Judge func(cluster.Ref) (*Verdict, bool)
	// Patch writes. Client.PatchStatus does.
	Patch func(ctx context.Context, ref cluster.Ref, patch []byte, fieldManager string) error
	// Rate and Burst bound the writes a second; 50 and 100 if zero.
	Rate, Burst int
	Logger      *slog.Logger
	Registerer  prometheus.Registerer
}

// Writer keeps statuses as they should be. Touch and Judged may be called from any
// goroutine, before, while and after Run runs; they never block.
type Writer struct {
	cfg     Config
	limit   *rate.Limiter
	metrics *metrics
	wake    chan struct{} // 1 deep

	mu      sync.Mutex
	dirty   map[cluster.Ref]time.Time // since when
	waiting map[cluster.Ref]time.Time // for a verdict on the object's current generation
	at      map[cluster.Ref]attempt   // objects that were written to, until Live shows it
	busy    map[cluster.Ref]bool
	written map[cluster.Ref]success // the last write that went well
	held    map[cluster.Ref]*held
	ripe    []cluster.Ref // of those that are held; may have some that are not dirty any more
}

// soon is for how long after a write of an object the next one of the same generation is
// paced: it waits until nothing has changed for a while, or for long. Both grow with each
// write that waited, so that however long changes go on there are few writes, and most
// often two: when they begin, and when they have ended. A change that comes alone, and a
// change of the object itself, are answered at once. A change that somebody may wait for, such
// as a condition's that turns, only keeps its distance from the last write, unless the object
// has come on so for long: Programmed is told without delay, and what flaps is slowed down
// all the same.
const (
	soon   = 10 * time.Second
	spared = 8 // writes in a row that somebody may have waited for
)

// pace is how what changes again soon is gathered.
type pace struct {
	quiet   time.Duration // for which nothing may have changed
	longest time.Duration // since the first change
	most    time.Duration // that either grows to
	growth  uint          // binary digits by which either grows with each write that waited
	share   time.Duration // of the time since changes began, at least: one in so many
}

// The paces of what people may wait for, and of numbers and messages, which change with every
// route that comes and goes. On a slow machine a thousand routes take long to come, with long
// pauses, which are not the end: so that has its share.
var (
	turning = pace{quiet: 250 * time.Millisecond, longest: 5 * time.Second, most: 5 * time.Second, growth: 1}
	telling = pace{quiet: 500 * time.Millisecond, longest: 30 * time.Second, most: 5 * time.Minute, growth: 2, share: 8}
)

// longestQuiet bounds what share comes to.
const longestQuiet = 10 * time.Second

// success is the last write of an object that went well.
type success struct {
	generation int64
	when       time.Time
	began      time.Time // the last write that did not wait
	heard      time.Time // the last change that came to nothing, as it was turned back
	// turned and told are how many came soon after another since, at each pace.
	turned, told int
}

// held is an object that waits for its pace.
type held struct {
	pace         pace
	since, heard time.Time // the first change, and the last one
	began        time.Time // as of its last write
	waited       int       // how many writes at this pace did
	due          time.Time // when it goes, whatever changes; zero: as the pace says
	ripe         bool      // it is written next
	timer        *time.Timer
}

// left is how long it has to wait yet, if nothing changes. It is pure.
func (h *held) left(now time.Time) time.Duration {
	grown := func(d time.Duration) time.Duration { return min(d<<min(h.pace.growth*uint(h.waited), 16), h.pace.most) }
	quiet := grown(h.pace.quiet)
	if h.pace.share > 0 {
		quiet = max(quiet, min(h.heard.Sub(h.began)/h.pace.share, longestQuiet))
	}
	left := min(quiet-now.Sub(h.heard), grown(h.pace.longest)-now.Sub(h.since))
	if !h.due.IsZero() {
		left = min(left, h.due.Sub(now))
	}
	return left
}

// attempt is the last write to an object.
type attempt struct {
	version string // the resourceVersion that it was made for
	when    time.Time
	tries   int // that failed
}

// echo is how long Live may take to show a write before the object is looked at
// again: a write that changed nothing is never shown.
const echo = 2 * time.Second

type metrics struct {
	writes  *prometheus.CounterVec
	pending prometheus.Gauge
	delay   prometheus.Histogram
}

// NewWriter validates and starts nothing.
func NewWriter(cfg Config) (*Writer, error) {
	if cfg.Live == nil || cfg.Judge == nil || cfg.Patch == nil || cfg.Logger == nil {
		return nil, errors.New("status writer: Live, Judge, Patch and Logger are required")
	}
	if cfg.Rate < 0 || cfg.Burst < 0 {
		return nil, errors.New("status writer: Rate and Burst can't be negative")
	}
	if cfg.Rate == 0 {
		cfg.Rate = 50
	}
	if cfg.Burst == 0 {
		cfg.Burst = 2 * cfg.Rate
	}
	m := &metrics{
		writes:  prometheus.NewCounterVec(prometheus.CounterOpts{Name: "causeway_status_writes_total", Help: "Writes of objects' status, by kind and result."}, []string{"kind", "result"}),
		pending: prometheus.NewGauge(prometheus.GaugeOpts{Name: "causeway_status_pending", Help: "Objects whose status has to be looked at."}),
		delay:   prometheus.NewHistogram(prometheus.HistogramOpts{Name: "causeway_status_delay_seconds", Help: "Time from the change that called for a write until it was done.", Buckets: prometheus.ExponentialBuckets(0.001, 4, 8)}),
	}
	if cfg.Registerer != nil {
		for _, c := range []prometheus.Collector{m.writes, m.pending, m.delay} {
			if err := cfg.Registerer.Register(c); err != nil {
				return nil, fmt.Errorf("status writer: register metrics: %w", err)
			}
		}
	}
	return &Writer{
		cfg: cfg, limit: rate.NewLimiter(rate.Limit(cfg.Rate), cfg.Burst), metrics: m, wake: make(chan struct{}, 1),
		dirty: map[cluster.Ref]time.Time{}, waiting: map[cluster.Ref]time.Time{}, at: map[cluster.Ref]attempt{}, busy: map[cluster.Ref]bool{},
		written: map[cluster.Ref]success{}, held: map[cluster.Ref]*held{},
	}, nil
}

// Touch says that objects have to be looked at: Live has changed.
func (w *Writer) Touch(refs []cluster.Ref) {
	w.mu.Lock()
	defer w.mu.Unlock()
	w.mark(refs)
}

// Judged says that there are new verdicts: those on refs differ, and others may be
// on newer generations.
func (w *Writer) Judged(refs []cluster.Ref) {
	w.mu.Lock()
	defer w.mu.Unlock()
	for ref, since := range w.waiting {
		w.dirty[ref] = since
	}
	clear(w.waiting)
	w.mark(refs)
}

func (w *Writer) mark(refs []cluster.Ref) {
	for _, ref := range refs {
		if _, ok := w.dirty[ref]; !ok {
			w.dirty[ref] = time.Now()
		}
	}
	w.metrics.pending.Set(float64(len(w.dirty)))
	w.poke()
}

func (w *Writer) poke() {
	select {
	case w.wake <- struct{}{}:
	default:
	}
}

// Run writes until ctx ends, and waits for the writes under way. What is dirty then
// stays dirty for the next Run. It may be called again after it returned.
func (w *Writer) Run(ctx context.Context) error {
	w.mu.Lock()
	clear(w.at) // somebody else may have written meanwhile
	w.mu.Unlock()
	w.poke()
	var wg sync.WaitGroup
	defer wg.Wait()
	slots := make(chan struct{}, workers)
	for {
		select {
		case <-ctx.Done():
			return nil
		case <-w.wake:
		}
		for {
			ref, since, ok := w.next()
			if !ok {
				break
			}
			select {
			case slots <- struct{}{}:
			case <-ctx.Done():
				w.done(ref)
				w.Touch([]cluster.Ref{ref})
				return nil
			}
			wg.Go(func() {
				defer func() { <-slots }()
				w.see(ctx, ref, since)
				w.done(ref)
			})
		}
	}
}

// next takes an object that nobody is at: first those that have waited for their pace, which
// would wait a second time behind all the routes that changed with them.
func (w *Writer) next() (cluster.Ref, time.Time, bool) {
	w.mu.Lock()
	defer w.mu.Unlock()
	for i, ref := range w.ripe {
		if _, ok := w.dirty[ref]; ok && !w.busy[ref] {
			w.ripe = slices.Delete(w.ripe, 0, i+1)
			return ref, w.take(ref), true
		}
	}
	w.ripe = nil
	for ref := range w.dirty {
		if !w.busy[ref] {
			return ref, w.take(ref), true
		}
	}
	return cluster.Ref{}, time.Time{}, false
}

// take makes an object busy, and gives since when it is dirty.
func (w *Writer) take(ref cluster.Ref) time.Time {
	since := w.dirty[ref]
	w.busy[ref] = true
	delete(w.dirty, ref)
	w.metrics.pending.Set(float64(len(w.dirty)))
	return since
}

func (w *Writer) done(ref cluster.Ref) {
	w.mu.Lock()
	defer w.mu.Unlock()
	delete(w.busy, ref)
	if _, again := w.dirty[ref]; again {
		w.poke()
	}
}

// see looks at one object and writes if there is something to write.
func (w *Writer) see(ctx context.Context, ref cluster.Ref, since time.Time) {
	live, ok := w.cfg.Live(ref)
	if !ok {
		w.mu.Lock()
		delete(w.at, ref)
		delete(w.written, ref)
		w.drop(ref)
		w.mu.Unlock()
		return // it is gone, or not there yet: its arrival touches it
	}
	verdict, ok := w.cfg.Judge(ref)
	if verdict != nil && verdict.Generation == 0 {
		current := *verdict
		current.Generation = live.Generation
		verdict = &current
	}
	if !ok || verdict != nil && verdict.Generation != live.Generation {
		// One of the two lags behind: the next verdict or the next Live tells.
		w.mu.Lock()
		w.waiting[ref] = since
		w.mu.Unlock()
		return
	}
	w.mu.Lock()
	last := w.at[ref]
	if last.version != live.ResourceVersion {
		delete(w.at, ref)
		last = attempt{}
	}
	w.mu.Unlock()
	if left := echo - time.Since(last.when); last.version != "" && last.tries == 0 && left > 0 {
		time.AfterFunc(left, func() { w.Touch([]cluster.Ref{ref}) })
		return // written; Live will show it
	}
	patch, turns, err := Plan(live, verdict, time.Now())
	if err != nil {
		w.cfg.Logger.Error("status can't be planned", "object", ref, "error", err)
		return
	}
	if patch == nil {
		w.release(ref)
		return
	}
	pass, wait := w.hold(ref, live.Generation, since, turns)
	if wait {
		return
	}
	if w.limit.Wait(ctx) != nil {
		w.Touch([]cluster.Ref{ref})
		return
	}
	// A write that was begun is finished, though leadership may end meanwhile: it
	// names the version of the object, so it can do no harm.
	wctx, cancel := context.WithTimeout(context.WithoutCancel(ctx), writeTimeout)
	defer cancel()
	err = w.cfg.Patch(wctx, ref, patch, fieldManager)
	result := "written"
	next := attempt{version: live.ResourceVersion, when: time.Now()}
	switch {
	case err == nil:
		w.metrics.delay.Observe(time.Since(since).Seconds())
	case apierrors.IsConflict(err):
		result = "conflict" // a newer Live is on its way
	case apierrors.IsNotFound(err), errors.Is(err, kubernetes.ErrNotServed):
		result = "gone"
	default:
		result = "failed"
		next.tries = last.tries + 1
		pause := min(firstRetry<<min(last.tries, 10), longestRetry)
		w.cfg.Logger.Warn("status can't be written; it is tried again", "object", ref, "in", pause, "error", err)
		time.AfterFunc(pause, func() { w.Touch([]cluster.Ref{ref}) })
	}
	w.metrics.writes.WithLabelValues(string(ref.Kind), result).Inc()
	w.mu.Lock()
	w.at[ref] = next
	if err == nil {
		pass.when = next.when
		if pass.began.IsZero() {
			pass.began = next.when
		}
		w.written[ref] = pass
	}
	w.mu.Unlock()
}

// hold tells whether a write has to wait for the object's pace. When it has waited, the
// object is dirty again. If it need not wait, pass is what to remember of it once it went
// well, but for the time. turns: somebody may wait for it.
func (w *Writer) hold(ref cluster.Ref, generation int64, since time.Time, turns bool) (pass success, wait bool) {
	w.mu.Lock()
	defer w.mu.Unlock()
	last, h, now := w.written[ref], w.held[ref], time.Now()
	soonest := time.Time{}
	if turns && last.turned < spared {
		soonest = last.when.Add(turning.quiet)
	}
	switch {
	case last.generation != generation, h == nil && now.Sub(last.when) > soon && now.Sub(last.heard) > soon:
		w.drop(ref)
		return success{generation: generation}, false
	case h != nil && h.ripe, !soonest.IsZero() && !now.Before(soonest):
		w.drop(ref)
		if turns {
			last.turned++
		} else {
			last.told++
		}
		return last, false
	}
	if h == nil {
		h = &held{since: since, began: last.began}
		h.timer = time.AfterFunc(time.Hour, func() { w.ripen(ref, h) })
		w.held[ref] = h
	}
	h.heard, h.due = now, soonest
	h.pace, h.waited = telling, last.told
	if turns {
		h.pace, h.waited = turning, last.turned
	}
	h.timer.Reset(max(h.left(now), 0))
	return success{}, true
}

// release ends that an object waits which has waited for nothing. One that waits yet goes on:
// what turns to and fro is not new each time, nor is it when nothing was written for long
// because it happened to have turned back whenever it was looked at.
func (w *Writer) release(ref cluster.Ref) {
	w.mu.Lock()
	defer w.mu.Unlock()
	if h := w.held[ref]; h != nil && h.ripe {
		w.drop(ref)
		if last, ok := w.written[ref]; ok {
			last.heard = h.heard
			w.written[ref] = last
		}
	}
}

func (w *Writer) drop(ref cluster.Ref) {
	if h := w.held[ref]; h != nil {
		h.timer.Stop()
		delete(w.held, ref)
	}
}

// ripen lets a held object go once it is quiet, has waited long, or is far enough from its
// last write if somebody may wait for it.
func (w *Writer) ripen(ref cluster.Ref, h *held) {
	w.mu.Lock()
	defer w.mu.Unlock()
	if w.held[ref] != h || h.ripe {
		return
	}
	if left := h.left(time.Now()); left > 0 {
		h.timer.Reset(left)
		return
	}
	h.ripe = true
	w.dirty[ref] = h.since
	w.ripe = append(w.ripe, ref)
	w.poke()
}
