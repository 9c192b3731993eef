package federation_test

import (
	"bytes"
	"context"
	"errors"
	"fmt"
	"log/slog"
	"strings"
	"sync"
	"sync/atomic"
	"testing"
	"testing/synctest"
	"time"

	"github.com/prometheus/client_golang/prometheus"
	corev1 "k8s.io/api/core/v1"

	"github.com/causeway-mesh/causeway/cluster"
	"github.com/causeway-mesh/causeway/federation"
	"github.com/causeway-mesh/causeway/federation/record"
	"github.com/causeway-mesh/causeway/federation/record/recordtest"
	"github.com/causeway-mesh/causeway/federation/store"
	"github.com/causeway-mesh/causeway/federation/store/memory"
)

func newMemory(t *testing.T) *memory.Store {
	t.Helper()
	mem, err := memory.New(memory.Config{})
	if err != nil {
		t.Fatal(err)
	}
	return mem
}

// seen is a Snapshot with its ChangeSet as OnSnapshot got it.
type seen struct {
	*federation.Snapshot
	changes federation.ChangeSet
}

// loopRig is a Loop at work.
type loopRig struct {
	*federation.Loop
	t    *testing.T
	stop func()
	log  *bytes.Buffer

	mu   sync.Mutex
	seen []seen
	hold atomic.Pointer[chan struct{}] // OnSnapshot waits for it
}

func startLoop(t *testing.T, cfg federation.LoopConfig) *loopRig {
	t.Helper()
	r := &loopRig{t: t, log: &bytes.Buffer{}}
	cfg.Logger = slog.New(slog.NewTextHandler(&lockedWriter{w: r.log}, nil))
	cfg.Registerer = prometheus.NewRegistry()
	cfg.OnSnapshot = func(_ context.Context, s *federation.Snapshot, c federation.ChangeSet) {
		r.mu.Lock()
		r.seen = append(r.seen, seen{s, c})
		r.mu.Unlock()
		if ch := r.hold.Load(); ch != nil {
			<-*ch
		}
	}
	var err error
	if r.Loop, err = federation.NewLoop(cfg); err != nil {
		t.Fatal(err)
	}
	ctx, cancel := context.WithCancel(t.Context())
	done := make(chan error, 1)
	go func() { done <- r.Run(ctx) }()
	r.stop = sync.OnceFunc(func() {
		cancel()
		if err := <-done; !errors.Is(err, context.Canceled) {
			t.Errorf("Run ended with %v", err)
		}
	})
	t.Cleanup(r.stop)
	return r
}

type lockedWriter struct {
	mu sync.Mutex
	w  *bytes.Buffer
}

func (l *lockedWriter) Write(p []byte) (int, error) {
	l.mu.Lock()
	defer l.mu.Unlock()
	return l.w.Write(p)
}

func (r *loopRig) snapshots() []seen {
	r.mu.Lock()
	defer r.mu.Unlock()
	return append([]seen(nil), r.seen...)
}

func (r *loopRig) deliver(synced bool, objects ...*cluster.Object) {
	r.t.Helper()
	b := cluster.Batch{Synced: synced, Meta: &cluster.Meta{Region: "eu"}}
	for _, o := range objects {
		b.Events = append(b.Events, cluster.Event{Ref: o.Ref, Object: o})
	}
	if err := r.Deliver(r.t.Context(), b); err != nil {
		r.t.Fatal(err)
	}
}

// commit writes records and gives the revision.
func commit(t *testing.T, st store.Store, ops ...store.Op) int64 {
	t.Helper()
	rev, err := st.Commit(t.Context(), store.Txn{Ops: ops})
	if err != nil {
		t.Fatal(err)
	}
	return rev
}

func put(t *testing.T, r record.Record, err error) store.Op {
	t.Helper()
	if err != nil {
		t.Fatal(err)
	}
	return store.Put(r.Key, r.Value)
}

func putMeta(t *testing.T, id cluster.ID, region string) store.Op {
	t.Helper()
	r, err := record.EncodeMeta(id, cluster.Meta{Region: region})
	return put(t, r, err)
}

