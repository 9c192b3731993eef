package federation_test

import (
	"context"
	"errors"
	"fmt"
	"log/slog"
	"path/filepath"
	"slices"
	"strings"
	"sync"
	"testing"
	"time"

	"github.com/prometheus/client_golang/prometheus"
	"golang.org/x/sync/errgroup"

	"github.com/causeway-mesh/causeway/cluster"
	"github.com/causeway-mesh/causeway/federation"
	"github.com/causeway-mesh/causeway/federation/publish"
	"github.com/causeway-mesh/causeway/federation/record"
	"github.com/causeway-mesh/causeway/federation/record/recordtest"
	"github.com/causeway-mesh/causeway/federation/store"
	"github.com/causeway-mesh/causeway/federation/store/etcd"
	"github.com/causeway-mesh/causeway/federation/store/etcd/etcdtest"
	"github.com/causeway-mesh/causeway/federation/store/memory"
)

// site is a cluster's way to the store, which a test can cut. It keeps the
// contract: a watch goes on after the cut where it was.
type site struct {
	store.Store
	mu   sync.Mutex
	down bool
	flip chan struct{} // closed and replaced when down changes
}

func (s *site) cut(down bool) {
	s.mu.Lock()
	defer s.mu.Unlock()
	s.down = down
	close(s.flip)
	s.flip = make(chan struct{})
}

// while runs f with a context that ends when the way is cut; false: it was.
func (s *site) while(ctx context.Context, f func(context.Context) error) (bool, error) {
	s.mu.Lock()
	down, flip := s.down, s.flip
	s.mu.Unlock()
	if down {
		return false, store.ErrUnavailable
	}
	inner, cancel := context.WithCancel(ctx)
	defer cancel()
	go func() {
		select {
		case <-flip:
			cancel()
		case <-inner.Done():
		}
	}()
	err := f(inner)
	return ctx.Err() != nil || inner.Err() == nil, err
}

// again runs f until it ends by itself, over any number of cuts.
func (s *site) again(ctx context.Context, f func(context.Context) error) error {
	for {
		s.mu.Lock()
		down, flip := s.down, s.flip
		s.mu.Unlock()
		if down {
			select {
			case <-flip:
			case <-ctx.Done():
				return ctx.Err()
			}
			continue
		}
		if ok, err := s.while(ctx, f); ok {
			return err
		}
	}
}

func (s *site) List(ctx context.Context, prefix string, revision int64) (kvs []store.KV, rev int64, err error) {
	ok, err := s.while(ctx, func(ctx context.Context) (err error) {
		kvs, rev, err = s.Store.List(ctx, prefix, revision)
		return err
	})
	if !ok {
		return nil, 0, store.ErrUnavailable
	}
	return kvs, rev, err
}

func (s *site) Commit(ctx context.Context, txn store.Txn) (rev int64, err error) {
	ok, err := s.while(ctx, func(ctx context.Context) (err error) {
		rev, err = s.Store.Commit(ctx, txn)
		return err
	})
	if !ok {
		return 0, store.ErrUnavailable
	}
	return rev, err
}

func (s *site) Watch(ctx context.Context, prefix string, after int64, deliver func(store.Batch) error) error {
	return s.again(ctx, func(ctx context.Context) error {
		return s.Store.Watch(ctx, prefix, after, func(b store.Batch) error {
			after = b.Revision
			return deliver(b)
		})
	})
}

func (s *site) Hold(ctx context.Context, key string, value []byte, ttl time.Duration) error {
	return s.again(ctx, func(ctx context.Context) error { return s.Store.Hold(ctx, key, value, ttl) })
}

// member is one cluster's agent, as far as it matters here.
type member struct {
	id   cluster.ID
	site *site
	pub  *publish.Publisher
	loop *federation.Loop

	mu      sync.Mutex
	partial []string // Snapshots that lacked something they had to have
	must    []string
}

type story struct {
	*testing.T
	members map[cluster.ID]*member
}

