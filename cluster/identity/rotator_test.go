package identity

import (
	"bytes"
	"context"
	"crypto/tls"
	"crypto/x509"
	"errors"
	"io"
	"log/slog"
	"os"
	"path/filepath"
	"sync/atomic"
	"testing"
	"testing/synctest"
	"time"

	"github.com/prometheus/client_golang/prometheus"
)

func text(err error) string {
	if err == nil {
		return ""
	}
	return err.Error()
}

func limit(c *tls.Config) *tls.Config {
	c.MaxVersion = tls.VersionTLS12
	return c
}

func certPool(certs []*x509.Certificate) *x509.CertPool {
	pool := x509.NewCertPool()
	for _, c := range certs {
		pool.AddCert(c)
	}
	return pool
}

func startRotator(t *testing.T, cfg RotatorConfig) *Rotator {
	t.Helper()
	cfg.Name = "test"
	cfg.Logger = slog.New(slog.NewTextHandler(io.Discard, nil))
	r, err := NewRotator(cfg)
	if err != nil {
		t.Fatal(err)
	}
	ctx, cancel := context.WithCancel(context.Background())
	done := make(chan error)
	go func() { done <- r.Run(ctx) }()
	t.Cleanup(func() {
		cancel()
		if err := <-done; err != nil {
			t.Error(err)
		}
	})
	return r
}

// gathered gives the value of a metric that has one series.
func gathered(t *testing.T, reg *prometheus.Registry, name string) float64 {
	t.Helper()
	families, err := reg.Gather()
	if err != nil {
		t.Fatal(err)
	}
	for _, f := range families {
		if f.GetName() == name && len(f.Metric) == 1 {
			return f.Metric[0].GetCounter().GetValue() + f.Metric[0].GetGauge().GetValue()
		}
	}
	t.Fatalf("metric %s is not there with one series", name)
	return 0
}

func TestRotatorRenewsAtTwoThirds(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		a := openAuthority(t, "east", "")
		reg := prometheus.NewRegistry()
		m, err := NewMetrics(reg)
		if err != nil {
			t.Fatal(err)
		}
		r := startRotator(t, RotatorConfig{Metrics: m, Issue: func(context.Context) (*Credential, error) { return issueAgent(t, a, 3*time.Hour), nil }})
		first, err := r.Wait(t.Context())
		if err != nil {
			t.Fatal(err)
		}
		start := time.Now()
		_, changed := r.Watch()
		<-changed
		if took := time.Since(start); took < 2*time.Hour || took > 2*time.Hour+time.Second {
			t.Errorf("renewed after %s, want 2h of 3h", took)
		}
		second, _ := r.Watch()
		if second == first || verify(second, a) != nil {
			t.Error("the new credential isn't new, or isn't valid")
		}
		svid, err := r.GetX509SVID()
		if err != nil || svid.Certificates[0] != second.Leaf() {
			t.Errorf("presents another SVID than the newest, %v", err)
		}
		if got := gathered(t, reg, "causeway_identity_renewals_total"); got != 2 {
			t.Errorf("%v renewals counted, want 2", got)
		}
		if got := gathered(t, reg, "causeway_identity_expiry_timestamp_seconds"); got != float64(second.NotAfter().Unix()) {
			t.Errorf("expiry reported as %v", got)
		}
	})
}

// While renewing fails the old credential stays, attempts get rarer but never
// stop, and the first success counts.
func TestRotatorKeepsTrying(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		a := openAuthority(t, "east", "")
		var broken atomic.Bool
		var attempts atomic.Int64
		r := startRotator(t, RotatorConfig{Issue: func(context.Context) (*Credential, error) {
			if attempts.Add(1); broken.Load() {
				return nil, errors.New("no CA")
			}
			return issueAgent(t, a, 3*time.Hour), nil
		}})
		synctest.Wait()
		first, _ := r.Watch()
		broken.Store(true)
		attempts.Store(0)
		time.Sleep(2*time.Hour + 30*time.Minute)
		synctest.Wait()
		if now, err := r.Current(); now != first || err != nil {
			t.Errorf("the old credential is gone while it is still valid: %v", err)
		}
		if n := attempts.Load(); n < 20 || n > 60 {
			t.Errorf("%d attempts in 30 minutes", n)
		}
		time.Sleep(time.Hour)
		synctest.Wait()
		if _, err := r.GetX509SVID(); err == nil {
			t.Error("an expired credential is presented")
		}
		broken.Store(false)
		time.Sleep(maxRetry)
		synctest.Wait()
		if _, err := r.GetX509SVID(); err != nil {
			t.Errorf("after the CA is back: %v", err)
		}
	})
}

func TestRotatorKeepsFiles(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		a := openAuthority(t, "east", "")
		dir := filepath.Join(t.TempDir(), "svid")
		var broken atomic.Bool
		r := startRotator(t, RotatorConfig{
			Dir: dir,
			Trust: func() ([]byte, <-chan struct{}) {
				b, changed := a.WatchBundle()
				return BundlePEM(b), changed
			},
			Issue: func(context.Context) (*Credential, error) {
				if broken.Load() {
					return nil, errors.New("no CA")
				}
				return issueAgent(t, a, 3*time.Hour), nil
			},
		})
		check := func(when string) {
			t.Helper()
			synctest.Wait()
			c, _ := r.Watch()
			for name, want := range map[string][]byte{FileCert: c.CertPEM(), FileKey: c.KeyPEM(), FileBundle: BundlePEM(a.Bundle())} {
				if got, err := os.ReadFile(filepath.Join(dir, name)); err != nil || !bytes.Equal(got, want) {
					t.Errorf("%s: %s is out of date, %v", when, name, err)
				}
			}
		}
		check("at first")
		first, _ := r.Watch()
		time.Sleep(2*time.Hour + time.Minute)
		check("after renewal")
		if now, _ := r.Watch(); now == first {
			t.Error("not renewed")
		}
		if err := a.Rotate(); err != nil {
			t.Fatal(err)
		}
		check("after the root's rotation")

		// Roots go on reaching the files while issuing fails.
		broken.Store(true)
		time.Sleep(2*time.Hour + 10*time.Minute)
		if err := a.Rotate(); err != nil {
			t.Fatal(err)
		}
		check("while issuing fails")

		// A disk that refuses doesn't keep the new credential from memory, and is tried again.
		broken.Store(false)
		time.Sleep(maxRetry)
		synctest.Wait()
		before, _ := r.Watch()
		if err := os.RemoveAll(dir); err != nil {
			t.Fatal(err)
		}
		if err := os.WriteFile(dir, nil, 0o600); err != nil {
			t.Fatal(err)
		}
		time.Sleep(2*time.Hour + time.Minute)
		synctest.Wait()
		if now, _ := r.Watch(); now == before {
			t.Error("a full disk keeps the new credential from memory")
		}
		if err := os.Remove(dir); err != nil {
			t.Fatal(err)
		}
		time.Sleep(2 * maxRetry)
		check("after the disk is back")
	})
}

func TestNewRotatorRefuses(t *testing.T) {
	issue := func(context.Context) (*Credential, error) { return nil, nil }
	for name, cfg := range map[string]RotatorConfig{
		"no name":         {Issue: issue},
		"no issue":        {Name: "x"},
		"files, no trust": {Name: "x", Issue: issue, Dir: "d"},
	} {
		if _, err := NewRotator(cfg); err == nil {
			t.Errorf("%s: accepted", name)
		}
	}
}
