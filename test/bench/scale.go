package main

import (
	"context"
	"errors"
	"fmt"
	"log/slog"
	"path/filepath"
	"sync"
	"time"

	corev1 "k8s.io/api/core/v1"

	"github.com/causeway-mesh/causeway/cluster"
	"github.com/causeway-mesh/causeway/federation/publish"
	"github.com/causeway-mesh/causeway/federation/record"
	"github.com/causeway-mesh/causeway/federation/store"
	"github.com/causeway-mesh/causeway/federation/store/etcd"
	"github.com/causeway-mesh/causeway/xds/translate"
)

// many is 100 clusters of 100 services of 10 endpoints. Ten clusters share a
// network and export services of the same names: there are 1,000 imports of 100
// endpoints, as ten regions of ten clusters have them.
var many = world{Clusters: 100, Networks: 10, Services: 100, Endpoints: 10, Namespaces: 10, Routes: 100, Private: 5, Gateways: 1, PerNetwork: true}

// Of the sustained load.
const (
	perSecond = 300
	lasting   = 20 * time.Second
	writers   = 8 // transactions under way at once
)

// mocks are clusters without an agent: the driver writes what theirs would publish.
type mocks struct {
	s     *set
	state [][]generation // by cluster and service
	mu    sync.Mutex     // of state
}

// record makes the records of a cluster.
func (m *mocks) records(c int) (ops []store.Op, err error) {
	w, id := m.s.w, m.s.w.cluster(c)
	add := func(r record.Record, e error) {
		err = errors.Join(err, e)
		ops = append(ops, store.Put(r.Key, r.Value))
	}
	td := m.s.cas[c].TrustDomain().Name()
	var roots [][]byte
	for _, x := range m.s.cas[c].Bundle().X509Authorities() {
		roots = append(roots, x.Raw)
	}
	add(record.EncodeMeta(id, w.metaOf(c, td)))
	add(record.EncodeTrust(id, record.Trust{TrustDomain: td, Authorities: roots}))
	for n := range w.Namespaces {
		name := w.namespace(n)
		add(record.EncodeObject(w.object(c, cluster.KindNamespace, "", name, n, &corev1.Namespace{ObjectMeta: meta("", name)})))
	}
	for k := range w.Services {
		add(record.EncodeSlice(w.slice(c, k, m.state[c][k])))
		svc, exp := w.exported(c, k)
		add(record.EncodeService(svc, exp))
	}
	for i := range w.Routes {
		if w.home(i) == c {
			add(record.EncodeObject(w.route(i, generation{})))
		}
	}
	return ops, err
}

// write puts records into the store.
func (m *mocks) write(ctx context.Context, ops []store.Op) error {
	txns, err := store.Split(ops)
	if err != nil {
		return err
	}
	for _, t := range txns {
		if _, err := m.s.admin.Commit(ctx, t); err != nil {
			return err
		}
	}
	return nil
}

// hold keeps the leases of the mocked clusters until ctx ends.
func (m *mocks) hold(ctx context.Context, c int) {
	r, err := record.EncodeAlive(m.s.w.cluster(c), "0")
	if err == nil {
		err = m.s.admin.Hold(ctx, r.Key, r.Value, publish.DefaultTTL)
	}
	if ctx.Err() == nil {
		m.s.log.Error("lease of a mocked cluster", "cluster", c, "error", err)
	}
}

// change makes one endpoint of a service ready, or not ready.
func (m *mocks) change(ctx context.Context, c, k int) error {
	m.mu.Lock()
	m.state[c][k].ready++
	o := m.s.w.slice(c, k, m.state[c][k])
	m.mu.Unlock()
	r, err := record.EncodeSlice(o)
	if err != nil {
		return err
	}
	_, err = m.s.admin.Commit(ctx, store.Txn{Ops: []store.Op{store.Put(r.Key, r.Value)}})
	return err
}

// slices takes all EndpointSlices of the mocked clusters away, or puts them back.
func (m *mocks) slices(ctx context.Context, there bool) error {
	for c := 1; c < m.s.w.Clusters; c++ {
		var ops []store.Op
		for k := range m.s.w.Services {
			r, err := record.EncodeSlice(m.s.w.slice(c, k, m.state[c][k]))
			if err != nil {
				return err
			}
			op := store.Put(r.Key, r.Value)
			op.Remove = !there
			ops = append(ops, op)
		}
		if err := m.write(ctx, ops); err != nil {
			return err
		}
	}
	return nil
}

func scale(ctx context.Context, o options, r *report, dir string, log *slog.Logger) error {
	ctx, cancel := context.WithCancel(ctx)
	defer cancel()
	w := many
	s, err := open(ctx, w, dir, log)
	if err != nil {
		return err
	}
	defer s.close()
	m := &mocks{s: s}
	for range w.Clusters {
		m.state = append(m.state, make([]generation, w.Services))
	}
	for c := 1; c < w.Clusters; c++ {
		ops, err := m.records(c)
		if err != nil {
			return err
		}
		if err := m.write(ctx, ops); err != nil {
			return err
		}
		go m.hold(ctx, c)
	}
	if err := s.start(ctx, 0); err != nil {
		return err
	}
	if err := s.settle(); err != nil {
		return err
	}
	if err := s.calm(ctx, 2*time.Second); err != nil {
		return err
	}
	r.heading("%d clusters (%d networks) x %d services x %d endpoints in one store, %d routes; one agent with %d sidecars; a hub", w.Clusters, w.Networks, w.Services, w.Endpoints, w.Routes, w.Namespaces)
	hub, err := s.hub(ctx)
	if err != nil {
		return err
	}
	r.goal("cold start of a hub to the whole set resolved", hub.Round(time.Millisecond).String(), "< 10 s", hub < 10*time.Second)
	cold, err := s.coldStart(ctx, 0)
	if err != nil {
		return err
	}
	r.goal("cold start of the agent to the last proxy's full state", cold.Round(time.Millisecond).String(), "< 10 s", cold < 10*time.Second)
	if o.profile != "" {
		if err := s.profile(filepath.Join(o.profile, "scale")); err != nil {
			return err
		}
	}
	if err := m.sustain(ctx, r); err != nil {
		return err
	}
	if o.profile != "" {
		if err := s.profile("-"); err != nil {
			return err
		}
	}
	return m.memory(ctx, r)
}