func (s *story) join(id cluster.ID, st store.Store) {
	s.Helper()
	m := &member{id: id, site: &site{Store: st, flip: make(chan struct{})}}
	lg := slog.New(slog.NewTextHandler(s.Output(), nil)).With("at", string(id))
	var err error
	if m.pub, err = publish.New(publish.Config{Cluster: id, Agent: "agent-0", Store: m.site, TTL: 2 * time.Second, Logger: lg, Registerer: prometheus.NewRegistry()}); err != nil {
		s.Fatal(err)
	}
	if m.loop, err = federation.NewLoop(federation.LoopConfig{Local: id, Store: m.site, StoreTimeout: time.Second, Logger: lg, Registerer: prometheus.NewRegistry(),
		CopyPath: filepath.Join(s.TempDir(), "copy"), OnSnapshot: func(_ context.Context, snap *federation.Snapshot, _ federation.ChangeSet) {
			m.pub.Follow(snap)
			m.watch(snap)
		}}); err != nil {
		s.Fatal(err)
	}
	ctx, cancel := context.WithCancel(s.Context())
	g, ctx := errgroup.WithContext(ctx)
	g.Go(func() error { return m.pub.Run(ctx) })
	g.Go(func() error { return m.loop.Run(ctx) })
	s.Cleanup(func() {
		cancel()
		if err := g.Wait(); !errors.Is(err, context.Canceled) {
			s.Errorf("%s ended with %v", id, err)
		}
	})
	s.members[id] = m
	s.deliver(id, cluster.Batch{Meta: &cluster.Meta{Region: string(id), TrustDomain: string(id) + ".x"}, Synced: true})
	der := recordtest.Authority(s)
	m.loop.SetTrust(string(id)+".x", [][]byte{der})
	if err := m.pub.SetTrust(record.Trust{TrustDomain: string(id) + ".x", Authorities: [][]byte{der}}); err != nil {
		s.Fatal(err)
	}
}

// watch looks at each Snapshot for what may never be missing.
func (m *member) watch(s *federation.Snapshot) {
	m.mu.Lock()
	defer m.mu.Unlock()
	all := view(s)
	for _, line := range m.must {
		if !strings.Contains(all, line+"\n") {
			m.partial = append(m.partial, fmt.Sprintf("revision %d lacks %s", s.Revision, line))
		}
	}
}

func (s *story) must(lines ...string) {
	for _, m := range s.members {
		m.mu.Lock()
		m.must = lines
		m.mu.Unlock()
	}
}

func (s *story) deliver(id cluster.ID, b cluster.Batch) {
	s.Helper()
	m := s.members[id]
	if err := errors.Join(m.pub.Deliver(s.Context(), b), m.loop.Deliver(s.Context(), b)); err != nil {
		s.Fatal(err)
	}
}

func (s *story) has(objects ...*cluster.Object) {
	s.Helper()
	for _, o := range objects {
		s.deliver(o.Cluster, cluster.Batch{Events: []cluster.Event{{Ref: o.Ref, Object: o}}})
	}
}

func (s *story) gone(objects ...*cluster.Object) {
	s.Helper()
	for _, o := range objects {
		s.deliver(o.Cluster, cluster.Batch{Events: []cluster.Event{{Ref: o.Ref}}})
	}
}

// settle waits until what all delivered is in the store and in all Snapshots.
func (s *story) settle() {
	s.Helper()
	ctx, cancel := context.WithTimeout(s.Context(), time.Minute)
	defer cancel()
	newest := int64(0)
	for _, m := range s.members {
		rev, err := m.pub.Flush(ctx)
		if err != nil {
			s.Fatalf("%s: %v", m.id, err)
		}
		newest = max(newest, rev)
	}
	for _, m := range s.members {
		if err := errors.Join(m.loop.Sync(ctx), m.loop.Await(ctx, newest)); err != nil {
			s.Fatalf("%s: %v", m.id, err)
		}
	}
}

// view is a Snapshot as text: what all clusters must agree on.
func view(s *federation.Snapshot) string {
	var b strings.Builder
	for _, c := range s.Clusters() {
		fmt.Fprintf(&b, "%s %s\n", c.ID, c.Meta.Region)
	}
	for _, kind := range []cluster.Kind{cluster.KindServiceExport, cluster.KindHTTPRoute, cluster.KindEndpointSlice} {
		for _, o := range s.OfKind(kind) {
			fmt.Fprintf(&b, "%s %s\n", o.Cluster, o.Ref)
		}
	}
	for _, td := range []string{"east.x", "north.x", "west.x"} {
		fmt.Fprintf(&b, "trust %s %d\n", td, len(s.Trust()[td]))
	}
	return b.String()
}

func (s *story) agree(want ...string) {
	s.Helper()
	for _, m := range s.members {
		got := strings.Split(strings.TrimSpace(view(m.loop.Snapshot())), "\n")
		if !slices.Equal(got, want) {
			s.Errorf("%s sees\n%q, not\n%q", m.id, got, want)
		}
	}
}

// eventually retries until f is content.
func (s *story) eventually(what string, f func() bool) {
	s.Helper()
	for end := time.Now().Add(time.Minute); !f(); time.Sleep(10 * time.Millisecond) {
		if time.Now().After(end) {
			s.Fatalf("not within a minute: %s", what)
		}
	}
}

func (m *member) health(of cluster.ID) federation.Liveness {
	c, _ := m.loop.Snapshot().Cluster(of)
	return c.Health.Liveness
}

