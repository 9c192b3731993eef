package query

import (
	"context"

	causewayv1 "github.com/causeway-mesh/causeway/api/causeway/v1"
	"github.com/causeway-mesh/causeway/cluster"
	"github.com/causeway-mesh/causeway/federation/resolve"
)

// ListServiceImports implements causeway.v1.Federation.
func (s service) ListServiceImports(ctx context.Context, req *causewayv1.ListServiceImportsRequest) (*causewayv1.ListServiceImportsResponse, error) {
	if err := checkFilter(req.GetFilter()); err != nil {
		return nil, err
	}
	r, err := s.read(ctx, req.GetRevision(), need{all: true})
	if err != nil {
		return nil, err
	}
	out, next, err := paginate(req.GetPage(), sealOf("imports", req.GetFilter(), req.GetRevision()), r.importRows(req.GetFilter()))
	if err != nil {
		return nil, err
	}
	return &causewayv1.ListServiceImportsResponse{Imports: out, Revision: r.revision, NextPageToken: next}, nil
}

func (r *reading) importRows(f *causewayv1.Filter) rows[*causewayv1.ServiceImport] {
	var list []row[*causewayv1.ServiceImport]
	r.ref.Result.Imports.Root().Walk(func(_ []byte, i *resolve.Import) bool {
		if !matches(f.GetNamespace(), i.Namespace) || !matches(f.GetName(), i.Name) {
			return false
		}
		exported, visible := f.GetCluster() == "", false
		for _, e := range i.Exporters {
			exported = exported || string(e.Cluster) == f.GetCluster()
			visible = visible || r.scope.Sees(e.Cluster, i.Namespace)
		}
		if exported && visible {
			list = append(list, row[*causewayv1.ServiceImport]{key(i.Namespace, i.Name), func() *causewayv1.ServiceImport { return r.serviceImport(i) }})
		}
		return false
	})
	return sorted(list)
}

func (r *reading) serviceImport(i *resolve.Import) *causewayv1.ServiceImport {
	out := &causewayv1.ServiceImport{
		Namespace: i.Namespace, Name: i.Name, Headless: i.Headless, Even: i.Even,
		Host: resolve.FrontendKey{Kind: cluster.KindServiceImport, Namespace: i.Namespace, Name: i.Name}.Host(),
	}
	for _, p := range i.Ports {
		port := &causewayv1.ImportPort{Name: p.Name, Port: p.Port, Protocol: p.Protocol, AppProtocol: string(p.AppProtocol)}
		for _, c := range p.Clusters {
			port.Clusters = append(port.Clusters, string(c))
		}
		out.Ports = append(out.Ports, port)
	}
	for _, e := range i.Exporters {
		// An import names all its exporters, since its conditions do too; what is
		// behind an export is for those who see that cluster.
		x := &causewayv1.Exporter{Cluster: string(e.Cluster)}
		out.Exporters = append(out.Exporters, x)
		if !r.scope.Sees(e.Cluster, i.Namespace) {
			continue
		}
		x.Weight, x.CreatedRevision, x.Created = e.Weight, e.Seniority.Revision, timestamp(e.Seniority.Created)
		owner := r.owner(e.Cluster)
		for _, o := range owner.Result.Snapshot.SlicesOf(e.Cluster, i.Namespace, i.Name) {
			slice, ok := o.Value.(*cluster.EndpointSlice)
			if !ok {
				continue
			}
			n := slice.Count()
			x.Endpoints += int32(n.Ready + n.NotReady + n.Leaving)
			x.EndpointsReady += int32(n.Ready)
		}
		ref := cluster.Ref{Kind: cluster.KindServiceExport, Namespace: i.Namespace, Name: i.Name}
		if rep, ok := report(owner, ref, e.Cluster); ok {
			x.Conditions = conditions(rep.Conditions)
		}
	}
	return out
}
