package main

import (
	"fmt"

	corev1 "k8s.io/api/core/v1"

	"github.com/causeway-mesh/causeway/cluster"
)

// source is the cluster.Source of one cluster, driven by edits instead of an API
// server: what an informer would deliver.
type source struct {
	w        world
	c        int
	services []generation // exported, then private ones
	routes   map[int]generation
	slices   bool // whether there are EndpointSlices, and routes
	routing  bool
}

func newSource(w world, c int) *source {
	return &source{w: w, c: c, services: make([]generation, w.Services+w.Private), routes: map[int]generation{}, slices: true, routing: true}
}

// The kinds of edits.
const (
	editReady   = "ready"   // a pod of service N becomes ready, or ceases to be
	editPod     = "pod"     // a pod of service N is replaced by another
	editPrivate = "private" // editReady of a service that is not exported
	editRoute   = "route"   // route N gets other weights
	editSlices  = "slices"  // N = 0 takes all EndpointSlices away, 1 puts them back
	editRoutes  = "routes"  // the same for routes
)

type edit struct {
	What string
	N    int
}

// full is the first set.
func (s *source) full(trustDomain string) cluster.Batch {
	m := s.w.metaOf(s.c, trustDomain)
	b := cluster.Batch{Meta: &m, Synced: true}
	for n := range s.w.Namespaces {
		name := s.w.namespace(n)
		b.Events = append(b.Events, event(s.w.object(s.c, cluster.KindNamespace, "", name, n, &corev1.Namespace{ObjectMeta: meta("", name)})))
	}
	for k := range s.w.Services {
		svc, exp := s.w.exported(s.c, k)
		b.Events = append(b.Events, event(svc), event(exp))
	}
	for k := range s.w.Private {
		ns, name := s.w.namespace(k), privateName(k)
		b.Events = append(b.Events, event(s.w.object(s.c, cluster.KindService, ns, name, k, serviceObject(ns, name))))
	}
	b.Events = append(b.Events, s.allSlices()...)
	b.Events = append(b.Events, s.allRoutes()...)
	if s.c == 0 && s.w.Routes > 0 {
		for n := range s.w.Gateways {
			b.Events = append(b.Events, event(s.w.gateway(n)))
		}
	}
	return b
}

func event(o *cluster.Object) cluster.Event { return cluster.Event{Ref: o.Ref, Object: o} }

func (s *source) slice(k int) cluster.Event {
	e := event(s.w.slice(s.c, k, s.services[k]))
	if !s.slices {
		e.Object = nil
	}
	return e
}

func (s *source) allSlices() (out []cluster.Event) {
	for k := range s.services {
		out = append(out, s.slice(k))
	}
	return out
}

func (s *source) route(i int) cluster.Event {
	e := event(s.w.route(i, s.routes[i]))
	if !s.routing {
		e.Object = nil
	}
	return e
}

func (s *source) allRoutes() (out []cluster.Event) {
	for i := range s.w.Routes {
		if s.w.home(i) == s.c {
			out = append(out, s.route(i))
		}
	}
	return out
}

// apply makes an edit and gives the batch that tells of it.
func (s *source) apply(e edit) (cluster.Batch, error) {
	b := cluster.Batch{Synced: true}
	k := e.N
	switch e.What {
	case editReady:
		s.services[k].ready++
		b.Events = append(b.Events, s.slice(k))
	case editPod:
		s.services[k].pod++
		b.Events = append(b.Events, s.slice(k))
	case editPrivate:
		k += s.w.Services
		s.services[k].ready++
		b.Events = append(b.Events, s.slice(k))
	case editRoute:
		if s.w.home(k) != s.c {
			return b, fmt.Errorf("route %d does not live in cluster %d", k, s.c)
		}
		g := s.routes[k]
		g.rule++
		s.routes[k] = g
		b.Events = append(b.Events, s.route(k))
	case editSlices:
		s.slices = k == 1
		b.Events = s.allSlices()
	case editRoutes:
		s.routing = k == 1
		b.Events = s.allRoutes()
	default:
		return b, fmt.Errorf("there is no edit %q", e.What)
	}
	return b, nil
}
