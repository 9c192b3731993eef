package etcd_test

import (
	"testing"

	clientv3 "go.etcd.io/etcd/client/v3"

	"github.com/causeway-mesh/causeway/federation/store"
	"github.com/causeway-mesh/causeway/federation/store/etcd"
	"github.com/causeway-mesh/causeway/federation/store/etcd/etcdtest"
	"github.com/causeway-mesh/causeway/federation/store/storetest"
)

// A server in this process, stopped and started gracefully.
func TestStore(t *testing.T) {
	storetest.Run(t, func(t *testing.T) *storetest.Backend {
		s := etcdtest.Start(t, "one", "two")
		b := backend(t, s.Authority, s.Endpoint())
		b.Stop = func(testing.TB) { s.Stop() }
		b.Start = func(t testing.TB) {
			if err := s.Server.Start(t.Context()); err != nil {
				t.Fatal(err)
			}
		}
		return b
	})
}

// A server in another process, killed and started again: what it acknowledged it
// still knows, and clients come back to it.
func TestStoreKilled(t *testing.T) {
	storetest.Run(t, func(t *testing.T) *storetest.Backend {
		p := startProcess(t)
		admin := etcdtest.Connect(t, p.Authority, p.endpoint, etcd.AdminUser)
		if err := etcd.Bootstrap(t.Context(), admin, "one", "two"); err != nil {
			t.Fatal(err)
		}
		b := backend(t, p.Authority, p.endpoint)
		b.Stop, b.Start = p.kill, p.start
		return b
	}, "Outage", "CompactedDuringOutage", "HoldOutage")
}

func backend(t *testing.T, a *etcdtest.Authority, endpoint string) *storetest.Backend {
	way := startProxy(t, endpoint)
	root := rootClient(t, a, endpoint)
	return &storetest.Backend{
		Store:    etcdtest.Connect(t, a, way.endpoint(), etcd.AgentUser("one")),
		Foreign:  etcdtest.Connect(t, a, endpoint, etcd.AgentUser("two")),
		Enforced: true,
		Cut:      way.cut,
		Compact: func(t testing.TB, rev int64) {
			t.Helper()
			if _, err := root.Compact(t.Context(), rev); err != nil {
				t.Fatal(err)
			}
		},
		Expire: func(t testing.TB, key string) {
			t.Helper()
			r, err := root.Get(t.Context(), key)
			if err != nil || len(r.Kvs) != 1 {
				t.Fatalf("key %s: %v, %v", key, r, err)
			}
			if _, err := root.Revoke(t.Context(), clientv3.LeaseID(r.Kvs[0].Lease)); err != nil {
				t.Fatal(err)
			}
		},
	}
}

// rootClient is etcd's own client, to do what the Store cannot.
func rootClient(t testing.TB, a *etcdtest.Authority, endpoint string) *clientv3.Client {
	t.Helper()
	c, err := clientv3.New(clientv3.Config{Endpoints: []string{endpoint}, TLS: a.ClientTLS(t, etcd.AdminUser)})
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { c.Close() })
	return c
}

var _ store.Store = (*etcd.Store)(nil)