func putRoute(t *testing.T, id cluster.ID, name, path string) store.Op {
	t.Helper()
	r, err := record.EncodeObject(recordtest.Route(id, "app", name, 1, "a", "b", path))
	return put(t, r, err)
}

// has lists the clusters that have the route.
func has(s *federation.Snapshot, name string) (ids []cluster.ID) {
	for _, o := range s.Named(cluster.KindHTTPRoute, "app", name) {
		ids = append(ids, o.Cluster)
	}
	return ids
}

var ownRoute = recordtest.Route("east", "app", "own", 1, "a", "b", "/")

// The first Snapshot waits for source and store; then each change goes out at
// once, and only those that arrive while one is being served go together.
func TestPace(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		mem := newMemory(t)
		commit(t, mem, putMeta(t, "west", "r"), putRoute(t, "west", "r", "/"))
		r := startLoop(t, federation.LoopConfig{Local: "east", Store: mem})
		r.deliver(false, ownRoute)
		time.Sleep(time.Hour)
		if n := len(r.snapshots()); n != 0 || r.Snapshot() != nil || !strings.Contains(r.State().Waiting, "source") {
			t.Fatalf("%d snapshots before the source is synced, state %+v", n, r.State())
		}
		ctx, cancel := context.WithTimeout(t.Context(), time.Second)
		defer cancel()
		if err := r.Sync(ctx); err == nil || !strings.Contains(err.Error(), "source") {
			t.Errorf("Sync: %v", err)
		}
		began := time.Now()
		r.deliver(true)
		synctest.Wait()
		if s := r.snapshots(); len(s) != 1 || fmt.Sprint(has(s[0].Snapshot, "own"), has(s[0].Snapshot, "r")) != "[east] [west]" {
			t.Fatalf("first snapshots %+v", s)
		}

		block := make(chan struct{})
		r.hold.Store(&block)
		_, leases := r.Leases()
		rev := commit(t, mem, putRoute(t, "west", "r", "/1"))
		synctest.Wait()
		select {
		case <-leases:
			t.Error("a route woke who waits for leases")
		default:
		}
		if s := r.snapshots(); len(s) != 2 || s[1].Revision != rev || !s[1].changes.Has(federation.KeyNamed(cluster.KindHTTPRoute, "app", "r")) {
			t.Fatalf("the change led to %d snapshots", len(s))
		}
		for i := range 20 {
			rev = commit(t, mem, putRoute(t, "west", fmt.Sprintf("q%d", i), "/"))
			r.deliver(true, recordtest.Route("east", "app", fmt.Sprintf("p%d", i), 1, "a", "b", "/"))
			synctest.Wait()
		}
		if n := len(r.snapshots()); n != 2 {
			t.Fatalf("%d snapshots while one is being served", n)
		}
		ctx, cancel = context.WithTimeout(t.Context(), time.Nanosecond)
		defer cancel()
		if err := r.Await(ctx, rev); err == nil {
			t.Error("Await returned before the revision was served")
		}
		if time.Since(began) > time.Microsecond {
			t.Errorf("it took %v", time.Since(began))
		}
		r.hold.Store(nil)
		close(block)
		if err := r.Await(t.Context(), rev); err != nil {
			t.Fatal(err)
		}
		if err := r.Sync(t.Context()); err != nil {
			t.Fatal(err)
		}
		if s := r.snapshots(); len(s) != 3 || s[2].Revision != rev || len(s[2].OfKind(cluster.KindHTTPRoute)) != 42 {
			t.Errorf("%d snapshots, the last with %d routes", len(s), s[len(s)-1].Len())
		}
		time.Sleep(time.Hour)
		if n := len(r.snapshots()); n != 3 {
			t.Errorf("%d snapshots without a change", n)
		}
	})
}

