package query

import (
	"context"
	"log/slog"
	"testing"
	"testing/synctest"
	"time"

	"github.com/prometheus/client_golang/prometheus"
	"google.golang.org/grpc"
	"google.golang.org/grpc/codes"
	"google.golang.org/grpc/metadata"
	"google.golang.org/grpc/status"
)

type serverStream struct {
	grpc.ServerStream
	ctx context.Context
}

func (s *serverStream) Context() context.Context { return s.ctx }

// What a token opens ends after a while, so that the token must be shown again.
func TestTokenStreamsEnd(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		m, err := newMetrics(prometheus.NewRegistry())
		if err != nil {
			t.Fatal(err)
		}
		s := &Server{metrics: m, cfg: Config{Logger: slog.New(slog.DiscardHandler), Authorize: AuthorizeMembers("isles"),
			Tokens: func(context.Context, string) (Bearer, error) { return Bearer{Namespace: "app", All: true}, nil }}}
		ctx := metadata.NewIncomingContext(t.Context(), metadata.Pairs("authorization", "Bearer x"))
		began := time.Now()
		err = s.stream(nil, &serverStream{ctx: ctx}, &grpc.StreamServerInfo{FullMethod: "/x/Watch"}, func(_ any, stream grpc.ServerStream) error {
			<-stream.Context().Done()
			return stream.Context().Err()
		})
		if took := time.Since(began); status.Code(err) != codes.Unauthenticated || took != maxTokenStream {
			t.Errorf("after %s: %v", took, err)
		}
	})
}
