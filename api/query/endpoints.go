package query

import (
	"context"
	"fmt"

	causewayv1 "github.com/causeway-mesh/causeway/api/causeway/v1"
	"github.com/causeway-mesh/causeway/cluster"
	"github.com/causeway-mesh/causeway/federation/resolve"
)

// ListEndpoints implements causeway.v1.Federation.
func (s service) ListEndpoints(ctx context.Context, req *causewayv1.ListEndpointsRequest) (*causewayv1.ListEndpointsResponse, error) {
	if err := checkFilter(req.GetFilter()); err != nil {
		return nil, err
	}
	r, err := s.read(ctx, req.GetRevision(), need{all: req.GetSeenFrom() == "", one: cluster.ID(req.GetSeenFrom())})
	if err != nil {
		return nil, err
	}
	switch k := resolve.BackendKind(req.GetBackendKind()); k {
	case "", resolve.BackendService, resolve.BackendImport, resolve.BackendShare:
	default:
		return nil, invalidf("backend_kind %.100q is none of %s, %s, %s", k, resolve.BackendService, resolve.BackendImport, resolve.BackendShare)
	}
	views := r.served()
	if req.GetSeenFrom() != "" {
		v, err := r.view(req.GetSeenFrom())
		if err != nil {
			return nil, err
		}
		views = []View{v}
	}
	seal := sealOf("endpoints", req.GetFilter(), req.GetRevision(), req.GetSeenFrom(), req.GetBackendKind())
	out, next, err := paginate(req.GetPage(), seal, r.endpointRows(views, req.GetFilter(), resolve.BackendKind(req.GetBackendKind())))
	if err != nil {
		return nil, err
	}
	return &causewayv1.ListEndpointsResponse{Endpoints: out, Revision: r.revision, NextPageToken: next}, nil
}

// endpointRows walks the views, which are sorted by cluster, and in each the
// backends, which are sorted by key: only one backend's rows are held at a time.
func (r *reading) endpointRows(views []View, f *causewayv1.Filter, kind resolve.BackendKind) rows[*causewayv1.BackendEndpoint] {
	return func(yield func(row[*causewayv1.BackendEndpoint]) bool) {
		for _, v := range views {
			stop := false
			v.Result.Backends.Root().Walk(func(_ []byte, b *resolve.Backend) bool {
				if (kind != "" && b.Key.Kind != kind) || !matches(f.GetNamespace(), b.Key.Namespace) || !matches(f.GetName(), b.Key.Name) ||
					!r.scope.Sees(v.Cluster, b.Key.Namespace) {
					return false
				}
				for e := range sorted(backendRows(v, b, f.GetCluster())) {
					if !yield(e) {
						stop = true
						break
					}
				}
				return stop
			})
			if stop {
				return
			}
		}
	}
}

func backendRows(v View, b *resolve.Backend, in string) []row[*causewayv1.BackendEndpoint] {
	var list []row[*causewayv1.BackendEndpoint]
	for _, g := range b.Groups {
		if !matches(in, string(g.Cluster)) {
			continue
		}
		for _, e := range g.Endpoints {
			k := key(string(v.Cluster), b.Key.String(), fmt.Sprintf("%010d", g.Priority), string(g.Cluster), address(e), fmt.Sprint(e.Healthy))
			list = append(list, row[*causewayv1.BackendEndpoint]{k, func() *causewayv1.BackendEndpoint { return backendEndpoint(v, b.Key, g, e) }})
		}
	}
	return list
}

func backendEndpoint(v View, b resolve.BackendKey, g resolve.EndpointGroup, e resolve.Endpoint) *causewayv1.BackendEndpoint {
	return &causewayv1.BackendEndpoint{
		SeenFrom: string(v.Cluster), Backend: backend(b), Address: address(e),
		Cluster: string(g.Cluster), Region: g.Region, Zone: g.Zone, Pod: e.Pod,
		Priority: g.Priority, Weight: e.Weight, Healthy: e.Healthy, ViaCrossing: g.Crossing, Behind: int32(e.Behind), Missing: e.Missing,
	}
}

func backend(b resolve.BackendKey) *causewayv1.Backend {
	return &causewayv1.Backend{Kind: string(b.Kind), Namespace: b.Namespace, Name: b.Name, Port: b.Port, Cluster: string(b.Cluster), Protocol: b.Protocol}
}

// address is empty where only the number of endpoints is known.
func address(e resolve.Endpoint) string {
	switch {
	case e.Counted():
		return ""
	case e.Host != "":
		return e.Host
	}
	return e.Addr.String()
}