// The local cluster's objects get their rank when the store has them, and lose
// it when they are withdrawn.
func TestOwnRank(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		mem := newMemory(t)
		r := startLoop(t, federation.LoopConfig{Local: "east", Store: mem})
		r.deliver(true, ownRoute)
		rank := func() int64 {
			synctest.Wait()
			o, ok := r.Snapshot().Get("east", cluster.KindHTTPRoute, "app", "own")
			if !ok {
				t.Fatal("the own route is gone")
			}
			return o.Seniority.Revision
		}
		if got := rank(); got != 0 {
			t.Errorf("rank %d before it is published", got)
		}
		op := putRoute(t, "east", "own", "/other") // an older state of it: the source counts
		rev := commit(t, mem, op, putRoute(t, "east", "left-over", "/"))
		if got := rank(); got != rev {
			t.Errorf("rank %d, published at %d", got, rev)
		}
		if got := has(r.Snapshot(), "left-over"); got != nil {
			t.Errorf("a record of the own cluster became an object in %v", got)
		}
		commit(t, mem, putRoute(t, "east", "own", "/"))
		r.deliver(true, recordtest.Route("east", "app", "own", 1, "a", "b", "/new"))
		if got := rank(); got != rev {
			t.Errorf("rank %d after changes, published at %d", got, rev)
		}
		commit(t, mem, store.Delete(op.Key))
		if got := rank(); got != 0 {
			t.Errorf("rank %d after it was withdrawn", got)
		}
	})
}

// How the local cluster runs a Gateway is what it has published: every replica of its
// agent knows it.
func TestOwnRuns(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		mem := newMemory(t)
		r := startLoop(t, federation.LoopConfig{Local: "east", Store: mem})
		r.deliver(true, ownRoute)
		put := func(id cluster.ID, generation int64) store.Op {
			rec, err := record.EncodeObject(&cluster.Object{Cluster: id, Ref: cluster.Ref{Kind: cluster.KindGatewayRun, Namespace: "app", Name: "edge"}, Value: &cluster.GatewayRun{Home: "west", Generation: generation}})
			if err != nil {
				t.Fatal(err)
			}
			return store.Put(rec.Key, rec.Value)
		}
		run := func() int64 {
			synctest.Wait()
			o, ok := r.Snapshot().Get("east", cluster.KindGatewayRun, "app", "edge")
			if !ok {
				return 0
			}
			return o.Value.(*cluster.GatewayRun).Generation
		}
		op := put("east", 1)
		commit(t, mem, op)
		commit(t, mem, put("east", 2))
		if got := run(); got != 2 {
			t.Errorf("generation %d", got)
		}
		commit(t, mem, store.Delete(op.Key))
		if got := run(); got != 0 {
			t.Errorf("generation %d, though it is gone", got)
		}
	})
}

// Of what others have sealed, this cluster opens what is for it, and has it as a Secret of
// theirs for as long as it is there. What can't be opened is told of.
func TestSealedForThisCluster(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		mem := newMemory(t)
		r := startLoop(t, federation.LoopConfig{Local: "east", Store: mem, Unseal: func(from cluster.ID, ns, name string, s *cluster.SealedSecret) (*corev1.Secret, error) {
			if len(s.Sealed) == 0 {
				return nil, errors.New("nothing was sealed")
			}
			return &corev1.Secret{Data: map[string][]byte{"for": []byte(string(from) + "/" + ns + "/" + name)}}, nil
		}})
		r.deliver(true)
		put := func(from cluster.ID, name string, to cluster.ID, sealed ...byte) store.Op {
			rec, err := record.EncodeSealed(from, "app", name, to, &cluster.SealedSecret{Key: make([]byte, 32), Sealed: sealed})
			if err != nil {
				t.Fatal(err)
			}
			return store.Put(rec.Key, rec.Value)
		}
		meta, err := record.EncodeMeta("west", cluster.Meta{})
		if err != nil {
			t.Fatal(err)
		}
		mine := put("west", "a", "east", 1)
		commit(t, mem, store.Put(meta.Key, meta.Value), mine, put("west", "b", "north", 1), put("west", "c", "east"), put("east", "d", "west", 1))
		synctest.Wait()
		o, ok := r.Snapshot().Get("west", cluster.KindSecret, "app", "a")
		if !ok || string(o.Value.(*corev1.Secret).Data["for"]) != "west/app/a" {
			t.Errorf("it has %+v", o)
		}
		if n := len(r.Snapshot().OfKind(cluster.KindSecret)); n != 1 {
			t.Errorf("%d Secrets", n)
		}
		if _, ok := r.Snapshot().Get("east", cluster.KindSealedSecret, "app", cluster.SealedName("west", "d")); !ok {
			t.Error("what this cluster has sealed is not known to its other agents")
		}
		if p := r.Problems(); len(p) != 1 || !strings.Contains(p[0].Message, "nothing was sealed") || p[0].Object != "Secret/app/c" {
			t.Errorf("problems %+v", p)
		}
		commit(t, mem, store.Delete(mine.Key))
		synctest.Wait()
		if n := len(r.Snapshot().OfKind(cluster.KindSecret)); n != 0 {
			t.Errorf("%d Secrets after it was taken back", n)
		}
	})
}

