package gossip

import (
	"context"
	"crypto/ecdsa"
	"crypto/elliptic"
	"crypto/rand"
	"crypto/tls"
	"crypto/x509"
	"errors"
	"io"
	"log/slog"
	"math/big"
	"net"
	"net/url"
	"slices"
	"sync"
	"sync/atomic"
	"testing"
	"time"

	"github.com/causeway-mesh/causeway/cluster"
)

// crossing is a TLS server on loopback with a self-signed certificate for id.
type crossing struct {
	addr  string
	ln    net.Listener
	conns sync.WaitGroup
}

func serve(t *testing.T, addr, id string) *crossing {
	t.Helper()
	key, err := ecdsa.GenerateKey(elliptic.P256(), rand.Reader)
	if err != nil {
		t.Fatal(err)
	}
	uri, _ := url.Parse(id)
	template := &x509.Certificate{SerialNumber: big.NewInt(1), NotAfter: time.Now().Add(time.Hour), URIs: []*url.URL{uri}}
	der, err := x509.CreateCertificate(rand.Reader, template, template, key.Public(), key)
	if err != nil {
		t.Fatal(err)
	}
	ln, err := tls.Listen("tcp", addr, &tls.Config{Certificates: []tls.Certificate{{Certificate: [][]byte{der}, PrivateKey: key}}})
	if err != nil {
		t.Fatal(err)
	}
	c := &crossing{addr: ln.Addr().String(), ln: ln}
	c.conns.Go(func() {
		for {
			conn, err := ln.Accept()
			if err != nil {
				return
			}
			c.conns.Go(func() {
				_, _ = io.Copy(io.Discard, conn)
				_ = conn.Close()
			})
		}
	})
	t.Cleanup(c.close)
	return c
}

func (c *crossing) close() {
	_ = c.ln.Close()
	c.conns.Wait()
}

// only accepts a server whose certificate bears id.
func only(id string) *tls.Config {
	return &tls.Config{InsecureSkipVerify: true, VerifyConnection: func(s tls.ConnectionState) error {
		if got := s.PeerCertificates[0].URIs[0].String(); got != id {
			return errors.New("server is " + got)
		}
		return nil
	}}
}

// prober runs one whose votes come on a channel; set replaces its targets.
type prober struct {
	*Prober
	votes   chan []Vote
	targets atomic.Pointer[[]Target]
}

func (p *prober) set(targets ...Target) { p.targets.Store(&targets) }

func startProber(t *testing.T, change func(*ProberConfig)) *prober {
	t.Helper()
	p := &prober{votes: make(chan []Vote, 100)}
	p.set()
	cfg := ProberConfig{
		Targets:  func() []Target { return *p.targets.Load() },
		OnVotes:  func(v []Vote) { p.votes <- v },
		Interval: 10 * time.Millisecond, Timeout: 5 * time.Second,
		Logger: slog.New(slog.DiscardHandler),
	}
	change(&cfg)
	var err error
	if p.Prober, err = NewProber(cfg); err != nil {
		t.Fatal(err)
	}
	ctx, cancel := context.WithCancel(context.Background())
	done := make(chan error, 1)
	go func() { done <- p.Run(ctx) }()
	t.Cleanup(func() {
		cancel()
		if err := <-done; err != nil {
			t.Error(err)
		}
	})
	return p
}

func (p *prober) await(t *testing.T, want ...Vote) {
	t.Helper()
	deadline := time.After(time.Minute)
	for {
		select {
		case got := <-p.votes:
			// Votes has them by then, unless others are on their way already.
			if slices.Equal(got, want) && slices.Equal(p.Votes(), want) {
				return
			}
		case <-deadline:
			t.Fatalf("votes are %v, want %v", p.Votes(), want)
		}
	}
}

