package publish_test

import (
	"context"
	"errors"
	"fmt"
	"reflect"
	"slices"
	"strings"
	"sync/atomic"
	"testing"
	"testing/synctest"
	"time"

	gatewayv1 "sigs.k8s.io/gateway-api/apis/v1"

	"github.com/causeway-mesh/causeway/cluster"
	"github.com/causeway-mesh/causeway/federation/record"
	"github.com/causeway-mesh/causeway/federation/record/recordtest"
	"github.com/causeway-mesh/causeway/federation/store"
	"github.com/causeway-mesh/causeway/federation/store/memory"
)

const (
	east   cluster.ID = "east"
	prefix            = store.ClustersPrefix + "east/"
)

var (
	svc   = recordtest.Service(east, "app", "a", 1, 80)
	exp   = recordtest.Export(east, "app", "a", 2, "1")
	slice = recordtest.Slice(east, "app", "a", "a-1", 3, 4)
	route = recordtest.Route(east, "app", "r", 4, "a", "b", "/")
)

// A Service, its slices and its namespace come and go with what makes them
// public, each time in one revision; what isn't exported never crosses.
func TestExportAndWithdraw(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		mem := open(t)
		r, _ := start(t, mem, store.Guarded(mem, prefix))
		hidden := recordtest.Service(east, "app", "hidden", 1, 80)
		r.deliver(full(svc, slice, hidden, recordtest.Secret(east, "app", "s", 1, "x"), recordtest.Namespace(east, "app", 1, "v")))
		r.want(r.flush(), "meta/cluster")

		r.deliver(changes(exp))
		rev := r.flush()
		kvs := r.want(rev, "endpoints/app/a/a-1", "meta/cluster", "services/app/a")
		if a, b := kvs["endpoints/app/a/a-1"].ModRevision, kvs["services/app/a"].ModRevision; a != rev || b != rev {
			t.Errorf("service and slices were published at %d and %d, not at %d together", b, a, rev)
		}
		r.deliver(changes(route))
		r.want(r.flush(), "endpoints/app/a/a-1", "meta/cluster", "namespaces/app", "routes/httproute/app/r", "services/app/a")

		before := r.flush()
		r.deliver(gone(exp))
		if rev = r.flush(); rev != before+1 {
			t.Errorf("the export was withdrawn in %d transactions", rev-before)
		}
		r.want(rev, "meta/cluster", "namespaces/app", "routes/httproute/app/r")
		r.deliver(gone(route))
		r.want(r.flush(), "meta/cluster")

		before = r.flush()
		r.deliver(changes(hidden, recordtest.Secret(east, "app", "s", 2, "y")))
		if rev = r.flush(); rev != before {
			t.Error("a change of what isn't published wrote something")
		}
	})
}

// A policy crosses while a Service that it targets is exported, and of the ConfigMap
// that it names the certificates; each goes with what it was there for.
func TestPoliciesGoWithTheExport(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		mem := open(t)
		r, _ := start(t, mem, store.Guarded(mem, prefix))
		policy, ca := recordtest.Policy(east, "app", "p", 9, "a", "ca"), recordtest.ConfigMap(east, "app", "ca", 9, recordtest.CA)
		r.deliver(full(svc, policy, ca, recordtest.ConfigMap(east, "app", "other", 1, recordtest.CA), recordtest.Policy(east, "app", "q", 1, "hidden", "other")))
		r.want(r.flush(), "meta/cluster")

		r.deliver(changes(exp))
		rev := r.flush()
		kvs := r.want(rev, "meta/cluster", "policies/backendtlspolicy/app/p", "policies/configmap/app/ca", "services/app/a")
		for key, kv := range kvs {
			if strings.Contains(string(kv.Value), "stay at home") {
				t.Errorf("%s has more than certificates: %s", key, kv.Value)
			}
			if key != "meta/cluster" && kv.ModRevision != rev {
				t.Errorf("%s was published at %d, not at %d with the Service", key, kv.ModRevision, rev)
			}
		}

		r.deliver(changes(recordtest.ConfigMap(east, "app", "ca", 9, "none left")))
		r.want(r.flush(), "meta/cluster", "policies/backendtlspolicy/app/p", "services/app/a")
		r.deliver(changes(ca, recordtest.Policy(east, "app", "p", 9, "a", "other")))
		r.want(r.flush(), "meta/cluster", "policies/backendtlspolicy/app/p", "policies/configmap/app/other", "services/app/a")

		// A key that must not leave: what the others have is kept, and it is told.
		before := r.flush()
		r.deliver(changes(recordtest.ConfigMap(east, "app", "other", 1, recordtest.CA+"-----BEGIN PRIVATE KEY-----")))
		if rev := r.flush(); rev != before {
			t.Error("something was written")
		}
		if p := r.pub.Problems(); len(p) != 1 || p[0].Object != "ConfigMap/app/other" || p[0].Where != "other.yaml:1" || !strings.Contains(p[0].Message, "private key") {
			t.Errorf("problems %+v", p)
		}

		r.deliver(gone(policy))
		r.want(r.flush(), "meta/cluster", "services/app/a")
		if p := r.pub.Problems(); len(p) != 0 {
			t.Errorf("problems %+v", p)
		}
		r.deliver(changes(policy))
		r.want(r.flush(), "meta/cluster", "policies/backendtlspolicy/app/p", "policies/configmap/app/ca", "services/app/a")
		r.deliver(gone(exp))
		r.want(r.flush(), "meta/cluster")
	})
}

