package serve

import (
	"context"
	"errors"
	"fmt"

	"github.com/spiffe/go-spiffe/v2/spiffeid"

	"github.com/causeway-mesh/causeway/api/query"
	"github.com/causeway-mesh/causeway/cluster/attest"
	"github.com/causeway-mesh/causeway/cluster/kubernetes"
)

// Tokens makes what a query API of a trust domain asks about ServiceAccount tokens:
// the API server, whose answers count for a short while.
func Tokens(client *kubernetes.Client, td spiffeid.TrustDomain) func(context.Context, string) (query.Bearer, error) {
	audience := attest.QueryAudience(td)
	cache := attest.NewAccessCache(func(ctx context.Context, token string) (attest.Access, error) {
		return client.ReviewAccess(ctx, token, audience)
	})
	return func(ctx context.Context, token string) (query.Bearer, error) {
		a, err := cache.Access(ctx, token)
		if errors.Is(err, attest.ErrRefused) {
			return query.Bearer{}, fmt.Errorf("%w: %w", query.ErrToken, err)
		}
		return query.Bearer{Namespace: a.Account.Namespace, Name: a.Account.Name, All: a.All}, err
	}
}
