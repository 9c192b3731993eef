package gateways

import (
	"fmt"
	"io"
	"math/rand/v2"
	"net"
	"net/http"
	"slices"
	"sync/atomic"
	"testing"
	"time"

	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"

	"github.com/causeway-mesh/causeway/test/conformance/fleet"
	"github.com/causeway-mesh/causeway/test/traffic"
)

const (
	// growing is how many routes are added one by one.
	growing = 3000
	// toCome is how many of those to come are asked for too.
	toCome = 20
	// atOnce is how far apart Envoy's threads may be with one update: until then a request may
	// still come to one that has not got it. On a busy machine it may, too, while a request is
	// under way that was when the first one was answered: it may be such a thread's.
	atOnce = 500 * time.Millisecond
)

// grown is one route of those that are added. Times are in nanoseconds since the test began;
// 0: not yet. before is how many requests had begun when first was set.
type grown struct{ created, first, before atomic.Int64 }

// testOneByOne adds routes one after the other under load: each is answered with 404 until it
// is with 200, and never with anything else or 404 again.
func testOneByOne(t *testing.T, of *world) {
	w := of.in(t)
	w.gatewayOf("growing")
	address := w.programmed("growing")
	begun, n := time.Now(), seed(t)
	now := func() int64 { return int64(time.Since(begun)) + 1 }
	routes := make([]grown, growing+toCome)
	var flight traffic.Flight
	var made, unseen atomic.Int64 // how many were created; all before are answered
	c := client(&http.Transport{MaxIdleConnsPerHost: 40})
	defer c.CloseIdleConnections()
	load := traffic.Send(t, n, requestRate, func(chance *rand.Rand) error {
		// Half of them to what changes now.
		i := chance.IntN(int(made.Load()) + toCome)
		if from := int(unseen.Load()); chance.IntN(2) == 0 {
			i = from + chance.IntN(int(made.Load())+toCome-from)
		}
		r := &routes[i]
		mine, oldest := flight.Begin()
		defer flight.End(mine)
		sent, first := now(), r.first.Load()
		req, err := http.NewRequestWithContext(t.Context(), http.MethodGet, "http://"+net.JoinHostPort(address, "80")+"/", nil)
		if err != nil {
			return err
		}
		req.Host = hostOf(i)
		resp, err := c.Do(req)
		if err != nil {
			return fmt.Errorf("route %d: %w", i, err)
		}
		defer resp.Body.Close()
		body, err := io.ReadAll(resp.Body)
		switch {
		case err != nil:
			return fmt.Errorf("route %d: %w", i, err)
		case resp.StatusCode == http.StatusOK && r.created.Load() > 0:
			r.before.CompareAndSwap(0, flight.Begun())
			r.first.CompareAndSwap(0, now())
			for at := unseen.Load(); routes[at].first.Load() > 0; at++ {
				unseen.CompareAndSwap(at, at+1)
			}
			return nil
		case resp.StatusCode == http.StatusNotFound && (first == 0 || sent < first+int64(atOnce) || oldest <= r.before.Load()):
			return nil
		}
		return fmt.Errorf("route %d, created after %s, answered first after %s, is asked for after %s and answered with %d: %s", i,
			time.Duration(r.created.Load()), time.Duration(r.first.Load()), time.Duration(sent), resp.StatusCode, body)
	})
	objects := w.objects.Resource(httpRoutes).Namespace(ns)
	for i := range growing {
		routes[i].created.Store(now())
		if err := create(t.Context(), objects, "growing", i); err != nil {
			t.Fatal(err)
		}
		made.Store(int64(i + 1))
		if t.Failed() {
			break
		}
	}
	added := time.Since(begun)
	if !t.Failed() {
		fleet.Eventually(t, "the last route is answered", func() error {
			if at := unseen.Load(); at < growing {
				return fmt.Errorf("route %d is not", at)
			}
			return nil
		})
	}
	sent, rate := load.Stop()
	var took []time.Duration
	for i := range growing {
		took = append(took, time.Duration(routes[i].first.Load()-routes[i].created.Load()))
	}
	slices.Sort(took)
	ms := func(d time.Duration) time.Duration { return d.Round(time.Millisecond) }
	t.Logf("%d routes added one by one within %s under %.0f requests/s (%d); from a route's creation to its first 200 p50 %s, p99 %s, at most %s",
		growing, ms(added), rate, sent, ms(took[growing/2]), ms(took[growing*99/100]), ms(took[growing-1]))
	w.attached("growing", growing)
	if err := objects.DeleteCollection(t.Context(), metav1.DeleteOptions{}, metav1.ListOptions{}); err != nil {
		t.Fatal(err)
	}
	w.removed("growing")
}
