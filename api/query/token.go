package query

import (
	"context"
	"crypto/tls"
	"errors"
	"fmt"
	"strings"
	"time"

	"google.golang.org/grpc/metadata"

	"github.com/causeway-mesh/causeway/cluster/identity"
)

// ErrToken says that a token proves nothing. Any other error of Config.Tokens says
// that nothing is known of it now.
var ErrToken = errors.New("the token is refused")

// Bearer is who a token speaks for: a ServiceAccount, as its API server vouches.
type Bearer struct {
	Namespace, Name string
	// All is true for those who may see everything, not their namespace alone.
	All bool
}

func (b *Bearer) scope() Scope {
	if b.All {
		return Everything{}
	}
	return OneNamespace(b.Namespace)
}

// maxTokenStream is how long a stream lives that was opened by a token: then it must be
// shown again, so that one that is worth nothing any more sees no more either.
const maxTokenStream = 10 * time.Minute

var errTokenOld = fmt.Errorf("%w: a stream lasts %s at most by a token: show it again", errUnauthenticated, maxTokenStream)

// bearer gives the token of a call, if one is shown.
func bearer(ctx context.Context) (token string, shown bool, err error) {
	md, _ := metadata.FromIncomingContext(ctx)
	values := md.Get("authorization")
	if len(values) == 0 {
		return "", false, nil
	}
	scheme, token, ok := strings.Cut(values[0], " ")
	if len(values) > 1 || !ok || !strings.EqualFold(scheme, "Bearer") || token == "" {
		return "", true, errors.New("the metadata \"authorization\" is not \"Bearer TOKEN\"")
	}
	return token, true, nil
}

// authenticate tells who calls: by the token, if one is shown and tokens are taken,
// else by the client certificate.
func (s *Server) authenticate(ctx context.Context) (Caller, error) {
	token, shown, err := bearer(ctx)
	if !shown || s.cfg.Tokens == nil {
		caller, err := s.cfg.Authenticate(ctx)
		switch {
		case err == nil:
			return caller, nil
		case shown:
			err = fmt.Errorf("%w; tokens are not taken here", err)
		case s.cfg.Tokens != nil:
			err = fmt.Errorf("%w; show a client certificate, or a ServiceAccount token as \"authorization: Bearer TOKEN\"", err)
		}
		return caller, fmt.Errorf("%w: %w", errUnauthenticated, err)
	}
	if err != nil {
		return Caller{}, fmt.Errorf("%w: %w", errUnauthenticated, err)
	}
	b, err := s.cfg.Tokens(ctx, token)
	switch {
	case errors.Is(err, ErrToken):
		return Caller{}, fmt.Errorf("%w: %w", errUnauthenticated, err)
	case err != nil:
		return Caller{}, fmt.Errorf("%w: %w", errNotAsked, err)
	}
	return Caller{Name: "ServiceAccount " + b.Namespace + "/" + b.Name, Bearer: &b}, nil
}

// TLS is the configuration of a server's connections: client certificates must be
// good, and may be missing where tokens are taken. Config.SVID and Bundles must be set.
func (s *Server) TLS() *tls.Config {
	if s.cfg.Tokens != nil {
		return identity.OptionalServerConfig(s.cfg.SVID, s.cfg.Bundles, identity.Genuine)
	}
	return identity.ServerConfig(s.cfg.SVID, s.cfg.Bundles, identity.Genuine)
}
