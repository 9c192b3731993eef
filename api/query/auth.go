package query

import (
	"context"
	"errors"
	"fmt"

	"google.golang.org/grpc/credentials"
	"google.golang.org/grpc/peer"

	"github.com/causeway-mesh/causeway/cluster"
	"github.com/causeway-mesh/causeway/cluster/identity"
)

// Caller is who calls, proven.
type Caller struct {
	// Name is for logs: a SPIFFE id, or what a token says.
	Name string
	// Identity is that of the client certificate; zero for other credentials.
	Identity identity.Identity
	// Bearer is who a token speaks for; nil for certificates.
	Bearer *Bearer
}

// Scope is what a caller may see. It is asked for every row; any goroutine may
// call it.
type Scope interface {
	// Sees reports whether the caller may see what the cluster has in the
	// namespace. An empty namespace asks for what has none: the cluster itself.
	Sees(id cluster.ID, namespace string) bool
}

// Everything is the Scope of those who may see all.
type Everything struct{}

// Sees implements Scope.
func (Everything) Sees(cluster.ID, string) bool { return true }

// OneCluster is the Scope of those who may see what one cluster has, and that
// the other clusters exist.
type OneCluster cluster.ID

// Sees implements Scope.
func (o OneCluster) Sees(id cluster.ID, namespace string) bool {
	return namespace == "" || id == cluster.ID(o)
}

// OneNamespace is the Scope of those who may see what all clusters have in one
// namespace, since a namespace is the same in each, and that the clusters exist.
type OneNamespace string

// Sees implements Scope.
func (o OneNamespace) Sees(_ cluster.ID, namespace string) bool {
	return namespace == "" || namespace == string(o)
}

// PeerCertificate tells who calls by the client certificate, which the
// handshake of identity.ServerConfig has verified.
func PeerCertificate(ctx context.Context) (Caller, error) {
	p, ok := peer.FromContext(ctx)
	if !ok {
		return Caller{}, errors.New("the connection has no peer")
	}
	info, ok := p.AuthInfo.(credentials.TLSInfo)
	if !ok {
		return Caller{}, errors.New("the connection is not TLS")
	}
	id, err := identity.PeerIdentity(info.State)
	if err != nil {
		return Caller{}, err
	}
	return Caller{Name: id.String(), Identity: id}, nil
}

// AuthorizeMembers is the rule for a clusterset without further policy: its
// hubs, agents and the users of its own trust domain see everything; users whose
// certificate a cluster's authority issued see that cluster; proxies see nothing.
// Bearers of a token see their namespace, or everything where they may.
func AuthorizeMembers(clusterset string) func(Caller) (Scope, error) {
	return func(c Caller) (Scope, error) {
		if c.Bearer != nil {
			return c.Bearer.scope(), nil
		}
		td := c.Identity.TrustDomain
		if c.Identity.Kind != identity.KindProxy && td.Name() == clusterset {
			return Everything{}, nil
		}
		id, err := identity.ClusterOf(td, clusterset)
		if err != nil {
			return nil, err
		}
		switch c.Identity.Kind {
		case identity.KindAgent:
			return Everything{}, nil
		case identity.KindUser:
			return OneCluster(id), nil
		}
		return nil, fmt.Errorf("a %s has no business with the query API", c.Identity.Kind)
	}
}

type scopeKey struct{}

func withScope(ctx context.Context, s Scope) context.Context {
	return context.WithValue(ctx, scopeKey{}, s)
}

// scopeOf gives what the interceptors found out. Without interceptors, nothing
// may be seen: a server that was put together wrongly stays closed.
func scopeOf(ctx context.Context) (Scope, error) {
	s, ok := ctx.Value(scopeKey{}).(Scope)
	if !ok || s == nil {
		return nil, errUnauthenticated
	}
	return s, nil
}
