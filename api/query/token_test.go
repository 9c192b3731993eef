package query_test

import (
	"context"
	"errors"
	"fmt"
	"slices"
	"testing"

	"google.golang.org/grpc/codes"
	"google.golang.org/grpc/metadata"

	causewayv1 "github.com/causeway-mesh/causeway/api/causeway/v1"
	"github.com/causeway-mesh/causeway/api/query"
	"github.com/causeway-mesh/causeway/api/query/querytest"
)

// A token shows what its ServiceAccount may see: its own namespace in all clusters, or
// everything; one that proves nothing shows nothing, whatever certificate comes with it.
func TestTokens(t *testing.T) {
	t.Parallel()
	w := querytest.New(t)
	cfg := w.Config()
	cfg.Tokens = func(_ context.Context, token string) (query.Bearer, error) {
		switch token {
		case "dev":
			return query.Bearer{Namespace: "dev", Name: "reader"}, nil
		case "all":
			return query.Bearer{Namespace: "dev", Name: "admin", All: true}, nil
		case "away":
			return query.Bearer{}, errors.New("no answer")
		}
		return query.Bearer{}, fmt.Errorf("%w: it is forged", query.ErrToken)
	}
	r := querytest.Run(t, cfg)
	anyone := connect(t, r, "")
	c := causewayv1.NewFederationClient(anyone)
	with := func(values ...string) context.Context {
		md := metadata.MD{}
		md.Append("authorization", values...)
		return metadata.NewOutgoingContext(t.Context(), md)
	}
	if got, want := routes(with("Bearer dev"), t, c), []string{"web-dev@west"}; !slices.Equal(got, want) {
		t.Errorf("a token of dev sees %v, want %v", got, want)
	}
	if got, want := routes(with("bearer all"), t, c), []string{"refused@north", "web-split@east", "web-dev@west", "entry@east"}; !slices.Equal(got, want) {
		t.Errorf("a token for all sees %v, want %v", got, want)
	}
	clusters, err := c.ListClusters(with("Bearer dev"), &causewayv1.ListClustersRequest{})
	if err != nil || len(clusters.GetClusters()) != 3 {
		t.Errorf("a token of dev sees the clusters %v, %v; want 3", clusters.GetClusters(), err)
	}
	explain := func(ctx context.Context, namespace string) error {
		_, err := c.Explain(ctx, &causewayv1.ExplainRequest{Url: "http://web.app.svc.clusterset.local", Source: &causewayv1.Source{Cluster: "east", From: &causewayv1.Source_Namespace{Namespace: namespace}}})
		return err
	}
	wantCode(t, "dev explains its own request", explain(with("Bearer dev"), "dev"), codes.OK)
	wantCode(t, "dev explains one of app", explain(with("Bearer dev"), "app"), codes.NotFound)
	list := func(c causewayv1.FederationClient, ctx context.Context) error {
		_, err := c.ListClusters(ctx, &causewayv1.ListClustersRequest{})
		return err
	}
	for what, x := range map[string]struct {
		ctx  context.Context
		code codes.Code
	}{
		"nothing shown":  {t.Context(), codes.Unauthenticated},
		"a forged token": {with("Bearer forged"), codes.Unauthenticated},
		"no bearer":      {with("Basic dev"), codes.Unauthenticated},
		"two tokens":     {with("Bearer dev", "Bearer all"), codes.Unauthenticated},
		"nobody to ask":  {with("Bearer away"), codes.Unavailable},
	} {
		wantCode(t, what, list(c, x.ctx), x.code)
		stream, err := c.Watch(x.ctx, &causewayv1.WatchRequest{})
		if err == nil {
			_, err = stream.Recv()
		}
		wantCode(t, what+", watching", err, x.code)
	}
	wantCode(t, "a certificate and a forged token", list(ada(t, r), with("Bearer forged")), codes.Unauthenticated)
	wantCode(t, "a certificate alone", list(ada(t, r), t.Context()), codes.OK)
	other := querytest.Run(t, querytest.New(t).Config())
	wantCode(t, "a token and a certificate of elsewhere", list(causewayv1.NewFederationClient(connect(t, r, other.User(other.Clusterset, "ada"))), with("Bearer all")), codes.Unavailable)
	// Where tokens are not taken, nobody gets as far as to show one.
	wantCode(t, "tokens not taken", list(causewayv1.NewFederationClient(connect(t, other, "")), with("Bearer all")), codes.Unavailable)
}
