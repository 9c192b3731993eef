package client

import (
	"context"
	"errors"
	"fmt"
	"io/fs"
	"time"

	"github.com/spf13/cobra"
	"google.golang.org/grpc/codes"
	"google.golang.org/protobuf/types/known/durationpb"

	causewayv1 "github.com/causeway-mesh/causeway/api/causeway/v1"
)

// maxMissing bounds what `status` prints of what is missing.
const maxMissing = 30

// lookEvery is how often a waiting `status` looks for a server that isn't there yet.
const lookEvery = 100 * time.Millisecond

// answerWithin is how long a server may take beyond the time it was given.
const answerWithin = 10 * time.Second

func newStatus(cfg Config) *cobra.Command {
	conn := connection{getenv: cfg.Getenv}
	var f format
	var wait time.Duration
	cmd := &cobra.Command{
		Use:   "status",
		Short: "Tell whether every cluster is alive and every Envoy up to date",
		Long: `Tell whether every cluster is alive and every Envoy has acknowledged what the
newest inputs call for: exit 0 if so, 1 if not, with what is missing.

With --wait it takes in all inputs as they are now, and waits until that is so,
or the time is over. So a script can edit files, wait, and ask; it can also begin
before the server has.`,
		Args: cobra.NoArgs,
		RunE: func(cmd *cobra.Command, _ []string) error {
			if wait < 0 {
				return errors.New("--wait must not be negative")
			}
			answer, err := askStatus(cmd.Context(), &conn, wait)
			if err != nil {
				return err
			}
			return printStatus(cfg, answer, f, wait)
		},
	}
	conn.addFlags(cmd)
	out := newChoice(&f, formatTable, formatJSON, formatYAML)
	cmd.Flags().VarP(out, "output", "o", "how to print: "+out.usage())
	cmd.Flags().DurationVar(&wait, "wait", 0, "how long to wait until all is in place, such as 60s (at most 10m)")
	return cmd
}

// askStatus asks once; while there is time left and no server, it looks again.
func askStatus(ctx context.Context, conn *connection, wait time.Duration) (*causewayv1.GetStatusResponse, error) {
	deadline := time.Now().Add(wait)
	tick := time.NewTicker(lookEvery)
	defer tick.Stop()
	for {
		answer, err := askOnce(ctx, conn, time.Until(deadline))
		if err == nil || ctx.Err() != nil {
			return answer, err
		}
		if !absent(err) || !time.Now().Before(deadline) {
			return nil, err
		}
		select {
		case <-tick.C:
		case <-ctx.Done():
			return nil, ctx.Err()
		}
	}
}

// absent reports whether the server may just not be there yet: nothing names one,
// nobody answers, or its credentials are those of a run that has ended and are
// about to be replaced.
func absent(err error) bool {
	return errors.Is(err, errNoServer) || errors.Is(err, fs.ErrNotExist) || codeOf(err) == codes.Unavailable
}

func askOnce(ctx context.Context, conn *connection, wait time.Duration) (*causewayv1.GetStatusResponse, error) {
	// A new connection each time: what the context file says may have changed.
	c, end, err := conn.dial()
	if err != nil {
		return nil, err
	}
	defer end()
	// The server keeps to the time that it is given; one that hangs does not.
	ctx, cancel := context.WithTimeout(ctx, max(0, wait)+answerWithin)
	defer cancel()
	return c.GetStatus(ctx, &causewayv1.GetStatusRequest{Wait: durationpb.New(max(0, wait))})
}

func printStatus(cfg Config, s *causewayv1.GetStatusResponse, f format, wait time.Duration) error {
	late := errors.New("not ready")
	if wait > 0 {
		late = fmt.Errorf("not ready within %s", wait)
	}
	if f != formatTable {
		if err := printMessage(cfg.Out, s, f); err != nil {
			return err
		}
		if !s.GetReady() {
			return late
		}
		return nil
	}
	for _, p := range s.GetProblems() {
		if _, err := fmt.Fprintf(cfg.Err, "problem in cluster %s, %s: %s\n", p.GetCluster(), cell(p.GetWhere()), cell(p.GetMessage())); err != nil {
			return err
		}
	}
	if s.GetReady() {
		var proxies int32
		for _, c := range s.GetClusters() {
			proxies += c.GetProxies()
		}
		_, err := fmt.Fprintf(cfg.Out, "ready at revision %d: %s alive, %s up to date\n", s.GetRevision(),
			plural(len(s.GetClusters()), "cluster"), plural(int(proxies), "Envoy"))
		return err
	}
	for i, m := range s.GetMissing() {
		if i == maxMissing {
			if _, err := fmt.Fprintf(cfg.Out, "and %d more\n", len(s.GetMissing())-i); err != nil {
				return err
			}
			break
		}
		if _, err := fmt.Fprintln(cfg.Out, m); err != nil {
			return err
		}
	}
	return late
}

func plural(n int, noun string) string {
	if n == 1 {
		return "1 " + noun
	}
	return fmt.Sprintf("%d %ss", n, noun)
}
