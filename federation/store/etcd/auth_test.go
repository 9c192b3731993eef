package etcd_test

import (
	"context"
	"errors"
	"fmt"
	"testing"
	"time"

	clientv3 "go.etcd.io/etcd/client/v3"

	"github.com/causeway-mesh/causeway/federation/store"
	"github.com/causeway-mesh/causeway/federation/store/etcd"
	"github.com/causeway-mesh/causeway/federation/store/etcd/etcdtest"
	"github.com/causeway-mesh/causeway/federation/store/storetest"
)

func TestBootstrap(t *testing.T) {
	t.Parallel()
	s := etcdtest.Start(t, "one")
	admin := s.Connect(t, etcd.AdminUser)
	root := rootClient(t, s.Authority, s.Endpoint())
	ctx := t.Context()
	revision := func() uint64 {
		r, err := root.AuthStatus(ctx)
		if err != nil || !r.Enabled {
			t.Fatalf("authentication: %v, %v", r, err)
		}
		return r.AuthRevision
	}

	before := revision()
	if err := etcd.Bootstrap(ctx, admin, "one"); err != nil {
		t.Fatal(err)
	}
	if after := revision(); after != before {
		t.Errorf("bootstrap, repeated, changed users (revision %d to %d)", before, after)
	}

	// Another cluster comes while the first one works.
	if err := etcd.Bootstrap(ctx, admin, "two"); err != nil {
		t.Fatal(err)
	}
	one, two, hub := s.Connect(t, etcd.AgentUser("one")), s.Connect(t, etcd.AgentUser("two")), s.Connect(t, etcd.HubUser)
	policy := s.Connect(t, etcd.PolicyUser)
	write := func(s store.Store, key string) error {
		_, err := s.Commit(ctx, store.Txn{Ops: []store.Op{store.Put(key, []byte("x"))}})
		return err
	}
	for _, c := range []struct {
		name string
		s    store.Store
		key  string
		ok   bool
	}{
		{"agent, own", one, storetest.Own + "a", true},
		{"new agent, own", two, storetest.Other + "a", true},
		{"agent, other", one, storetest.Other + "a", false},
		{"hub", hub, storetest.Own + "a", false},
		{"agent, policy", one, store.PolicyPrefix + "a", false},
		{"admin, policy", admin, store.PolicyPrefix + "a", true},
		{"hub, policy", hub, store.PolicyPrefix + "a", false},
		{"policy, policy", policy, store.PolicyPrefix + "a", true},
		{"policy, cluster", policy, storetest.Own + "a", false},
		{"stranger with a certificate", s.Connect(t, "stranger"), storetest.Own + "a", false},
		{"nobody in particular", s.Connect(t, ""), storetest.Own + "a", false},
	} {
		if err := write(c.s, c.key); (err == nil) != c.ok || err != nil && !errors.Is(err, store.ErrDenied) {
			t.Errorf("%s: %v", c.name, err)
		}
	}
	if kvs, _, err := hub.List(ctx, store.Root, 0); err != nil || len(kvs) != 3 {
		t.Errorf("hub reads %v, %v", kvs, err)
	}
	if _, _, err := s.Connect(t, "stranger").List(ctx, store.Root, 0); !errors.Is(err, store.ErrDenied) {
		t.Errorf("stranger reads: %v", err)
	}
	if err := etcd.Bootstrap(ctx, one, "three"); !errors.Is(err, store.ErrDenied) {
		t.Errorf("bootstrap by an agent: %v", err)
	}

	// What an agent was given by mistake, Bootstrap takes away.
	if _, err := root.RoleGrantPermission(ctx, "causeway:writer:one", store.PolicyPrefix, clientv3.GetPrefixRangeEnd(store.PolicyPrefix), clientv3.PermissionType(clientv3.PermReadWrite)); err != nil {
		t.Fatal(err)
	}
	if _, err := root.UserGrantRole(ctx, etcd.AgentUser("one"), "causeway:writer:two"); err != nil {
		t.Fatal(err)
	}
	if err := errors.Join(write(one, store.PolicyPrefix+"a"), write(one, storetest.Other+"a")); err != nil {
		t.Fatalf("the test's own grants do nothing: %v", err)
	}
	if err := etcd.Bootstrap(ctx, admin, "one"); err != nil {
		t.Fatal(err)
	}
	for _, key := range []string{store.PolicyPrefix + "a", storetest.Other + "a"} {
		if err := write(one, key); !errors.Is(err, store.ErrDenied) {
			t.Errorf("write of %s after bootstrap: %v", key, err)
		}
	}
	if err := etcd.Bootstrap(ctx, admin, "Not a cluster"); !errors.Is(err, store.ErrInvalid) {
		t.Errorf("bootstrap of a bad name: %v", err)
	}
}