// A start deletes what is left over, rewrites what differs and leaves what is
// equal alone, but nothing before the source's first full set.
func TestStartReconciles(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		mem := open(t)
		r := &rig{T: t, mem: mem}
		same := r.put(record.EncodeObject(route))
		stale := r.put(record.EncodeMeta(east, cluster.Meta{Region: "old"}))
		r.put(record.EncodeObject(recordtest.Route(east, "app", "left-over", 1, "a", "b", "/")))
		trust := r.put(record.EncodeTrust(east, record.Trust{TrustDomain: "east.example", Authorities: [][]byte{recordtest.Authority(t)}}))
		foreign, _ := record.EncodeMeta("west", cluster.Meta{})
		r.commit(store.Put(foreign.Key, foreign.Value))
		odd := r.commit(store.Put(prefix+"unknown/x", []byte("x")), store.Put(prefix+"services/one-name", []byte("x")))

		r, _ = start(t, mem, mem)
		r.deliver(changes(route)) // not the full set yet
		time.Sleep(time.Minute)
		if _, kvs := r.at(0); len(kvs) != 6 {
			t.Fatalf("before the first full set %d records are left of 6", len(kvs))
		}
		if s := r.pub.State(); s.Waiting == "" || s.Current {
			t.Errorf("state %+v", s)
		}
		ctx, cancel := context.WithTimeout(t.Context(), time.Second)
		defer cancel()
		if _, err := r.pub.Flush(ctx); !errors.Is(err, context.DeadlineExceeded) || !strings.Contains(err.Error(), "first full set") {
			t.Errorf("Flush before the first full set: %v", err)
		}

		r.deliver(full())
		kvs := r.want(r.flush(), "meta/cluster", "routes/httproute/app/r", "trust/east.example", "unknown/x")
		if got := kvs["routes/httproute/app/r"]; got.ModRevision != same.ModRevision {
			t.Error("a record that was equal was written again")
		}
		if got := kvs["meta/cluster"]; got.CreateRevision != stale.CreateRevision || got.ModRevision <= odd {
			t.Errorf("a record that differed was not overwritten in place: %+v", got)
		}
		if kvs["trust/east.example"].ModRevision != trust.ModRevision {
			t.Error("a trust bundle was touched before SetTrust")
		}
		if err := r.pub.SetTrust(record.Trust{TrustDomain: "new.example", Authorities: [][]byte{recordtest.Authority(t)}}); err != nil {
			t.Fatal(err)
		}
		r.want(r.flush(), "meta/cluster", "routes/httproute/app/r", "trust/new.example", "unknown/x")
		if _, rev, err := mem.List(t.Context(), foreign.Key+"/", 0); err != nil || rev == 0 {
			t.Fatal(err)
		}
		if s := r.pub.State(); !s.Current || s.Waiting != "" || s.Pending != 0 || s.Records != 4 {
			t.Errorf("state %+v", s)
		}
	})
}

