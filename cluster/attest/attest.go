// Package attest exchanges a Kubernetes ServiceAccount token for an X.509 SVID: that
// is how an Envoy that starts in a pod proves which proxy it is, before it can speak
// xDS (docs/decisions/011).
//
// What is guaranteed:
//
//   - A token counts only if the API server says (TokenReview) that it is genuine, of a
//     pod that is there, and made for Audience of this very cluster: one that another
//     service got is worth nothing here, and one for here is worth nothing there.
//   - Who the bearer may be is a pure function of its ServiceAccount (Entitled). The
//     request names the identity that is wanted; the certificate bears no other.
//   - The private key never leaves the pod: a certificate request goes, a chain comes.
//   - The server proves that it is the cluster's agent, by its SVID; the client knows
//     the cluster's roots from a ConfigMap that the agent keeps, and newer ones from
//     each answer. Tokens and keys are never logged.
//
// The agents serve it, `causeway proxy` asks.
package attest

import (
	"errors"
	"fmt"

	"github.com/spiffe/go-spiffe/v2/spiffeid"

	"github.com/causeway-mesh/causeway/cluster/identity"
)

// Path is where the server takes requests, by POST.
const Path = "/v1/identity"

// Bounds of both sides.
const (
	maxRequest  = 16 << 10
	maxResponse = 256 << 10
	maxToken    = 16 << 10
)

// Audience is what a token must have been made for, beside which no other service
// takes it.
func Audience(td spiffeid.TrustDomain) string { return "causeway.dev/" + td.Name() }

// Account is a ServiceAccount, as the API server vouches for it.
type Account struct{ Namespace, Name string }

// String gives namespace/name.
func (a Account) String() string { return a.Namespace + "/" + a.Name }

// request asks for the SVID of a proxy.
type request struct {
	Role      identity.Role `json:"role"`
	Namespace string        `json:"namespace"`
	Name      string        `json:"name"`
	CSR       []byte        `json:"csr"` // DER
}

// response is the answer.
type response struct {
	Chain string `json:"chain"` // PEM, leaf first
	Roots string `json:"roots"` // PEM, of the cluster's trust domain
}

// Crossing says who may be a cluster's crossing gateway.
type Crossing struct {
	Account Account
	Name    string // of the proxy
}

// Roles says who may be which proxy of a cluster.
type Roles struct {
	Crossing Crossing
	// Gateway gives the ServiceAccount of a Gateway's pods, or why there is none. It must
	// not block.
	Gateway func(namespace, name string) (Account, error)
}

// Entitled tells why an account may not be a proxy, nil if it may. The crossing gateways'
// identity is one that other clusters trust, so one account alone may have it. A Gateway's
// Envoys get that Gateway's configuration with its private keys, so the account that was
// made for it may be that one, and no other. There are no sidecars by tokens yet.
func (r Roles) Entitled(who Account, role identity.Role, namespace, name string) error {
	switch role {
	case identity.RoleCrossing:
		return r.Crossing.entitled(who, namespace, name)
	case identity.RoleGateway:
		own, err := r.Gateway(namespace, name)
		if err != nil {
			return err
		}
		if who != own {
			return fmt.Errorf("ServiceAccount %s may not be Gateway %s/%s: %s may", who, namespace, name, own)
		}
		return nil
	}
	return fmt.Errorf("nobody may be a proxy of role %q by a token yet", role)
}

func (c Crossing) entitled(who Account, namespace, name string) error {
	switch {
	case who != c.Account:
		return fmt.Errorf("ServiceAccount %s may not be a crossing gateway: %s may", who, c.Account)
	case namespace != c.Account.Namespace || name != c.Name:
		return errors.New("there is one crossing gateway, " + c.Account.Namespace + "/" + c.Name)
	}
	return nil
}
