package admin_test

import (
	"context"
	"fmt"
	"log/slog"
	"slices"
	"strings"
	"testing"
	"testing/synctest"
	"time"

	"github.com/spiffe/go-spiffe/v2/spiffeid"
	"google.golang.org/grpc/codes"
	"google.golang.org/grpc/status"
	"google.golang.org/protobuf/types/known/durationpb"

	"github.com/causeway-mesh/causeway/api/admin"
	causewayv1 "github.com/causeway-mesh/causeway/api/causeway/v1"
	"github.com/causeway-mesh/causeway/api/query"
	"github.com/causeway-mesh/causeway/cluster"
	"github.com/causeway-mesh/causeway/cluster/identity"
	"github.com/causeway-mesh/causeway/federation/record"
	"github.com/causeway-mesh/causeway/federation/store"
	"github.com/causeway-mesh/causeway/federation/store/memory"
)

const clusterset = "isles"

func caller(kind identity.Kind, domain, name string) query.Caller {
	return query.Caller{Name: string(kind) + " " + name, Identity: identity.Identity{TrustDomain: spiffeid.RequireTrustDomainFromString(domain), Kind: kind, Name: name}}
}

// rig is a Server with a store, which a test may wrap.
type rig struct {
	*admin.Server
	t      *testing.T
	store  *memory.Store
	caller query.Caller
	log    strings.Builder
}

func newRig(t *testing.T, wrap func(admin.Store) admin.Store) *rig {
	t.Helper()
	mem, err := memory.New(memory.Config{})
	if err != nil {
		t.Fatal(err)
	}
	r := &rig{t: t, store: mem, caller: caller(identity.KindUser, clusterset, "admin")}
	var st admin.Store = mem
	if wrap != nil {
		st = wrap(mem)
	}
	if r.Server, err = admin.New(admin.Config{
		Store: st, Clusters: func() []cluster.ID { return []cluster.ID{"west", "east"} },
		Authenticate: func(context.Context) (query.Caller, error) { return r.caller, nil },
		Authorize:    admin.Users(clusterset, "admin"), Logger: slog.New(slog.NewTextHandler(&r.log, nil)),
	}); err != nil {
		t.Fatal(err)
	}
	return r
}

// drain and undrain give what the answer says.
func (r *rig) drain(name string, over time.Duration) (string, error) {
	a, err := r.DrainCluster(r.t.Context(), &causewayv1.DrainClusterRequest{Cluster: name, Over: durationpb.New(over)})
	return text(a.GetDrain(), a.GetRevision()), err
}

func (r *rig) undrain(name string, over time.Duration) (string, error) {
	a, err := r.UndrainCluster(r.t.Context(), &causewayv1.UndrainClusterRequest{Cluster: name, Over: durationpb.New(over)})
	return text(a.GetDrain(), a.GetRevision()), err
}

func text(d *causewayv1.ClusterDrain, revision int64) string {
	return fmt.Sprintf("%s %d to %d in %s @%d", d.GetCluster(), d.GetFrom(), d.GetTarget(), d.GetEnds().AsTime().Sub(d.GetStarted().AsTime()), revision)
}

// stored lists the policy, as it is decoded.
func (r *rig) stored() string {
	kvs, _, err := r.store.List(r.t.Context(), store.PolicyPrefix, 0)
	if err != nil {
		r.t.Fatal(err)
	}
	var out []string
	for _, kv := range kvs {
		p, err := record.DecodePolicy(kv)
		if err != nil {
			out = append(out, "?")
			continue
		}
		out = append(out, fmt.Sprintf("%s %d to %d in %s since %s", p.Cluster, p.Drain.From, p.Drain.Target, p.Drain.Over, time.Since(p.Drain.Started)))
	}
	return strings.Join(out, ", ")
}