// hub starts a hub and waits until it has everything.
func (s *set) hub(ctx context.Context) (time.Duration, error) {
	_, revision, err := s.admin.List(ctx, store.ClustersPrefix+string(s.w.cluster(0))+"/", 0)
	if err != nil {
		return 0, err
	}
	client, err := s.client(etcd.HubUser)
	if err != nil {
		return 0, err
	}
	began := time.Now()
	p, _, err := start(ctx, "hub", setup{Part: partHub, World: s.w, Store: client}, s.output)
	if err != nil {
		return 0, err
	}
	s.hubs = append(s.hubs, p) // it follows along for the rest of the run
	_, err = p.ask(request{Settle: &settle{Revision: revision}})
	return time.Since(began), err
}

// sustain makes endpoint changes in all clusters at a rate. Imports take turns, so
// that none has two changes under way.
func (m *mocks) sustain(ctx context.Context, r *report) error {
	s, w := m.s, m.s.w
	if err := s.calm(ctx, 300*time.Millisecond); err != nil {
		return err
	}
	sidecars := s.of(translate.RoleSidecar, 0)
	total := int(perSecond * lasting.Seconds())
	type job struct{ c, k int }
	jobs := make(chan job)
	var (
		mu    sync.Mutex
		times []time.Duration
		errs  []error
		wg    sync.WaitGroup // of writers, then of those who wait for arrivals
		fail  = func(err error) {
			mu.Lock()
			defer mu.Unlock()
			errs = append(errs, err)
		}
	)
	before, err := s.usage()
	if err != nil {
		return err
	}
	for range writers {
		wg.Go(func() {
			for j := range jobs {
				resource := w.backend(j.c, j.k)
				a := s.run.expect(resource, sidecars)
				began := time.Now()
				if err := m.change(ctx, j.c, j.k); err != nil {
					fail(err)
					continue
				}
				wg.Go(func() {
					select {
					case <-a.done:
						last := int64(0)
						for _, at := range a.at {
							last = max(last, at)
						}
						mu.Lock()
						times = append(times, time.Duration(last-began.UnixNano()))
						mu.Unlock()
					case <-time.After(changeTimeout):
						fail(fmt.Errorf("%s did not reach %d sidecars", resource, len(s.run.abandon(resource, a))))
					case <-ctx.Done():
					}
				})
			}
		})
	}
	began := time.Now()
	per := w.Clusters / w.Networks
	for n := range total {
		time.Sleep(time.Until(began.Add(time.Duration(n) * time.Second / perSecond)))
		imported := n % (w.Networks * w.Services)
		// Cluster 0 has an agent of its own.
		member := 1 + n/(w.Networks*w.Services)%(per-1)
		jobs <- job{imported/w.Services*per + member, imported % w.Services}
	}
	close(jobs)
	wrote := time.Since(began)
	wg.Wait()
	if err := errors.Join(errs...); err != nil {
		return err
	}
	after, err := s.usage()
	if err != nil {
		return err
	}
	rate := float64(total) / wrote.Seconds()
	p99 := quantile(times, .99)
	r.goal(fmt.Sprintf("%d endpoint changes/s for %v, to the last proxy (sent at %.0f/s)", perSecond, lasting, rate), both(quantile(times, .5), p99), "p99 < 1 s", p99 < time.Second && rate > .95*perSecond)
	r.figure("CPU of the agent meanwhile", fmt.Sprintf("%.0f %% of a core", 100*(after.CPU-before.CPU).Seconds()/wrote.Seconds()))
	return nil
}

// memory measures what the agent holds for the remote endpoints.
func (m *mocks) memory(ctx context.Context, r *report) error {
	var got [2]heap
	for i, there := range []bool{false, true} {
		if err := m.slices(ctx, there); err != nil {
			return err
		}
		_, revision, err := m.s.admin.List(ctx, "/causeway/bench/", 0)
		if err != nil {
			return err
		}
		if _, err := m.s.agents[0].ask(request{Settle: &settle{Revision: revision, Proxies: len(m.s.proxies[0])}}); err != nil {
			return err
		}
		if err := m.s.calm(ctx, time.Second); err != nil {
			return err
		}
		x, err := m.s.agents[0].ask(request{Heap: true})
		if err != nil {
			return err
		}
		got[i] = x.Heap
	}
	r.figure("the agent's heap in all (resident)", fmt.Sprintf("%s (%s)", mb(float64(got[1].Live)), mb(float64(got[1].Resident))))
	each := (float64(got[1].Live) - float64(got[0].Live)) / float64(m.s.w.remoteEndpoints()) * 10_000
	r.goal(fmt.Sprintf("memory per 10,000 of the %d remote endpoints", m.s.w.remoteEndpoints()), mb(each), "<= 10 MB", each <= 10e6)
	return nil
}
