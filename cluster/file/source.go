// Package file is the cluster that is a folder of Kubernetes manifests. Its
// Source reads the folder as `kubectl apply` and an API server with the Gateway
// API (experimental channel) and the Multi-Cluster Services API installed
// would: strictly, with defaults and validation, so a manifest that works here
// works there. It watches the folder, and with a workload manager it delivers
// the EndpointSlices of the Deployments too.
//
// It guarantees that
//
//   - the first batch is the whole folder; each later one holds all that one
//     look at the folder found, and only objects whose value has changed;
//   - nothing in the folder stops the rest: what is wrong becomes a Problem with
//     file, line and object, and what was good before stays as it was, while its
//     document is broken, its file can't be read or the folder is away;
//   - an edit takes effect at once, except that one which takes objects away or
//     breaks a file must rest for 50 ms first, since it may be half written.
//
// cmd/causeway is the caller. cluster/kubernetes is the same for a real cluster.
package file

import (
	"context"
	"errors"
	"fmt"
	"log/slog"
	"maps"
	"os"
	"path/filepath"
	"reflect"
	"slices"
	"time"

	"github.com/fsnotify/fsnotify"
	"github.com/prometheus/client_golang/prometheus"

	"github.com/causeway-mesh/causeway/cluster"
	"github.com/causeway-mesh/causeway/cluster/workload"
)

// Config of a Source. Cluster, Dir and Logger are required.
type Config struct {
	Cluster cluster.ID
	// Dir is the cluster's folder; Prefix is put before the names of its files
	// in messages and origins.
	Dir    string
	Prefix string
	Logger *slog.Logger
	// Schemas may be shared by the sources of one process, to save the time and
	// memory of compiling them; nil makes one.
	Schemas *Schemas
	// Workloads runs the cluster's Deployments; nil leaves them out. The Source
	// owns it from Run on and closes it.
	Workloads *workload.Manager
	// Meta, if not nil, completes what cluster.yaml says. It is called at every
	// look at the folder, from Run's goroutine, and must return at once.
	Meta func(cluster.Meta) cluster.Meta
	// Registerer takes the metrics, if not nil.
	Registerer prometheus.Registerer
	// Poll is the time between two looks when the system reports no change; 2 s
	// if zero.
	Poll time.Duration
	// Bounds; 5000 files, 4 MiB and 50000 objects if zero.
	MaxFiles, MaxFileBytes, MaxObjects int
}

// Source is a cluster.Source.
type Source struct {
	cfg   Config
	log   *slog.Logger
	syncs chan *syncRequest
	done  chan struct{}

	// The rest belongs to Run's goroutine.
	files     files
	ages      ages
	delivered map[cluster.Ref]*cluster.Object
	read      map[cluster.Ref]*cluster.Object // what the files say
	made      workload.Result                 // and what runs of it
	found     []placed
	said      cluster.Meta  // by cluster.yaml
	meta      *cluster.Meta // as delivered
	problems  []cluster.Problem
	outage    string // why the folder is out of reach
	synced    bool
	waiting   []*syncRequest
	metrics   metrics
}

// syncRequest waits for held, the files that were about to change when it was
// first seen to.
type syncRequest struct {
	seen  bool
	held  map[string]time.Time
	reply chan struct{}
}

var errStopped = errors.New("the source has stopped")

// New validates the configuration. It reads nothing yet.
func New(cfg Config) (*Source, error) {
	if err := cfg.Cluster.Validate(); err != nil {
		return nil, fmt.Errorf("file source: %w", err)
	}
	if cfg.Logger == nil {
		return nil, errors.New("file source: Logger is required")
	}
	info, err := os.Stat(cfg.Dir)
	if err != nil {
		return nil, fmt.Errorf("folder of cluster %s: %w", cfg.Cluster, err)
	}
	if !info.IsDir() {
		return nil, fmt.Errorf("folder of cluster %s: %s is not a folder", cfg.Cluster, cfg.Dir)
	}
	if cfg.Poll < 0 || cfg.MaxFiles < 0 || cfg.MaxFileBytes < 0 || cfg.MaxObjects < 0 {
		return nil, errors.New("file source: Poll and bounds can't be negative")
	}
	cfg.Poll = orDefault(cfg.Poll, 2*time.Second)
	cfg.MaxFiles = orDefault(cfg.MaxFiles, 5000)
	cfg.MaxFileBytes = orDefault(cfg.MaxFileBytes, 4<<20)
	cfg.MaxObjects = orDefault(cfg.MaxObjects, 50_000)
	if cfg.Schemas == nil {
		cfg.Schemas = NewSchemas()
	}
	m, err := newMetrics(cfg.Registerer, cfg.Cluster)
	if err != nil {
		return nil, fmt.Errorf("file source of cluster %s: %w", cfg.Cluster, err)
	}
	return &Source{
		cfg: cfg, log: cfg.Logger, metrics: m,
		syncs: make(chan *syncRequest), done: make(chan struct{}),
		files: files{
			reader:   &reader{schemas: cfg.Schemas, maxObjects: cfg.MaxObjects},
			maxFiles: cfg.MaxFiles, maxBytes: cfg.MaxFileBytes, byPath: map[string]*tracked{},
		},
	}, nil
}

