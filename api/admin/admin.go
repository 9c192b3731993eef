// Package admin serves causeway.v1.Administration: what administrators may do to
// a clusterset (DESIGN section 2, "/causeway/v1/policy/... is the administrators'").
//
// # What is guaranteed
//
//   - Every call is refused unless Authorize says that the caller, whose client
//     certificate the handshake has verified, is an administrator. That is asked
//     here, whatever interceptors the gRPC server has.
//   - A call that succeeds has written its records of the policy in one
//     transaction, or found that they say the same already. Nothing is kept here, so calls may be repeated, also
//     with another server, and agents go on without this one.
//   - Two administrators at once: the later one wins whole; nothing is mixed.
//   - Who did what is logged.
//
// # Who calls it
//
// A hub, or `causeway up`, makes one Server and registers it on the gRPC server
// that has the query API. Its Store must be one whose user may write the policy.
package admin

import (
	"context"
	"errors"
	"fmt"
	"log/slog"
	"slices"
	"strings"
	"time"

	"google.golang.org/grpc"
	"google.golang.org/grpc/codes"
	"google.golang.org/grpc/status"

	causewayv1 "github.com/causeway-mesh/causeway/api/causeway/v1"
	"github.com/causeway-mesh/causeway/api/query"
	"github.com/causeway-mesh/causeway/cluster"
	"github.com/causeway-mesh/causeway/cluster/identity"
	"github.com/causeway-mesh/causeway/federation/store"
)

// Store is the part of the global store that administration needs.
type Store interface {
	List(ctx context.Context, prefix string, revision int64) ([]store.KV, int64, error)
	Commit(ctx context.Context, txn store.Txn) (int64, error)
}

// Config makes a Server.
type Config struct {
	// Store is written. Required.
	Store Store
	// Clusters gives the members of the clusterset as they are known now. Required.
	Clusters func() []cluster.ID
	// Authenticate tells who calls; nil means query.PeerCertificate.
	Authenticate func(context.Context) (query.Caller, error)
	// Authorize refuses, by its error, who is no administrator. Required.
	Authorize func(query.Caller) error
	// Timeout bounds the wait for the store; 0: 5 s.
	Timeout time.Duration
	// Logger gets what was done, and by whom. Required.
	Logger *slog.Logger
}

// Server implements causeway.v1.Administration. Make it with New.
type Server struct {
	causewayv1.UnimplementedAdministrationServer
	cfg Config
}

// New checks the configuration. It starts nothing.
func New(cfg Config) (*Server, error) {
	switch {
	case cfg.Store == nil || cfg.Clusters == nil || cfg.Logger == nil:
		return nil, errors.New("administration: Store, Clusters and Logger are required")
	case cfg.Authorize == nil:
		return nil, errors.New("administration: Authorize is missing: say who is an administrator")
	case cfg.Timeout < 0:
		return nil, errors.New("administration: Timeout must not be negative")
	}
	if cfg.Authenticate == nil {
		cfg.Authenticate = query.PeerCertificate
	}
	if cfg.Timeout == 0 {
		cfg.Timeout = 5 * time.Second
	}
	return &Server{cfg: cfg}, nil
}

// Register adds the service to a gRPC server that verifies client certificates.
func (s *Server) Register(g grpc.ServiceRegistrar) { causewayv1.RegisterAdministrationServer(g, s) }

// Users is the rule that administrators are the named people of the clusterset's
// own trust domain. People of a cluster's trust domain are not, whatever their
// names: a cluster's authority must not make administrators.
func Users(clusterset string, names ...string) func(query.Caller) error {
	return func(c query.Caller) error {
		if c.Identity.Kind == identity.KindUser && c.Identity.TrustDomain.Name() == clusterset && slices.Contains(names, c.Identity.Name) {
			return nil
		}
		return fmt.Errorf("is no administrator of %s: use the client certificate of one (%s)", clusterset, strings.Join(names, ", "))
	}
}

// admit gives the caller's name, or the error that refuses it.
func (s *Server) admit(ctx context.Context) (string, error) {
	c, err := s.cfg.Authenticate(ctx)
	if err != nil {
		return "", status.Errorf(codes.Unauthenticated, "who calls is not proven: %v", err)
	}
	if err := s.cfg.Authorize(c); err != nil {
		s.cfg.Logger.Warn("administration was refused", "caller", c.Name, "error", err)
		return "", status.Errorf(codes.PermissionDenied, "%s %v", c.Name, err)
	}
	return c.Name, nil
}