func TestRemoveCluster(t *testing.T) {
	t.Parallel()
	s := etcdtest.Start(t, "one", "two")
	admin, one, two := s.Connect(t, etcd.AdminUser), s.Connect(t, etcd.AgentUser("one")), s.Connect(t, etcd.AgentUser("two"))
	ctx := t.Context()
	var ops []store.Op
	for i := range 300 {
		ops = append(ops, store.Put(fmt.Sprintf("%sk%03d", storetest.Own, i), []byte("x")))
	}
	txns, err := store.Split(ops)
	if err != nil {
		t.Fatal(err)
	}
	var start int64
	for _, txn := range txns {
		if _, err := one.Commit(ctx, txn); err != nil {
			t.Fatal(err)
		}
	}
	if _, err = two.Commit(ctx, store.Txn{Ops: []store.Op{store.Put(storetest.Other+"a", []byte("x"))}}); err != nil {
		t.Fatal(err)
	}
	// What the policy says of a cluster's draining goes with it.
	policy := s.Connect(t, etcd.PolicyUser)
	gone, err := store.DrainKey("one")
	if err != nil {
		t.Fatal(err)
	}
	stays, err := store.DrainKey("one-more")
	if err != nil {
		t.Fatal(err)
	}
	if start, err = policy.Commit(ctx, store.Txn{Ops: []store.Op{store.Put(gone, []byte("x")), store.Put(stays, []byte("x"))}}); err != nil {
		t.Fatal(err)
	}
	rev, err := etcd.RemoveCluster(ctx, admin, "one")
	if err != nil {
		t.Fatal(err)
	}
	// Readers see it go at once, whole.
	wctx, cancel := context.WithTimeout(ctx, time.Minute)
	defer cancel()
	err = two.Watch(wctx, store.Root, start, func(b store.Batch) error {
		if len(b.Events) == 0 {
			return nil
		}
		if len(b.Events) != len(ops)+1 || b.Revision != rev {
			t.Errorf("batch of %d events at revision %d, want %d at %d", len(b.Events), b.Revision, len(ops)+1, rev)
		}
		cancel()
		return nil
	})
	if !errors.Is(err, context.Canceled) {
		t.Error(err)
	}
	if _, err := one.Commit(ctx, store.Txn{Ops: []store.Op{store.Put(storetest.Own+"a", []byte("x"))}}); !errors.Is(err, store.ErrDenied) {
		t.Errorf("write of a removed cluster: %v", err)
	}
	if _, _, err := one.List(ctx, store.Root, 0); !errors.Is(err, store.ErrDenied) {
		t.Errorf("read of a removed cluster: %v", err)
	}
	if kvs, _, err := two.List(ctx, store.Root, 0); err != nil || len(kvs) != 2 {
		t.Errorf("left: %v, %v", kvs, err)
	}
	if again, err := etcd.RemoveCluster(ctx, admin, "one"); err != nil || again != rev {
		t.Errorf("repeated removal: revision %d, %v; want %d", again, err, rev)
	}
	if _, err := etcd.RemoveCluster(ctx, admin, ""); !errors.Is(err, store.ErrInvalid) {
		t.Errorf("removal of no cluster: %v", err)
	}
}