func orDefault[T int | time.Duration](v, otherwise T) T {
	if v == 0 {
		return otherwise
	}
	return v
}

// Sync implements cluster.Source: it looks at the folder anew and returns once
// what it found has been delivered, which includes edits that have to rest
// first. It waits for Run to start.
func (s *Source) Sync(ctx context.Context) error {
	r := &syncRequest{reply: make(chan struct{})}
	select {
	case s.syncs <- r:
	case <-s.done:
		return errStopped
	case <-ctx.Done():
		return ctx.Err()
	}
	select {
	case <-r.reply:
		return nil
	case <-s.done:
		return errStopped
	case <-ctx.Done():
		return ctx.Err()
	}
}

// Run implements cluster.Source. It may be called once.
func (s *Source) Run(ctx context.Context, sink cluster.Sink) error {
	defer close(s.done)
	if s.cfg.Workloads != nil {
		defer func() {
			ctx, cancel := context.WithTimeout(context.WithoutCancel(ctx), time.Second)
			defer cancel()
			s.cfg.Workloads.Close(ctx)
		}()
	}
	var events chan fsnotify.Event
	var failures chan error
	visit := func(string) {}
	if w, err := fsnotify.NewWatcher(); err != nil {
		s.log.Warn("no notice of changes from the system; looking for them from time to time", "every", s.cfg.Poll, "error", err)
	} else {
		defer w.Close()
		events, failures = w.Events, w.Errors
		complained := false
		// A folder is watched anew at each look: it may be another one of the
		// same name by now, and the system takes a second watch for the first.
		visit = func(dir string) {
			if err := w.Add(filepath.Join(s.cfg.Dir, filepath.FromSlash(dir))); err != nil && !errors.Is(err, os.ErrNotExist) && !complained {
				complained = true
				s.log.Warn("no notice of changes to a folder from the system; looking for them from time to time", "folder", dir, "every", s.cfg.Poll, "error", err)
			}
		}
	}
	for {
		started := time.Now()
		if err := s.look(ctx, sink, visit); err != nil {
			if ctx.Err() != nil {
				return nil
			}
			return err
		}
		s.answer()
		if !s.wait(ctx, time.Until(s.next(started)), events, failures) {
			return nil
		}
	}
}

// wait returns when there is a reason to look, or false when the context ends.
func (s *Source) wait(ctx context.Context, most time.Duration, events chan fsnotify.Event, failures chan error) bool {
	timer := time.NewTimer(most)
	defer timer.Stop()
	for {
		select {
		case <-ctx.Done():
			return false
		case <-timer.C:
		case r := <-s.syncs:
			s.waiting = append(s.waiting, r)
		case err := <-failures: // the look finds what the lost events told
			s.log.Debug("notices of changes were lost", "error", err)
		case e := <-events:
			if idle(e) {
				continue
			}
		}
		drain(events)
		return true
	}
}

// idle tells writing to what isn't a manifest, such as a log beside them.
func idle(e fsnotify.Event) bool {
	base := filepath.Base(e.Name)
	return e.Op&^(fsnotify.Write|fsnotify.Chmod) == 0 && (skipped(base) || !manifest(base))
}

// drain forgets events whose effects the coming look sees anyway.
func drain(events chan fsnotify.Event) {
	for {
		select {
		case <-events:
		default:
			return
		}
	}
}

// next is the time of the next look.
func (s *Source) next(started time.Time) time.Time {
	next := started.Add(s.cfg.Poll)
	times := []time.Time{s.files.due()}
	if s.cfg.Workloads != nil {
		times = append(times, s.cfg.Workloads.Next())
	}
	for _, t := range times {
		if !t.IsZero() && t.Before(next) {
			next = t
		}
	}
	return next
}

