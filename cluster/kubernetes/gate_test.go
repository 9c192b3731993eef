package kubernetes

import (
	"context"
	"errors"
	"slices"
	"sync/atomic"
	"testing"
	"testing/synctest"
	"time"

	apierrors "k8s.io/apimachinery/pkg/api/errors"
	"k8s.io/apimachinery/pkg/runtime/schema"

	"github.com/causeway-mesh/causeway/cluster"
)

// However long an outage was, all who wait go on within one probe of its end, and
// nobody but the prober knocks meanwhile.
func TestGate(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		var down atomic.Bool
		var probes, passed atomic.Int32
		var said []bool
		g := newGate(func(context.Context) error {
			probes.Add(1)
			if down.Load() {
				return errors.New("connection refused")
			}
			return nil
		})
		if err := g.wait(t.Context()); err != nil {
			t.Fatal("nobody is to wait before there is a prober")
		}
		ctx, cancel := context.WithCancel(t.Context())
		defer cancel()
		go g.run(ctx, func(open bool) { said = append(said, open) })
		synctest.Wait()
		if err := g.wait(ctx); err != nil {
			t.Fatal(err)
		}
		down.Store(true)
		g.doubt()
		synctest.Wait()
		for range 20 {
			go func() {
				if g.wait(ctx) == nil {
					passed.Add(1)
				}
			}()
		}
		before := probes.Load()
		time.Sleep(time.Minute)
		if n := passed.Load(); n > 0 || g.open() {
			t.Errorf("%d passed while the server was down", n)
		}
		if n := probes.Load() - before; n < 100 || n > 130 {
			t.Errorf("%d probes in a minute", n)
		}
		down.Store(false)
		time.Sleep(probeEvery)
		synctest.Wait()
		if n := passed.Load(); n != 20 {
			t.Errorf("%d of 20 passed %s after the server's return", n, probeEvery)
		}
		if !slices.Equal(said, []bool{true, false, true}) {
			t.Errorf("the changes were %v", said)
		}
		// What the server says of a request is no reason to doubt it.
		for err, want := range map[error]bool{
			apierrors.NewNotFound(schema.GroupResource{}, "x"):      false,
			apierrors.NewForbidden(schema.GroupResource{}, "", nil): false,
			apierrors.NewResourceExpired("old"):                     false,
			apierrors.NewServiceUnavailable("starting"):             true,
			apierrors.NewTooManyRequests("slow down", 1):            true,
			errors.New("connection refused"):                        true,
			context.Canceled:                                        false,
		} {
			if serverFault(err) != want {
				t.Errorf("serverFault(%v) is %v", err, !want)
			}
		}
	})
}

// Each kind that a cluster's state may hold is read, and can be decoded in every
// version that is asked for.
func TestResources(t *testing.T) {
	s := newScheme()
	for _, k := range cluster.Kinds {
		r := byKind(k)
		if r == nil || r.hidden {
			t.Errorf("%s is not read", k)
			continue
		}
		for _, v := range r.versions {
			gvk := schema.GroupVersionKind{Group: r.group, Version: v, Kind: string(k)}
			for _, gvk := range []schema.GroupVersionKind{gvk, gvk.GroupVersion().WithKind(gvk.Kind + "List")} {
				if _, err := s.New(gvk); err != nil {
					t.Error(err)
				}
			}
		}
	}
}