// Three clusters join, export, lose each other, change meanwhile, and find
// together again; then the store itself goes away and comes back.
func TestStory(t *testing.T) {
	t.Run("memory", func(t *testing.T) {
		t.Parallel()
		mem, err := memory.New(memory.Config{ProgressInterval: 100 * time.Millisecond})
		if err != nil {
			t.Fatal(err)
		}
		tell(t, func(id cluster.ID) store.Store { return store.Guarded(mem, store.ClustersPrefix+string(id)+"/") },
			func(up bool) { mem.SetAvailable(up) })
	})
	t.Run("etcd", func(t *testing.T) {
		t.Parallel()
		srv := etcdtest.Start(t, "east", "north", "west")
		tell(t, func(id cluster.ID) store.Store { return srv.Connect(t, etcd.AgentUser(string(id))) },
			func(up bool) {
				if !up {
					srv.Stop()
				} else if err := srv.Start(t.Context()); err != nil {
					t.Fatal(err)
				}
			})
	})
}

func tell(t *testing.T, connect func(cluster.ID) store.Store, available func(bool)) {
	s := &story{T: t, members: map[cluster.ID]*member{}}
	export := func(id cluster.ID, age int) []*cluster.Object {
		return []*cluster.Object{recordtest.Service(id, "app", "a", age, 80), recordtest.Slice(id, "app", "a", "a-"+string(id), age, 3), recordtest.Export(id, "app", "a", age, "1")}
	}
	for _, id := range []cluster.ID{"east", "north", "west"} {
		s.join(id, connect(id))
	}
	east, west := s.members["east"], s.members["west"]
	s.settle()
	s.agree("east east", "north north", "west west", "trust east.x 1", "trust north.x 1", "trust west.x 1")

	// Export; a route written once.
	s.has(export("east", 5)...)
	s.has(recordtest.Route("east", "app", "r", 3, "a", "b", "/"))
	s.settle()
	s.has(export("west", 1)...) // older by its own clock, later in the store
	s.settle()
	base := []string{"east east", "north north", "west west",
		"east ServiceExport/app/a", "west ServiceExport/app/a", "east HTTPRoute/app/r",
		"east EndpointSlice/app/a-east", "west EndpointSlice/app/a-west", "trust east.x 1", "trust north.x 1", "trust west.x 1"}
	s.agree(base...)
	for _, m := range s.members {
		exports := m.loop.Snapshot().Named(cluster.KindServiceExport, "app", "a")
		if len(exports) != 2 || !cluster.Older(exports[0], exports[1]) || exports[0].Seniority.Revision == 0 {
			t.Errorf("%s ranks %v", m.id, exports)
		}
	}
	s.must("west ServiceExport/app/a", "west EndpointSlice/app/a-west", "east ServiceExport/app/a", "west west")

	// West loses the store: it is suspected, and nothing else.
	west.site.cut(true)
	s.eventually("east suspects west", func() bool { return east.health("west") == federation.Suspect })
	s.eventually("west notices", func() bool { return !west.loop.Connected() })
	if h := west.health("east"); h != federation.Alive {
		t.Errorf("west, cut off, holds east for %s", h)
	}
	s.agree(base...)
	s.has(recordtest.Route("west", "app", "meanwhile", 4, "a", "b", "/"))
	s.gone(recordtest.Route("east", "app", "r", 3, "a", "b", "/"))
	s.has(recordtest.Route("east", "app", "s", 6, "a", "b", "/"))
	if err := west.loop.Sync(t.Context()); err != nil || len(has(west.loop.Snapshot(), "meanwhile")) != 1 {
		t.Errorf("west doesn't see its own change while it is cut off: %v", err)
	}
	if st := west.pub.State(); st.Current {
		t.Errorf("west's publisher believes that all is written: %+v", st)
	}

	// It comes back.
	west.site.cut(false)
	s.eventually("west is alive", func() bool { return east.health("west") == federation.Alive })
	s.settle()
	after := slices.Replace(slices.Clone(base), 5, 6, "west HTTPRoute/app/meanwhile", "east HTTPRoute/app/s")
	s.agree(after...)

	// The store goes away and comes back.
	available(false)
	s.eventually("all notice", func() bool { return !east.loop.Connected() && !west.loop.Connected() })
	s.agree(after...)
	s.gone(recordtest.Route("west", "app", "meanwhile", 4, "a", "b", "/"))
	available(true)
	s.settle()
	s.agree(slices.Delete(slices.Clone(after), 5, 6)...)

	for _, m := range s.members {
		m.mu.Lock()
		if len(m.partial) > 0 {
			t.Errorf("%s saw less than there was all the time: %q", m.id, m.partial)
		}
		m.mu.Unlock()
		if ps := m.loop.Problems(); len(ps) > 0 {
			t.Errorf("%s: problems %+v", m.id, ps)
		}
		if st := m.pub.State(); st.Conflicts > 0 {
			t.Errorf("%s: %d conflicts", m.id, st.Conflicts)
		}
	}
}