// answer replies to those whose changes have been delivered.
func (s *Source) answer() {
	held := s.files.held()
	s.waiting = slices.DeleteFunc(s.waiting, func(r *syncRequest) bool {
		if !s.synced {
			return false
		}
		if !r.seen {
			r.seen, r.held = true, held
		}
		for name, since := range r.held {
			if now, still := held[name]; still && now.Equal(since) {
				return false
			}
		}
		close(r.reply)
		return true
	})
}

// look reads the folder and delivers what has changed.
func (s *Source) look(ctx context.Context, sink cluster.Sink, visit func(string)) error {
	now := time.Now()
	changed, err := s.files.scan(s.cfg.Dir, now, visit)
	s.metrics.seconds.Observe(time.Since(now).Seconds())
	outage := ""
	if err != nil {
		outage = "the folder can't be read, so its last good state is kept: " + reason(err)
	}
	changed = changed || outage != s.outage
	s.outage = outage
	if !s.synced && len(s.files.held()) > 0 {
		return nil // the first full set is worth the wait
	}
	switch {
	case changed || !s.synced:
		a := assemble(s.files.byPath, s.cfg.MaxObjects)
		s.found, s.said = slices.Concat(a.problems, s.files.walk), a.meta
		if outage != "" {
			s.found = append(s.found, placed{"", problem{message: outage}})
		}
		if outage != "" && !s.synced {
			break // not a single good look yet: an empty cluster would be a lie
		}
		var in workload.Input
		s.read, in = s.objects(a, now)
		if s.cfg.Workloads != nil {
			s.made = s.cfg.Workloads.Apply(in)
		}
		changed = true
	case s.cfg.Workloads != nil && s.cfg.Workloads.Tick():
		s.made = s.cfg.Workloads.Result()
		changed = true
	}
	return s.deliver(ctx, sink, changed)
}

// deliver sends a batch, if there is anything to say.
func (s *Source) deliver(ctx context.Context, sink cluster.Sink, changed bool) error {
	var b cluster.Batch
	first := !s.synced
	b.Synced = s.synced || s.outage == ""
	want := s.delivered
	if changed {
		if b.Synced {
			want = maps.Clone(s.read)
			for _, o := range s.made.Slices {
				made := *o
				made.Seniority = want[cluster.Ref{Kind: cluster.KindService, Namespace: o.Namespace, Name: o.Value.(*cluster.EndpointSlice).Service}].Seniority
				want[o.Ref] = &made
			}
			b.Events = changes(s.delivered, want, same)
		}
		if problems := s.report(s.found, s.made.Problems); first || !slices.Equal(problems, s.problems) {
			b.Problems = &problems
		}
	}
	if b.Synced {
		meta := s.said
		if s.cfg.Meta != nil {
			meta = s.cfg.Meta(meta)
		}
		if s.meta == nil || !meta.Equal(*s.meta) {
			b.Meta = &meta
		}
	}
	if len(b.Events) > 0 || b.Problems != nil || b.Meta != nil {
		if err := sink.Deliver(ctx, b); err != nil {
			return fmt.Errorf("deliver the changes of cluster %s: %w", s.cfg.Cluster, err)
		}
	}
	s.delivered, s.synced = want, b.Synced
	if b.Meta != nil {
		s.meta = b.Meta
	}
	if b.Problems != nil {
		s.logProblems(*b.Problems)
		s.problems = *b.Problems
	}
	s.metrics.objects.Set(float64(len(s.delivered)))
	s.metrics.problems.Set(float64(len(s.problems)))
	if changed && s.synced && s.cfg.Workloads != nil {
		s.cfg.Workloads.Delivered()
	}
	return nil
}

// same reports whether a person would say that the object is as it was.
func same(a, b *cluster.Object) bool {
	return a.Seniority.Created.Equal(b.Seniority.Created) && fileOf(a.Origin) == fileOf(b.Origin) && reflect.DeepEqual(a.Value, b.Value)
}

// logProblems tells what has come and gone.
func (s *Source) logProblems(now []cluster.Problem) {
	before := map[cluster.Problem]bool{}
	for _, p := range s.problems {
		before[p] = true
	}
	for _, p := range now {
		if !before[p] {
			s.log.Warn("problem", "cluster", p.Cluster, "where", p.Where, "object", p.Object, "message", p.Message)
		}
		delete(before, p)
	}
	for _, p := range s.problems {
		if before[p] {
			s.log.Info("problem is gone", "cluster", p.Cluster, "where", p.Where, "object", p.Object, "message", p.Message)
		}
	}
}
