package agent

import (
	"context"
	"crypto/x509"
	"errors"
	"fmt"

	corev3 "github.com/envoyproxy/go-control-plane/envoy/config/core/v3"
	"github.com/spiffe/go-spiffe/v2/spiffeid"
	"google.golang.org/grpc/credentials"
	"google.golang.org/grpc/peer"

	"github.com/causeway-mesh/causeway/cluster/identity"
	"github.com/causeway-mesh/causeway/xds/translate"
)

// ProxyID is the SPIFFE id of a cluster's Envoy.
func ProxyID(a *identity.Authority, p translate.Proxy) (spiffeid.ID, error) {
	return identity.ProxyID(a.TrustDomain(), identity.Role(p.Role), p.Namespace, p.Name)
}

// authorize binds an xDS stream to the proxy that its client certificate names.
// The TLS layer has checked that it is a proxy of this cluster.
func (a *Agent) authorize(ctx context.Context, node *corev3.Node) (string, error) {
	p, ok := peer.FromContext(ctx)
	if !ok {
		return "", errors.New("the connection has no peer")
	}
	info, ok := p.AuthInfo.(credentials.TLSInfo)
	if !ok {
		return "", errors.New("the connection is not TLS")
	}
	who, err := identity.PeerIdentity(info.State)
	if err != nil {
		return "", err
	}
	id := translate.Proxy{Cluster: a.cfg.Cluster, Role: translate.Role(who.Role), Namespace: who.Namespace, Name: who.Name}.ID()
	if translate.ProxyOfNode(node.GetId()) != id {
		return "", fmt.Errorf("the node calls itself %q, its certificate is for %q: start Envoy with the bootstrap that was made with the certificate", node.GetId(), id)
	}
	return id, nil
}

// crossingOf admits the crossing gateways of a trust domain.
func crossingOf(td spiffeid.TrustDomain) identity.Authorizer {
	return func(peer identity.Identity) error {
		want, err := identity.ProxyID(td, identity.RoleCrossing, SystemNamespace, peer.Name)
		if err != nil {
			return err
		}
		return identity.Exactly(want)(peer)
	}
}

func ders(certs []*x509.Certificate) [][]byte {
	out := make([][]byte, 0, len(certs))
	for _, c := range certs {
		out = append(out, c.Raw)
	}
	return out
}
