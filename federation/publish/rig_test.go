package publish_test

import (
	"context"
	"errors"
	"log/slog"
	"slices"
	"strings"
	"testing"
	"time"

	"github.com/prometheus/client_golang/prometheus"

	"github.com/causeway-mesh/causeway/cluster"
	"github.com/causeway-mesh/causeway/federation"
	"github.com/causeway-mesh/causeway/federation/publish"
	"github.com/causeway-mesh/causeway/federation/record"
	"github.com/causeway-mesh/causeway/federation/store"
	"github.com/causeway-mesh/causeway/federation/store/memory"
)

// rig is a Publisher at work on a store in memory, in synctest's time.
type rig struct {
	*testing.T
	mem *memory.Store
	pub *publish.Publisher
}

func open(t *testing.T) *memory.Store {
	t.Helper()
	mem, err := memory.New(memory.Config{})
	if err != nil {
		t.Fatal(err)
	}
	return mem
}

// start runs a Publisher on st until the test ends, or stop. It knows that there
// is no other cluster.
func start(t *testing.T, mem *memory.Store, st store.Store) (r *rig, stop func()) {
	t.Helper()
	r, stop = begin(t, mem, st)
	r.pub.Follow(peers(1, nil))
	return r, stop
}

// begin is start for a Publisher that knows nothing of others.
func begin(t *testing.T, mem *memory.Store, st store.Store) (r *rig, stop func()) {
	t.Helper()
	pub, err := publish.New(publish.Config{Cluster: east, Agent: "agent-0", Store: st, TTL: 3 * time.Second,
		Logger: slog.New(slog.NewTextHandler(t.Output(), nil)), Registerer: prometheus.NewRegistry()})
	if err != nil {
		t.Fatal(err)
	}
	ctx, cancel := context.WithCancel(t.Context())
	done := make(chan error, 1)
	go func() { done <- pub.Run(ctx) }()
	stopped := false
	stop = func() {
		if stopped {
			return
		}
		stopped = true
		cancel()
		if err := <-done; !errors.Is(err, context.Canceled) {
			t.Errorf("Run ended with %v", err)
		}
	}
	t.Cleanup(stop)
	return &rig{t, mem, pub}, stop
}

// peers is a Snapshot of other clusters, all dead, with their networks.
func peers(revision int64, networks map[cluster.ID]string) *federation.Snapshot {
	e := federation.NewBuilder().Edit()
	e.SetRevision(revision)
	for id, n := range networks {
		e.SetCluster(federation.Cluster{ID: id, Meta: cluster.Meta{Network: n}, Health: federation.Health{Liveness: federation.Dead}})
	}
	s, _ := e.Commit()
	return s
}

func (r *rig) deliver(b cluster.Batch) {
	r.Helper()
	if err := r.pub.Deliver(r.Context(), b); err != nil {
		r.Fatal(err)
	}
}

func full(objects ...*cluster.Object) cluster.Batch {
	b := changes(objects...)
	b.Meta, b.Synced = &cluster.Meta{Region: "eu"}, true
	return b
}

func changes(objects ...*cluster.Object) (b cluster.Batch) {
	for _, o := range objects {
		b.Events = append(b.Events, cluster.Event{Ref: o.Ref, Object: o})
	}
	return b
}

func gone(o *cluster.Object) cluster.Batch {
	return cluster.Batch{Events: []cluster.Event{{Ref: o.Ref}}}
}

func (r *rig) flush() int64 {
	r.Helper()
	ctx, cancel := context.WithTimeout(r.Context(), time.Minute)
	defer cancel()
	rev, err := r.pub.Flush(ctx)
	if err != nil {
		r.Fatal(err)
	}
	return rev
}

// at lists the cluster's keys without the prefix, liveness left out.
func (r *rig) at(rev int64) (keys []string, kvs map[string]store.KV) {
	r.Helper()
	list, _, err := r.mem.List(r.Context(), prefix, rev)
	if err != nil {
		r.Fatal(err)
	}
	kvs = map[string]store.KV{}
	for _, kv := range list {
		if k := strings.TrimPrefix(kv.Key, prefix); !strings.HasPrefix(k, "alive/") {
			keys, kvs[k] = append(keys, k), kv
		}
	}
	return keys, kvs
}

func (r *rig) want(rev int64, want ...string) map[string]store.KV {
	r.Helper()
	keys, kvs := r.at(rev)
	if !slices.Equal(keys, want) {
		r.Errorf("at revision %d the store has\n%q, not\n%q", rev, keys, want)
	}
	return kvs
}

func (r *rig) commit(ops ...store.Op) int64 {
	r.Helper()
	rev, err := r.mem.Commit(r.Context(), store.Txn{Ops: ops})
	if err != nil {
		r.Fatal(err)
	}
	return rev
}

func (r *rig) put(rec record.Record, err error) store.KV {
	r.Helper()
	if err != nil {
		r.Fatal(err)
	}
	rev := r.commit(store.Put(rec.Key, rec.Value))
	_, kvs := r.at(rev)
	return kvs[strings.TrimPrefix(rec.Key, prefix)]
}
