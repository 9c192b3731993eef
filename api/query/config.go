package query

import (
	"context"
	"errors"
	"log/slog"
	"net/netip"
	"time"

	"github.com/prometheus/client_golang/prometheus"

	"github.com/causeway-mesh/causeway/cluster"
	"github.com/causeway-mesh/causeway/cluster/identity"
	"github.com/causeway-mesh/causeway/federation/resolve"
	"github.com/causeway-mesh/causeway/xds/translate"
)

// View is what one cluster does with the state of all. A hub's View has no
// Cluster: it shows the state without anything that is local to a cluster.
type View struct {
	Cluster cluster.ID
	// Result is nil as long as the cluster has not resolved anything.
	Result *resolve.Result
	// Confirmed is when the store last confirmed that the Result's Snapshot was
	// complete; zero if unknown.
	Confirmed time.Time
}

// History gives the state at an older revision of the store, of which only
// published objects are known.
type History interface {
	// At gives the View of a cluster, or the hub's if id is empty. Errors:
	// store.ErrCompacted, store.ErrFutureRevision, store.ErrUnavailable.
	At(ctx context.Context, revision int64, id cluster.ID) (View, error)
}

// Rejection is a resource that an Envoy does not take.
type Rejection struct {
	TypeURL  string
	Resource string
	Subject  string // translate.Resource.Subject
	Version  string // empty if its removal was rejected
	Message  string // Envoy's, or that of the check before sending
	HeldBack bool   // it was not sent, since it breaks Envoy's rules
	Time     time.Time
}

// ProxyType is the state of one xDS type in one Envoy.
type ProxyType struct {
	TypeURL     string
	Sent, Acked string // versions of all resources that were sent, and acknowledged
	Resources   int    // that it holds
	Pending     int    // still to be acknowledged
}

// Proxy is one Envoy that this process serves, or expects.
type Proxy struct {
	translate.Proxy
	Envoy     string // version, as it says
	Connected bool
	Since     time.Time   // of the connection
	Types     []ProxyType // in the order of translate.Types
	// Rejected are some of the rejections, RejectedTotal counts them all.
	Rejected      []Rejection
	RejectedTotal int
	// Revision is the store revision of the newest configuration for the Envoy, 0
	// if there is none yet;
	// Acked the newest up to which it has acknowledged everything.
	Revision, Acked int64
	// Lag is how long the newest acknowledgement of a change took.
	Lag time.Duration
}

// inSync reports whether the Envoy obeys what the newest inputs call for.
func (p Proxy) inSync() bool {
	return p.Connected && p.Revision > 0 && p.Acked == p.Revision && p.RejectedTotal == 0
}

// Bindings says where proxies listen: the part of translate.Bindings that is shown.
type Bindings interface {
	Frontend(p translate.Proxy, key resolve.FrontendKey, t translate.Transport, port int32) (netip.AddrPort, bool)
	Gateway(p translate.Proxy, t translate.Transport, port int32) (netip.AddrPort, bool)
	Crossing(p translate.Proxy) (netip.AddrPort, bool)
}

// Config makes a Server.
type Config struct {
	// Views gives what is published now: one View for each cluster that this
	// process runs or is to run, and the hub's, if there is one. Required.
	Views func() []View
	// Changed gives a channel that is closed when anything that Views, Proxies or
	// Problems give has changed since the call. Required.
	Changed func() <-chan struct{}
	// Proxies gives the Envoys that are served or expected; nil: none.
	Proxies func() []Proxy
	// Problems gives what is wrong with the clusters' input; nil: nothing.
	Problems func() []cluster.Problem
	// Bindings says where a proxy listens; nil: nobody knows. It may return nil.
	Bindings func(translate.Proxy) Bindings
	// Barrier takes in all inputs as they are when it is called: once it returns,
	// Views and Proxies (as wanted) include them. It returns the store revision
	// that they came to. Nil where there are no inputs, as on a hub.
	Barrier func(context.Context) (int64, error)
	// History answers questions about the past; nil: there is none.
	History History

	// SVID is what the server presents. Required for Run.
	SVID identity.SVIDSource
	// Bundles are the roots of the callers that may connect. Required for Run.
	Bundles identity.BundleSource
	// Tokens tells who the bearer of a token is, and what it may see; nil: tokens are
	// not taken. It is asked at each call, so it should remember. ErrToken refuses.
	Tokens func(ctx context.Context, token string) (Bearer, error)
	// Authenticate tells who calls without a token; nil means PeerCertificate.
	Authenticate func(context.Context) (Caller, error)
	// Authorize tells what a caller may see. Its error refuses the caller. Required.
	Authorize func(Caller) (Scope, error)

	Logger     *slog.Logger          // required
	Registerer prometheus.Registerer // required

	// Timeout bounds a call that is neither a Watch nor waiting; 0: 30 s.
	Timeout time.Duration
	// MaxWatches bounds the Watches that run at a time; 0: 1000.
	MaxWatches int
}

// Bounds of what a caller may send and get.
const (
	maxRequestBytes = 256 << 10
	maxPageBytes    = 2 << 20 // below the 4 MiB that gRPC clients take by default
	defaultPageRows = 500
	maxPageRows     = 5000
	maxName         = 253
	maxURL          = 8 << 10
	maxHeaders      = 100
	maxWait         = 10 * time.Minute
	maxStatusRows   = 100
)

// Server answers the query API. Make it with New.
type Server struct {
	cfg      Config
	metrics  *metrics
	uses     useIndexes
	past     *past
	watches  chan struct{} // a token for each Watch that may run
	stopping chan struct{} // closed when Run ends, so that Watches do
}

// New checks the configuration. It starts nothing.
func New(cfg Config) (*Server, error) {
	switch {
	case cfg.Views == nil:
		return nil, errors.New("query API: Views is missing")
	case cfg.Changed == nil:
		return nil, errors.New("query API: Changed is missing")
	case cfg.Authorize == nil:
		return nil, errors.New("query API: Authorize is missing: say who may see what")
	case cfg.Logger == nil:
		return nil, errors.New("query API: Logger is missing")
	case cfg.Registerer == nil:
		return nil, errors.New("query API: Registerer is missing")
	case cfg.Timeout < 0 || cfg.MaxWatches < 0:
		return nil, errors.New("query API: Timeout and MaxWatches must not be negative")
	}
	if cfg.Proxies == nil {
		cfg.Proxies = func() []Proxy { return nil }
	}
	if cfg.Problems == nil {
		cfg.Problems = func() []cluster.Problem { return nil }
	}
	if cfg.Bindings == nil {
		cfg.Bindings = func(translate.Proxy) Bindings { return nil }
	}
	if cfg.Authenticate == nil {
		cfg.Authenticate = PeerCertificate
	}
	if cfg.Timeout == 0 {
		cfg.Timeout = 30 * time.Second
	}
	if cfg.MaxWatches == 0 {
		cfg.MaxWatches = 1000
	}
	m, err := newMetrics(cfg.Registerer)
	if err != nil {
		return nil, err
	}
	return &Server{cfg: cfg, metrics: m, past: newPast(), watches: make(chan struct{}, cfg.MaxWatches), stopping: make(chan struct{})}, nil
}