// Hundreds of objects found at start get create revisions in the order of their
// age, over many transactions.
func TestCreationOrderInTheStore(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		mem := open(t)
		r, _ := start(t, mem, store.Guarded(mem, prefix))
		var objects []*cluster.Object
		for i := range 500 {
			n := i * 7919 % 500 // ages in no order
			objects = append(objects, recordtest.Route(east, "app", fmt.Sprintf("r-%03d", i), n, "a", "b", "/"))
		}
		r.deliver(full(objects...))
		_, kvs := r.at(r.flush())
		slices.SortFunc(objects, func(a, b *cluster.Object) int { return a.Seniority.Created.Compare(b.Seniority.Created) })
		last, distinct := int64(0), map[int64]bool{}
		for _, o := range objects {
			rev := kvs["routes/httproute/app/"+o.Name].CreateRevision
			if rev < last || rev == 0 {
				t.Fatalf("%s of %v has revision %d after %d", o.Name, o.Seniority.Created, rev, last)
			}
			last, distinct[rev] = rev, true
		}
		if len(distinct) != 4 {
			t.Errorf("%d transactions for 500 records and the meta", len(distinct))
		}
	})
}

// While the store is away changes are kept, and then only the newest of each is written.
func TestStoreAway(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		mem := open(t)
		r, _ := start(t, mem, mem)
		r.deliver(full(route))
		before := r.flush()
		mem.SetAvailable(false)
		for i := range 20 {
			r.deliver(changes(recordtest.Route(east, "app", "r", 4, "a", "b", fmt.Sprintf("/%d", i))))
			time.Sleep(2 * time.Second)
		}
		if s := r.pub.State(); s.Current || s.LastError == nil {
			t.Errorf("state while the store is away: %+v", s)
		}
		mem.SetAvailable(true)
		back := time.Now()
		_, kvs := r.at(r.flush())
		if took := time.Since(back); took > 3*time.Second {
			t.Errorf("took %v after the store was back", took)
		}
		c, err := record.Decode(kvs["routes/httproute/app/r"])
		if err != nil {
			t.Fatal(err)
		}
		if got := *c.Objects[0].Value.(*gatewayv1.HTTPRoute).Spec.Rules[0].Matches[0].Path.Value; got != "/19" {
			t.Errorf("the store has %q", got)
		}
		// The liveness key went and came: two revisions. At most two writes of the
		// route: the one that hung when the store went away, and the newest.
		if n := kvs["routes/httproute/app/r"].ModRevision - before; n > 4 {
			t.Errorf("%d revisions for one key", n)
		}
		if s := r.pub.State(); s.LastError != nil || !s.Current {
			t.Errorf("state after: %+v", s)
		}
	})
}

// slow holds up and breaks commits as a test wants.
type slow struct {
	store.Store
	gate    chan struct{} // each commit takes one, if not nil
	commits atomic.Int64
	fail    atomic.Pointer[func(store.Txn) error] // called instead of a commit
}

func (s *slow) Commit(ctx context.Context, txn store.Txn) (int64, error) {
	s.commits.Add(1)
	if s.gate != nil {
		select {
		case <-s.gate:
		case <-ctx.Done():
			return 0, fmt.Errorf("%w: %w", store.ErrUnavailable, ctx.Err())
		}
	}
	if f := s.fail.Swap(nil); f != nil {
		return 0, (*f)(txn)
	}
	return s.Store.Commit(ctx, txn)
}

// The first change is written at once; what arrives meanwhile goes together into
// the next transaction.
func TestCoalescesOnlyWhileWriting(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		mem := open(t)
		st := &slow{Store: mem, gate: make(chan struct{})}
		r, _ := start(t, mem, st)
		r.deliver(full())
		began := time.Now()
		synctest.Wait()
		if st.commits.Load() != 1 || time.Since(began) != 0 {
			t.Fatalf("%d commits after %v", st.commits.Load(), time.Since(began))
		}
		for i := range 50 {
			r.deliver(changes(recordtest.Route(east, "app", fmt.Sprintf("r-%d", i%5), 1, "a", "b", fmt.Sprintf("/%d", i))))
			synctest.Wait()
		}
		if st.commits.Load() != 1 {
			t.Fatalf("%d commits while the first is under way", st.commits.Load())
		}
		st.gate <- struct{}{}
		st.gate <- struct{}{}
		r.flush()
		if keys, _ := r.at(0); st.commits.Load() != 2 || len(keys) != 6 {
			t.Errorf("%d commits made %q", st.commits.Load(), keys)
		}
	})
}

