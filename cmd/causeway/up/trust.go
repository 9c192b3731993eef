package up

import (
	"context"
	"crypto/tls"
	"fmt"
	"log/slog"
	"net/netip"
	"time"

	"github.com/prometheus/client_golang/prometheus"
	"golang.org/x/sync/errgroup"

	"github.com/causeway-mesh/causeway/cluster"
	"github.com/causeway-mesh/causeway/cluster/identity"
	"github.com/causeway-mesh/causeway/cmd/causeway/mounted"
	"github.com/causeway-mesh/causeway/federation/store/etcd"
)

// trust holds the authorities that a `causeway up` issues from: the clusterset's
// own trust domain (hub and people) and the store's CA. Each cluster's authority
// belongs to the cluster. Keys are in the state folder, for this run only.
type trust struct {
	clusterset string
	domain     *identity.Authority
	store      *identity.StoreAuthority // nil with an external store
	metrics    *identity.Metrics
	log        *slog.Logger
	dir        *stateDir
}

func newTrust(clusterset string, external bool, dir *stateDir, reg prometheus.Registerer, log *slog.Logger) (*trust, error) {
	td, err := identity.ClustersetDomain(clusterset)
	if err != nil {
		return nil, err
	}
	t := &trust{clusterset: clusterset, dir: dir, log: log}
	if t.metrics, err = identity.NewMetrics(reg); err != nil {
		return nil, err
	}
	if t.domain, err = identity.OpenAuthority(identity.AuthorityConfig{TrustDomain: td, RootConfig: t.root("clusterset")}); err != nil {
		return nil, err
	}
	if !external {
		if t.store, err = identity.OpenStoreAuthority(identity.StoreAuthorityConfig{Clusterset: clusterset, RootConfig: t.root("store")}); err != nil {
			return nil, err
		}
	}
	return t, nil
}

func (t *trust) root(name string) identity.RootConfig {
	return identity.RootConfig{Dir: t.dir.join("authority", name), Logger: t.log}
}

// cluster makes the authority of one cluster.
func (t *trust) cluster(id cluster.ID) (*identity.Authority, error) {
	td, err := identity.TrustDomain(id, t.clusterset)
	if err != nil {
		return nil, err
	}
	return identity.OpenAuthority(identity.AuthorityConfig{TrustDomain: td, RootConfig: t.root("cluster-" + string(id))})
}

// run keeps the roots fresh.
func (t *trust) run(ctx context.Context) error {
	g, ctx := errgroup.WithContext(ctx)
	g.Go(func() error { return t.domain.Run(ctx) })
	if t.store != nil {
		g.Go(func() error { return t.store.Run(ctx) })
	}
	return g.Wait()
}

// storeServer issues the embedded etcd's certificate.
func (t *trust) storeServer() (*identity.Credential, error) {
	return t.store.IssueServer(0, []string{"localhost"}, []netip.Addr{netip.MustParseAddr("127.0.0.1")})
}

// storeClient makes the TLS side of one user of the embedded store, and the
// rotator that keeps its certificate fresh.
func (t *trust) storeClient(user string) (*tls.Config, *identity.Rotator, error) {
	r, err := identity.NewRotator(identity.RotatorConfig{
		Name:    "store-" + user,
		Issue:   func(context.Context) (*identity.Credential, error) { return t.store.IssueClient(0, user) },
		Logger:  t.log,
		Metrics: t.metrics,
	})
	if err != nil {
		return nil, nil, err
	}
	cfg, err := identity.StoreClientConfig(r.Current, func() []byte { pem, _ := t.store.BundlePEM(); return pem }, []string{"127.0.0.1"})
	return cfg, r, err
}

// fileTLS is the TLS side of an external store, from files that the user names.
func fileTLS(cacert, cert, key string) (*tls.Config, error) {
	if cacert == "" || cert == "" || key == "" {
		return nil, fmt.Errorf("an external store needs --store-cacert, --store-cert and --store-key")
	}
	return mounted.StoreTLS(cacert, cert, key)
}

// personName is whom the people's certificate names: the administrator.
const personName = "admin"

// userTTL is how long the people's certificate lasts; it is renewed while up runs.
const userTTL = 12 * time.Hour

// person makes the rotator that keeps the people's client certificate in a folder.
func (t *trust) person() (*identity.Rotator, error) {
	id, err := identity.UserID(t.domain.TrustDomain(), personName)
	if err != nil {
		return nil, err
	}
	return identity.NewRotator(identity.RotatorConfig{
		Name: "user-admin",
		Issue: func(context.Context) (*identity.Credential, error) {
			return t.domain.Issue(identity.SVIDRequest{ID: id, TTL: userTTL})
		},
		Dir:     t.dir.join("client"),
		Trust:   t.roots,
		Logger:  t.log,
		Metrics: t.metrics,
	})
}

// hub makes the rotator of the query API's server certificate.
func (t *trust) hub() (*identity.Rotator, error) {
	id, err := identity.HubID(t.domain.TrustDomain())
	if err != nil {
		return nil, err
	}
	return identity.NewRotator(identity.RotatorConfig{
		Name: "hub",
		Issue: func(context.Context) (*identity.Credential, error) {
			return t.domain.Issue(identity.SVIDRequest{ID: id, DNSNames: []string{"localhost"}, IPs: []netip.Addr{netip.MustParseAddr("127.0.0.1")}})
		},
		Logger:  t.log,
		Metrics: t.metrics,
	})
}

// roots gives the clusterset's own roots as PEM.
func (t *trust) roots() ([]byte, <-chan struct{}) {
	b, changed := t.domain.WatchBundle()
	return identity.BundlePEM(b), changed
}

// agentUser is the store's user of a cluster's agent.
func agentUser(id cluster.ID) string { return etcd.AgentUser(string(id)) }