func TestProber(t *testing.T) {
	east := serve(t, "127.0.0.1:0", "spiffe://east/crossing")
	west := serve(t, "127.0.0.1:0", "spiffe://west/crossing")
	impostor := serve(t, "127.0.0.1:0", "spiffe://east/other")
	mute, err := net.Listen("tcp", "127.0.0.1:0") // accepts, and never answers
	if err != nil {
		t.Fatal(err)
	}
	defer func() { _ = mute.Close() }()

	target := func(id, want string, addrs ...string) Target {
		return Target{Cluster: cluster.ID(id), Addresses: addrs, TLS: only(want)}
	}
	p := startProber(t, func(c *ProberConfig) { c.Timeout = 500 * time.Millisecond })
	p.set(
		target("east", "spiffe://east/crossing", "127.0.0.1:1", east.addr), // one of two answers
		target("west", "spiffe://west/crossing", west.addr),
		target("fake", "spiffe://east/crossing", impostor.addr),
		target("mute", "spiffe://east/crossing", mute.Addr().String()),
		target("none", "spiffe://east/crossing"),
		Target{Cluster: "plain", Addresses: []string{east.addr}}, // no TLS: not probed
	)
	p.await(t, Vote{"east", true}, Vote{"fake", false}, Vote{"mute", false}, Vote{"west", true})

	west.close()
	p.await(t, Vote{"east", true}, Vote{"fake", false}, Vote{"mute", false}, Vote{"west", false})
	serve(t, west.addr, "spiffe://west/crossing")
	p.await(t, Vote{"east", true}, Vote{"fake", false}, Vote{"mute", false}, Vote{"west", true})

	// A cluster that isn't suspect any more is neither probed nor voted on.
	p.set(target("west", "spiffe://west/crossing", west.addr))
	p.await(t, Vote{"west", true})
}

// One failed round makes no vote, two in succession do, one success unmakes it;
// no more clusters are probed at once than configured.
func TestProberDampsAndBounds(t *testing.T) {
	good := serve(t, "127.0.0.1:0", "spiffe://east/crossing")
	var down atomic.Bool
	var calls, inside, most atomic.Int64
	p := startProber(t, func(c *ProberConfig) {
		c.FailAfter, c.Concurrency = 3, 2
		c.Dial = func(ctx context.Context, network, addr string) (net.Conn, error) {
			n := inside.Add(1)
			defer inside.Add(-1)
			for m := most.Load(); n > m && !most.CompareAndSwap(m, n); m = most.Load() {
			}
			calls.Add(1)
			if down.Load() {
				return nil, errors.New("down")
			}
			return (&net.Dialer{}).DialContext(ctx, network, addr)
		}
	})
	var targets []Target
	for _, id := range []string{"a", "b", "c", "d", "e", "f"} {
		targets = append(targets, Target{Cluster: cluster.ID(id), Addresses: []string{good.addr}, TLS: only("spiffe://east/crossing")})
	}
	p.set(targets...)
	votes := func(reachable bool) []Vote {
		var out []Vote
		for _, t := range targets {
			out = append(out, Vote{t.Cluster, reachable})
		}
		return out
	}
	p.await(t, votes(true)...)
	calls.Store(0)
	down.Store(true)
	p.await(t, votes(false)...)
	if n := calls.Load(); n < 3*6-5 { // the round under way when it went down may have had up to five done
		t.Errorf("%d probes before the votes turned, want three rounds of six", n)
	}
	down.Store(false)
	p.await(t, votes(true)...)
	if m := most.Load(); m > 2 || m < 1 {
		t.Errorf("%d clusters were probed at once, want at most 2", m)
	}
}

func TestNewProberRefuses(t *testing.T) {
	for name, cfg := range map[string]ProberConfig{
		"no targets": {OnVotes: func([]Vote) {}},
		"no votes":   {Targets: func() []Target { return nil }},
		"negative":   {OnVotes: func([]Vote) {}, Targets: func() []Target { return nil }, Interval: -1},
	} {
		if _, err := NewProber(cfg); err == nil {
			t.Errorf("%s: accepted", name)
		}
	}
}