// Answers that get lost, conflicts and denials: the store ends up right.
func TestFailuresOfCommit(t *testing.T) {
	for name, fail := range map[string]func(*memory.Store) func(store.Txn) error{
		"answer lost": func(mem *memory.Store) func(store.Txn) error {
			return func(txn store.Txn) error {
				if _, err := mem.Commit(context.Background(), txn); err != nil {
					return err
				}
				return store.ErrUnavailable
			}
		},
		"not applied": func(*memory.Store) func(store.Txn) error {
			return func(store.Txn) error { return store.ErrUnavailable }
		},
		"denied": func(*memory.Store) func(store.Txn) error { return func(store.Txn) error { return store.ErrDenied } },
		"overtaken": func(mem *memory.Store) func(store.Txn) error {
			return func(txn store.Txn) error {
				if _, err := mem.Commit(context.Background(), store.Txn{Ops: []store.Op{store.Put(txn.Ops[0].Key, []byte("x"))}}); err != nil {
					return err
				}
				_, err := mem.Commit(context.Background(), txn)
				return err
			}
		},
	} {
		t.Run(name, func(t *testing.T) {
			synctest.Test(t, func(t *testing.T) {
				mem := open(t)
				st := &slow{Store: mem}
				r, _ := start(t, mem, st)
				r.deliver(full(route))
				r.flush()
				f := fail(mem)
				st.fail.Store(&f)
				changed := recordtest.Route(east, "app", "r", 4, "a", "b", "/new")
				r.deliver(changes(changed))
				_, kvs := r.at(r.flush())
				want, err := record.EncodeObject(changed)
				if err != nil {
					t.Fatal(err)
				}
				if got := kvs["routes/httproute/app/r"]; !slices.Equal(got.Value, want.Value) {
					t.Error("the store doesn't have the newest route")
				}
				if s := r.pub.State(); (s.Conflicts > 0) != (name == "overtaken") {
					t.Errorf("%d conflicts", s.Conflicts)
				}
			})
		})
	}
}

// What others do below the prefix is undone, ever more slowly if they insist.
func TestForeignWrites(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		mem := open(t)
		r, _ := start(t, mem, mem)
		r.deliver(full(route))
		r.flush()
		stray, err := record.EncodeObject(recordtest.Route(east, "app", "stray", 1, "a", "b", "/"))
		if err != nil {
			t.Fatal(err)
		}
		r.commit(store.Delete(prefix+"routes/httproute/app/r"), store.Put(stray.Key, stray.Value), store.Put(prefix+"meta/cluster", []byte("x")))
		synctest.Wait()
		if s := r.pub.State(); s.Current || s.LastError == nil {
			t.Errorf("state after a foreign write: %+v", s)
		}
		r.want(r.flush(), "meta/cluster", "routes/httproute/app/r")
		if s := r.pub.State(); s.Conflicts != 1 {
			t.Errorf("%d conflicts", s.Conflicts)
		}
		insists := 0
		for end := time.Now().Add(10 * time.Minute); time.Now().Before(end); time.Sleep(100 * time.Millisecond) {
			if keys, _ := r.at(0); !slices.Contains(keys, "routes/httproute/app/stray") {
				r.commit(store.Put(stray.Key, stray.Value))
				insists++
			}
		}
		if insists > 60 {
			t.Errorf("two writers overwrote each other %d times in 10 minutes", insists)
		}
		time.Sleep(time.Minute)
		r.want(0, "meta/cluster", "routes/httproute/app/r")
	})
}

// What can't be published is told, and its last good state stays.
func TestProblems(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		mem := open(t)
		r, _ := start(t, mem, mem)
		r.deliver(full(route, svc, exp, slice))
		_, before := r.at(r.flush())
		broken := recordtest.Route(east, "app", "r", 4, "a", "b", "/"+strings.Repeat("x", 5000))
		odd := recordtest.Slice(east, "app", "Not_A_Name", "a-2", 5, 1)
		r.deliver(changes(broken, odd))
		_, after := r.at(r.flush())
		if len(after) != len(before) || after["routes/httproute/app/r"].ModRevision != before["routes/httproute/app/r"].ModRevision {
			t.Errorf("the store has %v", after)
		}
		ps := r.pub.Problems()
		if len(ps) != 2 || ps[0].Object != "EndpointSlice/app/a-2" || ps[1].Object != "HTTPRoute/app/r" || ps[1].Where != "r.yaml:4" {
			t.Errorf("problems %+v", ps)
		}
		r.deliver(changes(route, recordtest.Slice(east, "app", "a", "a-2", 5, 1)))
		r.want(r.flush(), "endpoints/app/a/a-1", "endpoints/app/a/a-2", "meta/cluster", "routes/httproute/app/r", "services/app/a")
		if ps := r.pub.Problems(); len(ps) != 0 {
			t.Errorf("problems %+v after they were mended", ps)
		}
	})
}