// A drain starts from where the cluster is; saying it again changes nothing; what
// is back where it was leaves nothing behind.
func TestDrain(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		r := newRig(t, nil)
		for i, step := range []struct {
			pause        time.Duration
			do           func(string, time.Duration) (string, error)
			over         time.Duration
			want, stored string
		}{
			{0, r.undrain, time.Second, "west 0 to 0 in 0s @1", ""},
			{0, r.drain, 20 * time.Second, "west 0 to 100 in 20s @2", "west 0 to 100 in 20s since 0s"},
			{10 * time.Second, r.drain, time.Minute, "west 50 to 100 in 1m0s @3", "west 50 to 100 in 1m0s since 0s"},
			{30 * time.Second, r.undrain, 10 * time.Second, "west 75 to 0 in 10s @4", "west 75 to 0 in 10s since 0s"},
			{5 * time.Second, r.drain, 0, "west 100 to 100 in 0s @5", "west 100 to 100 in 0s since 0s"},
			{time.Hour, r.drain, time.Minute, "west 100 to 100 in 0s @5", "west 100 to 100 in 0s since 1h0m0s"},
			{0, r.undrain, time.Minute, "west 100 to 0 in 1m0s @6", "west 100 to 0 in 1m0s since 0s"},
			{time.Hour, r.undrain, time.Minute, "west 0 to 0 in 0s @7", ""},
			{0, r.drain, 0, "west 100 to 100 in 0s @8", "west 100 to 100 in 0s since 0s"},
			{0, r.undrain, 0, "west 0 to 0 in 0s @9", ""},
		} {
			time.Sleep(step.pause)
			got, err := step.do("west", step.over)
			if err != nil || got != step.want || r.stored() != step.stored {
				t.Fatalf("step %d: answer %q, %v, stored %q; want %q and %q", i, got, err, r.stored(), step.want, step.stored)
			}
		}
		answer, err := r.DrainCluster(t.Context(), &causewayv1.DrainClusterRequest{Cluster: "east"})
		if err != nil || text(answer.GetDrain(), answer.GetRevision()) != "east 0 to 100 in 30s @10" {
			t.Errorf("without a time: %v, %v", answer, err)
		}
		if log := r.log.String(); strings.Count(log, `caller="user admin"`) != 11 {
			t.Errorf("log: %s", log)
		}
	})
}

// Only the named people of the clusterset's own trust domain are administrators.
func TestAdministrators(t *testing.T) {
	r := newRig(t, nil)
	for _, c := range []query.Caller{
		{}, {Name: "a token"},
		caller(identity.KindUser, clusterset, "ada"), caller(identity.KindUser, "west."+clusterset, "admin"), caller(identity.KindUser, "elsewhere", "admin"),
		caller(identity.KindHub, clusterset, ""), caller(identity.KindHub, clusterset, "admin"), caller(identity.KindAgent, "west."+clusterset, ""), caller(identity.KindProxy, clusterset, "admin"),
	} {
		r.caller = c
		for _, do := range []func(string, time.Duration) (string, error){r.drain, r.undrain} {
			if _, err := do("west", time.Second); status.Code(err) != codes.PermissionDenied || !strings.Contains(err.Error(), clusterset) {
				t.Errorf("%+v: %v", c, err)
			}
		}
	}
	if got := r.stored(); got != "" {
		t.Errorf("stored %q", got)
	}
	// Without proof of who calls, nothing is even asked.
	s, err := admin.New(admin.Config{Store: r.store, Clusters: func() []cluster.ID { return []cluster.ID{"west"} }, Authorize: func(query.Caller) error { return nil }, Logger: slog.New(slog.DiscardHandler)})
	if err != nil {
		t.Fatal(err)
	}
	if _, err := s.DrainCluster(t.Context(), &causewayv1.DrainClusterRequest{Cluster: "west"}); status.Code(err) != codes.Unauthenticated {
		t.Errorf("unproven: %v", err)
	}
}

// faulty is a store that does something else first.
type faulty struct {
	admin.Store
	commit func() error
}

func (f *faulty) Commit(ctx context.Context, txn store.Txn) (int64, error) {
	if err := f.commit(); err != nil {
		return 0, err
	}
	return f.Store.Commit(ctx, txn)
}

