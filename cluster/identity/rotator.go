package identity

import (
	"context"
	"errors"
	"fmt"
	"log/slog"
	"sync"
	"time"

	"github.com/prometheus/client_golang/prometheus"
	"github.com/spiffe/go-spiffe/v2/svid/x509svid"
)

// Metrics is what Rotators report; one is shared by all Rotators of a process.
type Metrics struct {
	expiry   *prometheus.GaugeVec
	renewals *prometheus.CounterVec
}

// NewMetrics registers the metrics on reg.
func NewMetrics(reg prometheus.Registerer) (*Metrics, error) {
	m := &Metrics{
		expiry: prometheus.NewGaugeVec(prometheus.GaugeOpts{
			Name: "causeway_identity_expiry_timestamp_seconds",
			Help: "When the certificate in use expires, in seconds since the epoch.",
		}, []string{"name"}),
		renewals: prometheus.NewCounterVec(prometheus.CounterOpts{
			Name: "causeway_identity_renewals_total",
			Help: "Attempts to renew a certificate, by result.",
		}, []string{"name", "result"}),
	}
	for _, c := range []prometheus.Collector{m.expiry, m.renewals} {
		if err := reg.Register(c); err != nil {
			return nil, fmt.Errorf("register metrics of identity: %w", err)
		}
	}
	return m, nil
}

// RotatorConfig makes a Rotator.
type RotatorConfig struct {
	// Name tells rotators apart in logs and metrics.
	Name string
	// Issue gives a new credential, as a rule by Authority.Issue.
	Issue func(context.Context) (*Credential, error)
	// Dir, if set, is kept up to date by WriteDir with tls.crt, tls.key and ca.crt.
	Dir string
	// Trust gives the roots to write to ca.crt and a channel that is closed when
	// they change. Needed with Dir.
	Trust   func() ([]byte, <-chan struct{})
	Logger  *slog.Logger // default slog.Default()
	Metrics *Metrics     // optional
}

// Rotator keeps one credential fresh: it renews it when two thirds of its life
// are over, and tries again, ever less often, while that fails; the old one
// stays in use meanwhile. It is an SVIDSource.
type Rotator struct {
	cfg RotatorConfig

	mu      sync.Mutex
	current *Credential
	changed chan struct{} // closed and replaced with current
}

// Pauses between attempts to renew.
const (
	minRetry = time.Second
	maxRetry = time.Minute
)

// NewRotator validates and starts nothing.
func NewRotator(cfg RotatorConfig) (*Rotator, error) {
	switch {
	case cfg.Name == "":
		return nil, errors.New("rotator without a name")
	case cfg.Issue == nil:
		return nil, fmt.Errorf("rotator %q has no Issue", cfg.Name)
	case cfg.Dir != "" && cfg.Trust == nil:
		return nil, fmt.Errorf("rotator %q writes to %s and has no Trust", cfg.Name, cfg.Dir)
	}
	if cfg.Logger == nil {
		cfg.Logger = slog.Default()
	}
	return &Rotator{cfg: cfg, changed: make(chan struct{})}, nil
}

// Run issues the first credential at once and later ones in time, until ctx
// ends. It returns nil then; what fails is logged and tried again. Once.
func (r *Rotator) Run(ctx context.Context) error {
	if r.cfg.Metrics != nil {
		defer r.cfg.Metrics.expiry.DeleteLabelValues(r.cfg.Name)
		defer r.cfg.Metrics.renewals.DeletePartialMatch(prometheus.Labels{"name": r.cfg.Name})
	}
	var (
		fresh    *Credential // the newest
		issueAt  time.Time   // when to replace it; zero: at once
		written  *Credential // what the directory holds
		trustNew <-chan struct{}
		retry    = minRetry
	)
	for ctx.Err() == nil {
		now := time.Now()
		var issueErr, writeErr error
		if !now.Before(issueAt) {
			var c *Credential
			if c, issueErr = r.issue(ctx); issueErr == nil {
				fresh, issueAt = c, c.RenewAt()
				r.publish(fresh) // whether or not the disk takes it
			}
		}
		// New roots are written also while issuing fails: peers may have rotated.
		if fresh != nil && (written != fresh || woken(trustNew)) {
			if trustNew, writeErr = r.write(fresh); writeErr == nil {
				written = fresh
			} else {
				written = nil
			}
		}
		next := issueAt
		if err := errors.Join(issueErr, writeErr); err != nil {
			r.cfg.Logger.Error("can't renew a certificate; will try again", "name", r.cfg.Name, "in", retry, "error", err)
			next, retry = now.Add(retry), min(2*retry, maxRetry)
		} else {
			retry = minRetry
		}
		waitUntil(ctx, next, trustNew)
	}
	return nil
}

func (r *Rotator) issue(ctx context.Context) (*Credential, error) {
	c, err := r.cfg.Issue(ctx)
	if m := r.cfg.Metrics; m != nil {
		result := "ok"
		if err != nil {
			result = "error"
		}
		m.renewals.WithLabelValues(r.cfg.Name, result).Inc()
	}
	return c, err
}

// write brings the directory up to date and gives the channel that says when the
// trust in it no longer is.
func (r *Rotator) write(c *Credential) (<-chan struct{}, error) {
	if r.cfg.Dir == "" {
		return nil, nil
	}
	trust, changed := r.cfg.Trust()
	return changed, WriteDir(r.cfg.Dir, Files(c, trust))
}

func (r *Rotator) publish(c *Credential) {
	r.mu.Lock()
	defer r.mu.Unlock()
	if r.current == c {
		return
	}
	r.current = c
	close(r.changed)
	r.changed = make(chan struct{})
	if m := r.cfg.Metrics; m != nil {
		m.expiry.WithLabelValues(r.cfg.Name).Set(float64(c.NotAfter().Unix()))
	}
}

// Watch gives the credential, nil before the first, and a channel that is
// closed when there is a newer one.
func (r *Rotator) Watch() (*Credential, <-chan struct{}) {
	r.mu.Lock()
	defer r.mu.Unlock()
	return r.current, r.changed
}

// Wait gives the credential as soon as there is one.
func (r *Rotator) Wait(ctx context.Context) (*Credential, error) {
	for {
		c, changed := r.Watch()
		if c != nil {
			return c, nil
		}
		select {
		case <-changed:
		case <-ctx.Done():
			return nil, fmt.Errorf("wait for certificate %q: %w", r.cfg.Name, ctx.Err())
		}
	}
}

// Current gives the credential, or an error before the first and after the last
// has expired.
func (r *Rotator) Current() (*Credential, error) {
	c, _ := r.Watch()
	switch {
	case c == nil:
		return nil, fmt.Errorf("certificate %q has not been issued yet", r.cfg.Name)
	case c.expired(time.Now()):
		return nil, fmt.Errorf("certificate %q expired at %s and could not be renewed: see the log", r.cfg.Name, c.NotAfter().UTC().Format(time.RFC3339))
	}
	return c, nil
}

// GetX509SVID makes a Rotator an SVIDSource.
func (r *Rotator) GetX509SVID() (*x509svid.SVID, error) {
	c, err := r.Current()
	if err != nil {
		return nil, err
	}
	return c.GetX509SVID()
}

func woken(ch <-chan struct{}) bool {
	select {
	case <-ch:
		return true
	default:
		return false
	}
}