// The liveness key is held while Run runs, whatever the source does; Run may
// begin again, and begins with what the other leader left.
func TestAliveAndLead(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		mem := open(t)
		r, stop := start(t, mem, mem)
		alive := func() int {
			kvs, _, err := mem.List(t.Context(), prefix+"alive/", 0)
			if err != nil {
				t.Fatal(err)
			}
			return len(kvs)
		}
		time.Sleep(10 * time.Second)
		if alive() != 1 {
			t.Error("no liveness key while the source is slow")
		}
		r.deliver(full(route))
		r.flush()
		stop()
		if alive() != 0 {
			t.Error("the liveness key outlives Run")
		}
		r.want(0, "meta/cluster", "routes/httproute/app/r") // only liveness carries a lease

		r.deliver(changes(svc, exp))
		stray, _ := record.EncodeObject(recordtest.Route(east, "app", "stray", 1, "a", "b", "/"))
		r.commit(store.Put(stray.Key, stray.Value))
		ctx, cancel := context.WithCancel(t.Context())
		done := make(chan error)
		go func() { done <- r.pub.Run(ctx) }()
		r.want(r.flush(), "meta/cluster", "routes/httproute/app/r", "services/app/a")
		if err := r.pub.Run(ctx); err == nil || errors.Is(err, context.Canceled) {
			t.Errorf("a second Run: %v", err)
		}
		cancel()
		<-done
	})
}

// How the cluster runs others' Gateways is in the store as long as it does. Who begins to
// lead takes nothing of it back before it knows better.
func TestRuns(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		mem := open(t)
		r, stop := start(t, mem, mem)
		r.deliver(full())
		run := &cluster.GatewayRun{Home: "west", Generation: 1, Addresses: []gatewayv1.GatewayStatusAddress{{Value: "192.0.2.1"}}}
		r.pub.SetRun("app", "edge", run)
		r.pub.SetRun("app", "other", run)
		before := r.want(r.flush(), "meta/cluster", "runs/app/edge", "runs/app/other")
		c, err := record.Decode(before["runs/app/edge"])
		if err != nil || !reflect.DeepEqual(c.Objects[0].Value, run) {
			t.Errorf("others read %+v (%v)", c, err)
		}
		stop()
		next, _ := start(t, mem, mem)
		next.deliver(full())
		next.want(next.flush(), "meta/cluster", "runs/app/edge", "runs/app/other")
		next.pub.SetRun("app", "edge", run)
		next.want(next.flush(), "meta/cluster", "runs/app/edge", "runs/app/other")
		next.pub.RunsKnown()
		if after := next.want(next.flush(), "meta/cluster", "runs/app/edge"); after["runs/app/edge"].ModRevision != before["runs/app/edge"].ModRevision {
			t.Error("what is the same was written again")
		}
		next.pub.ForgetRuns()
		next.pub.SetRun("app", "third", run)
		next.want(next.flush(), "meta/cluster", "runs/app/edge", "runs/app/third")
		next.pub.SetRun("app", "third", nil)
		next.pub.RunsKnown()
		next.want(next.flush(), "meta/cluster")
	})
}

// Sealed certificates are in the store as long as the leader says so.
func TestSecrets(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		mem := open(t)
		r, stop := start(t, mem, mem)
		r.deliver(full())
		sealed := func(name string, b byte) record.Record {
			rec, err := record.EncodeSealed(east, "app", name, "west", &cluster.SealedSecret{Key: make([]byte, 32), Sealed: []byte{b}})
			if err != nil {
				t.Fatal(err)
			}
			return rec
		}
		r.pub.SetSecrets([]record.Record{sealed("a", 1), sealed("b", 1)})
		r.want(r.flush(), "meta/cluster", "secrets/app/a/west", "secrets/app/b/west")
		stop()
		next, _ := start(t, mem, mem)
		next.deliver(full())
		before := next.want(next.flush(), "meta/cluster", "secrets/app/a/west", "secrets/app/b/west")
		next.pub.SetSecrets([]record.Record{sealed("a", 1)})
		after := next.want(next.flush(), "meta/cluster", "secrets/app/a/west")
		if k := "secrets/app/a/west"; before[k].ModRevision != after[k].ModRevision {
			t.Error("what is the same was written again")
		}
		next.pub.ForgetSecrets()
		next.want(next.flush(), "meta/cluster", "secrets/app/a/west")
		next.pub.SetSecrets(nil)
		next.want(next.flush(), "meta/cluster")
	})
}