// Whatever other clusters write, the rest of their state stays in use, and it is
// told what is wrong; the source's own problems are told beside it.
func TestProblemsAreTold(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		mem := newMemory(t)
		bad := store.ClustersPrefix + "west/routes/httproute/app/bad"
		commit(t, mem, putMeta(t, "west", "r"), putRoute(t, "west", "r", "/"), store.Put(bad, []byte("\xff")))
		r := startLoop(t, federation.LoopConfig{Local: "east", Store: mem})
		own := cluster.Problem{Cluster: "east", Where: "a.yaml:1", Message: "is wrong"}
		if err := r.Deliver(t.Context(), cluster.Batch{Problems: &[]cluster.Problem{own}, Synced: true}); err != nil {
			t.Fatal(err)
		}
		synctest.Wait()
		ps := r.Problems()
		if len(ps) != 2 || ps[0] != own || ps[1].Cluster != "west" || ps[1].Where != bad || ps[1].Object != "HTTPRoute/app/bad" {
			t.Errorf("problems %+v", ps)
		}
		if got := fmt.Sprint(has(r.Snapshot(), "r")); got != "[west]" {
			t.Errorf("the sound route is in %s", got)
		}
		commit(t, mem, putRoute(t, "west", "bad", "/"), store.Put(store.ClustersPrefix+"west/meta/cluster", []byte("\xff")))
		synctest.Wait()
		if ps := r.Problems(); len(ps) != 2 || ps[1].Where != store.ClustersPrefix+"west/meta/cluster" {
			t.Errorf("problems %+v", ps)
		}
		if got := fmt.Sprint(has(r.Snapshot(), "bad"), len(r.Snapshot().Clusters())); got != "[west] 2" {
			t.Errorf("a Meta that can't be read took the cluster away: %s", got)
		}
		if err := r.Deliver(t.Context(), cluster.Batch{Problems: &[]cluster.Problem{}}); err != nil {
			t.Fatal(err)
		}
		commit(t, mem, putMeta(t, "west", "r"))
		synctest.Wait()
		if ps := r.Problems(); len(ps) != 0 {
			t.Errorf("problems %+v after all were mended", ps)
		}
	})
}

func TestLoopConfig(t *testing.T) {
	mem, lg := newMemory(t), slog.New(slog.DiscardHandler)
	for name, cfg := range map[string]federation.LoopConfig{
		"cluster":    {Local: "East", Store: mem, Logger: lg, Registerer: prometheus.NewRegistry()},
		"store":      {Logger: lg, Registerer: prometheus.NewRegistry()},
		"logger":     {Store: mem, Registerer: prometheus.NewRegistry()},
		"registerer": {Store: mem, Logger: lg},
		"grace":      {Store: mem, Logger: lg, Registerer: prometheus.NewRegistry(), StoreGrace: -1},
	} {
		if _, err := federation.NewLoop(cfg); err == nil {
			t.Errorf("%s: was taken", name)
		}
	}
	hub, err := federation.NewLoop(federation.LoopConfig{Store: mem, Logger: lg, Registerer: prometheus.NewRegistry()})
	if err != nil {
		t.Fatal(err)
	}
	if err := hub.Deliver(t.Context(), cluster.Batch{}); err == nil {
		t.Error("a hub took a batch")
	}
}
