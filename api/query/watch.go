package query

import (
	"errors"
	"slices"

	"google.golang.org/grpc"
	"google.golang.org/protobuf/proto"

	causewayv1 "github.com/causeway-mesh/causeway/api/causeway/v1"
	"github.com/causeway-mesh/causeway/federation/resolve"
)

// Watch implements causeway.v1.Federation. It compares what is with what it
// last sent whenever something changed and the client has taken the events
// before, so nothing piles up behind a slow one.
func (s service) Watch(req *causewayv1.WatchRequest, stream grpc.ServerStreamingServer[causewayv1.WatchResponse]) error {
	if err := checkFilter(req.GetFilter()); err != nil {
		return err
	}
	types := slices.Clone(req.GetTypes())
	for _, t := range types {
		if _, ok := causewayv1.WatchType_name[int32(t)]; !ok || t == causewayv1.WatchType_WATCH_TYPE_UNSPECIFIED {
			return invalidf("unknown watch type %d", t)
		}
	}
	if len(types) == 0 {
		for t := range causewayv1.WatchType_name {
			if t != 0 {
				types = append(types, causewayv1.WatchType(t))
			}
		}
	}
	slices.Sort(types)
	types = slices.Compact(types)

	scope, err := scopeOf(stream.Context())
	if err != nil {
		return err
	}
	select {
	case s.watches <- struct{}{}:
		defer func() { <-s.watches }()
	default:
		return errTooMany
	}
	s.metrics.watches.Inc()
	defer s.metrics.watches.Dec()

	w := &watcher{Server: s.Server, filter: req.GetFilter(), stream: stream, sent: map[causewayv1.WatchType]*sentType{}}
	for _, t := range types {
		w.sent[t] = &sentType{}
	}
	synced := false
	for {
		changed := s.cfg.Changed()
		switch r, err := newReading(scope, s.cfg.Views()); {
		case errors.Is(err, errNotYet): // wait for it
		case err != nil:
			return err
		default:
			for _, t := range types {
				if err := w.update(r, t); err != nil {
					return err
				}
			}
			if !synced {
				synced = true
				if err := w.send(r, &causewayv1.WatchResponse{Event: causewayv1.EventType_EVENT_TYPE_SYNCED}); err != nil {
					return err
				}
			}
		}
		select {
		case <-changed:
		case <-stream.Context().Done():
			return stream.Context().Err()
		case <-s.stopping:
			return errStopping
		}
	}
}

// watcher is one Watch; its goroutine alone touches it.
type watcher struct {
	*Server
	filter *causewayv1.Filter
	stream grpc.ServerStreamingServer[causewayv1.WatchResponse]
	sent   map[causewayv1.WatchType]*sentType
}

// sentType is what the client knows of one type.
type sentType struct {
	rows map[string]proto.Message
	// inputs are the immutable values that rows were made of, if those are all
	// that they depend on.
	inputs []any
}

func (w *watcher) update(r *reading, t causewayv1.WatchType) error {
	switch t {
	case causewayv1.WatchType_WATCH_TYPE_CLUSTERS:
		return updateRows(w, r, t, nil, w.clusterRows(r, w.filter, true), func(c *causewayv1.Cluster) *causewayv1.WatchResponse {
			c.Revision = 0 // it grows with everybody's changes
			return &causewayv1.WatchResponse{Object: &causewayv1.WatchResponse_Cluster{Cluster: c}}
		})
	case causewayv1.WatchType_WATCH_TYPE_SERVICE_IMPORTS:
		return updateRows(w, r, t, results(r), r.importRows(w.filter), func(i *causewayv1.ServiceImport) *causewayv1.WatchResponse {
			return &causewayv1.WatchResponse{Object: &causewayv1.WatchResponse_Import{Import: i}}
		})
	case causewayv1.WatchType_WATCH_TYPE_ROUTES:
		return updateRows(w, r, t, results(r), w.routeRows(r, w.filter, false), func(o *causewayv1.Route) *causewayv1.WatchResponse {
			return &causewayv1.WatchResponse{Object: &causewayv1.WatchResponse_Route{Route: o}}
		})
	case causewayv1.WatchType_WATCH_TYPE_ENDPOINTS:
		var inputs []any
		for _, v := range r.served() {
			inputs = append(inputs, v.Cluster, v.Result.Backends)
		}
		return updateRows(w, r, t, inputs, r.endpointRows(r.served(), w.filter, resolve.BackendKind("")), func(e *causewayv1.BackendEndpoint) *causewayv1.WatchResponse {
			return &causewayv1.WatchResponse{Object: &causewayv1.WatchResponse_Endpoint{Endpoint: e}}
		})
	case causewayv1.WatchType_WATCH_TYPE_PROXIES:
		return updateRows(w, r, t, nil, w.proxyRows(r, w.filter, 0), func(p *causewayv1.Proxy) *causewayv1.WatchResponse {
			p.Revision, p.AckedRevision = 0, 0
			return &causewayv1.WatchResponse{Object: &causewayv1.WatchResponse_Proxy{Proxy: p}}
		})
	case causewayv1.WatchType_WATCH_TYPE_PROBLEMS:
		return updateRows(w, r, t, nil, w.problemRows(r, r.scope, w.filter), func(p *causewayv1.Problem) *causewayv1.WatchResponse {
			return &causewayv1.WatchResponse{Object: &causewayv1.WatchResponse_Problem{Problem: p}}
		})
	}
	return nil
}

func results(r *reading) []any {
	var out []any
	for _, id := range sortedKeys(r.views) {
		out = append(out, id, r.views[id].Result)
	}
	return out
}

// updateRows sends what differs from what was sent. If inputs are given and the
// same as last time, nothing can differ.
func updateRows[T proto.Message](w *watcher, r *reading, t causewayv1.WatchType, inputs []any, all rows[T], wrap func(T) *causewayv1.WatchResponse) error {
	known := w.sent[t]
	if inputs != nil && slices.Equal(inputs, known.inputs) {
		return nil
	}
	now := make(map[string]proto.Message, len(known.rows))
	for e := range all {
		m := e.make()
		event := wrap(m)
		before, had := known.rows[e.key]
		now[e.key] = m
		switch {
		case !had:
			event.Event = causewayv1.EventType_EVENT_TYPE_ADDED
		case proto.Equal(before, m):
			now[e.key] = before
			continue
		default:
			event.Event = causewayv1.EventType_EVENT_TYPE_MODIFIED
		}
		if err := w.send(r, event); err != nil {
			return err
		}
	}
	for _, k := range sortedKeys(known.rows) {
		if _, ok := now[k]; ok {
			continue
		}
		event := wrap(known.rows[k].(T))
		event.Event = causewayv1.EventType_EVENT_TYPE_DELETED
		if err := w.send(r, event); err != nil {
			return err
		}
	}
	known.rows, known.inputs = now, inputs
	return nil
}

func (w *watcher) send(r *reading, event *causewayv1.WatchResponse) error {
	event.Revision = r.revision
	if err := w.stream.Send(event); err != nil {
		return err
	}
	w.metrics.events.Inc()
	return nil
}
