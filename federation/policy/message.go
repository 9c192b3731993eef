package policy

import (
	"fmt"

	causewayv1 "github.com/causeway-mesh/causeway/api/causeway/v1"
)

// Message gives the Policy as it is stored and sent.
func (p *Policy) Message() *causewayv1.ClusterPolicy {
	out := &causewayv1.ClusterPolicy{Name: p.Name, Export: p.Export.message(), Route: p.Route.message()}
	if c := p.Clusters; c != nil {
		out.Clusters = &causewayv1.ClusterPolicy_Clusters{Names: c.Names, Selector: c.Selector}
	}
	if q := p.Quota; q != nil {
		out.Quota = &causewayv1.ClusterPolicy_Quota{Objects: q.Objects, Bytes: q.Bytes}
	}
	return out
}

func (n *Namespaces) message() *causewayv1.ClusterPolicy_Namespaces {
	if n == nil {
		return nil
	}
	out := &causewayv1.ClusterPolicy_Namespaces{Deny: n.Deny}
	if n.Allow != nil {
		out.Allow = &causewayv1.ClusterPolicy_Patterns{Patterns: n.Allow}
	}
	return out
}

// FromMessage reads and checks a Policy, which shares the message's lists.
func FromMessage(m *causewayv1.ClusterPolicy) (Policy, error) {
	p := Policy{Name: m.GetName(), Export: namespaces(m.GetExport()), Route: namespaces(m.GetRoute())}
	if c := m.GetClusters(); c != nil {
		p.Clusters = &Clusters{Names: c.GetNames(), Selector: c.GetSelector()}
	}
	if q := m.GetQuota(); q != nil {
		p.Quota = &Quota{Objects: q.Objects, Bytes: q.Bytes}
	}
	if err := p.Check(); err != nil {
		return Policy{}, fmt.Errorf("policy %.80q: %w", p.Name, err)
	}
	return p, nil
}

func namespaces(m *causewayv1.ClusterPolicy_Namespaces) *Namespaces {
	if m == nil {
		return nil
	}
	n := &Namespaces{Deny: m.GetDeny()}
	if a := m.GetAllow(); a != nil {
		n.Allow = append([]string{}, a.GetPatterns()...)
	}
	return n
}