// Errors name the cluster and say what to do.
func TestErrors(t *testing.T) {
	var fails error
	r := newRig(t, func(s admin.Store) admin.Store { return &faulty{s, func() error { return fails }} })
	for _, c := range []struct {
		cluster string
		over    time.Duration
		store   error
		code    codes.Code
		says    []string
	}{
		{"nowhere", 0, nil, codes.NotFound, []string{`"nowhere"`, "east, west"}},
		{"No.Label", 0, nil, codes.InvalidArgument, []string{`"No.Label"`}},
		{"", 0, nil, codes.InvalidArgument, []string{`""`}},
		{"west/x", 0, nil, codes.InvalidArgument, []string{`"west/x"`}},
		{"west", -time.Second, nil, codes.InvalidArgument, []string{"-1s"}},
		{"west", 24*time.Hour + 1, nil, codes.InvalidArgument, []string{"24h0m0s"}},
		{"west", 0, fmt.Errorf("commit: %w", store.ErrUnavailable), codes.Unavailable, []string{`"west"`, "again"}},
		{"west", 0, context.DeadlineExceeded, codes.Unavailable, []string{`"west"`, "again"}},
		{"west", 0, store.ErrDenied, codes.FailedPrecondition, []string{`"west"`, "certificate"}},
		{"west", 0, store.ErrConflict, codes.Aborted, []string{`"west"`}},
		{"west", 0, context.Canceled, codes.Canceled, nil},
	} {
		fails = c.store
		_, err := r.drain(c.cluster, c.over)
		if status.Code(err) != c.code || slices.ContainsFunc(c.says, func(s string) bool { return !strings.Contains(err.Error(), s) }) {
			t.Errorf("%q over %s, store %v: %v does not say %q", c.cluster, c.over, c.store, err, c.says)
		}
	}
	if got := r.stored(); got != "" {
		t.Errorf("stored %q", got)
	}
}

// Two at a time: the later one starts from what the earlier one said. Records of
// other clusters, and what nobody can read, are no obstacle.
func TestOthers(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		var mem *memory.Store
		write := func(id cluster.ID, d record.Drain) {
			rec, err := record.EncodeDrain(id, d)
			if err != nil {
				t.Fatal(err)
			}
			if _, err := mem.Commit(t.Context(), store.Txn{Ops: []store.Op{store.Put(rec.Key, rec.Value)}}); err != nil {
				t.Fatal(err)
			}
		}
		meddle := true
		r := newRig(t, func(s admin.Store) admin.Store {
			return &faulty{s, func() error {
				if meddle {
					meddle = false
					write("west", record.Drain{From: 60, Target: 60, Started: time.Now()})
				}
				return nil
			}}
		})
		mem = r.store
		write("west-1", record.Drain{From: 10, Target: 10, Started: time.Now()})
		if got, err := r.drain("west", time.Minute); err != nil || !strings.HasPrefix(got, "west 60 to 100") {
			t.Errorf("%q, %v", got, err)
		}
		key, err := store.DrainKey("east")
		if err != nil {
			t.Fatal(err)
		}
		if _, err := mem.Commit(t.Context(), store.Txn{Ops: []store.Op{store.Put(key, []byte{0xff})}}); err != nil {
			t.Fatal(err)
		}
		if got, err := r.drain("east", time.Minute); err != nil || !strings.HasPrefix(got, "east 0 to 100") {
			t.Errorf("%q, %v", got, err)
		}
		// A cluster that has left can be cleared away, as long as there is something.
		if got, err := r.undrain("west-1", 0); err != nil || !strings.HasPrefix(got, "west-1 0 to 0") {
			t.Errorf("%q, %v", got, err)
		}
		if _, err := r.undrain("west-1", 0); status.Code(err) != codes.NotFound {
			t.Errorf("nothing to clear: %v", err)
		}
		if got, want := r.stored(), "east 0 to 100 in 1m0s since 0s, west 60 to 100 in 1m0s since 0s"; got != want {
			t.Errorf("stored %q, want %q", got, want)
		}
	})
}
