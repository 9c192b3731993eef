package etcd_test

import (
	"crypto/tls"
	"log/slog"
	"slices"
	"strings"
	"testing"

	"github.com/prometheus/client_golang/prometheus"

	"github.com/causeway-mesh/causeway/federation/store/etcd"
)

func TestParseURL(t *testing.T) {
	t.Parallel()
	for url, want := range map[string][]string{
		"etcd://a":                     {"a:2379"},
		"etcd://a,b.example:1,[::1]:2": {"a:2379", "b.example:1", "[::1]:2"},
		"etcd://[::1],10.0.0.1":        {"[::1]:2379", "10.0.0.1:2379"},
		"":                             nil,
		"embedded":                     nil,
		"etcd://":                      nil,
		"etcd://a,":                    nil,
		"etcd://a/b":                   nil,
		"etcd://a?b":                   nil,
		"etcd://u:p@a":                 nil,
		"etcd://a:0":                   nil,
		"etcd://a:65536":               nil,
		"etcd://a:b":                   nil,
		"etcd://a b":                   nil,
		"etcd://::1":                   nil,
		"http://a":                     nil,
	} {
		got, err := etcd.ParseURL(url)
		if (err == nil) != (want != nil) || !slices.Equal(got, want) {
			t.Errorf("%q: %q, %v; want %q", url, got, err, want)
		}
	}
}

func TestNewRefuses(t *testing.T) {
	t.Parallel()
	good := func() etcd.Config {
		return etcd.Config{
			Endpoints:  []string{"127.0.0.1:1"},
			TLS:        &tls.Config{Certificates: []tls.Certificate{{}}},
			Logger:     slog.New(slog.DiscardHandler),
			Registerer: prometheus.NewRegistry(),
		}
	}
	for says, breaks := range map[string]func(*etcd.Config){
		"endpoints":          func(c *etcd.Config) { c.Endpoints = nil },
		"host:port":          func(c *etcd.Config) { c.Endpoints = []string{"http://a:1"} },
		"no TLS":             func(c *etcd.Config) { c.TLS = nil },
		"client certificate": func(c *etcd.Config) { c.TLS.Certificates = nil },
		"does not verify":    func(c *etcd.Config) { c.TLS.InsecureSkipVerify = true },
		"logger":             func(c *etcd.Config) { c.Logger = nil },
		"registerer":         func(c *etcd.Config) { c.Registerer = nil },
		"negative":           func(c *etcd.Config) { c.RequestTimeout = -1 },
	} {
		cfg := good()
		breaks(&cfg)
		if s, err := etcd.New(cfg); err == nil || !strings.Contains(err.Error(), says) {
			t.Errorf("%s: %v, %v", says, s, err)
		}
	}
	// A Store that was closed leaves nothing behind in the registry.
	cfg := good()
	for range 2 {
		s, err := etcd.New(cfg)
		if err != nil {
			t.Fatal(err)
		}
		if _, err := etcd.New(cfg); err == nil {
			t.Error("two stores share one set of metrics")
		}
		if err := s.Close(); err != nil {
			t.Fatal(err)
		}
	}
}
