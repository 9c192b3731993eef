package client

import (
	"context"
	"errors"
	"fmt"
	"time"

	"github.com/spf13/cobra"
	"google.golang.org/grpc"
	"google.golang.org/protobuf/types/known/durationpb"

	causewayv1 "github.com/causeway-mesh/causeway/api/causeway/v1"
)

func newCluster(cfg Config) *cobra.Command {
	cmd := &cobra.Command{
		Use:   "cluster",
		Short: "Administer the clusters of the clusterset: add, drain, undrain, remove",
		Args:  cobra.NoArgs,
		RunE: func(*cobra.Command, []string) error {
			return errors.New("say what to do: add, drain, undrain or remove")
		},
	}
	cmd.AddCommand(
		newDrain(cfg, "drain CLUSTER", "Take a cluster out of the choice of other clusters' clients",
			`Take a cluster out of the choice of other clusters' clients, evenly over time:
their requests go to the other clusters that serve. The cluster's own clients keep
it, and where nobody else is ready it goes on serving everybody, so no request is
lost. The way there is in the store; it goes on if this command or the server ends.

Only administrators may do that: the certificate that "causeway up" wrote is one's.`,
			func(ctx context.Context, cc grpc.ClientConnInterface, name string, over *durationpb.Duration) (drainAnswer, error) {
				answer, err := causewayv1.NewAdministrationClient(cc).DrainCluster(ctx, &causewayv1.DrainClusterRequest{Cluster: name, Over: over})
				return answer, err
			}),
		newDrain(cfg, "undrain CLUSTER", "Give a cluster back what drain took",
			`Give a cluster back, evenly over time, what drain took. One that is still being
drained is turned round where it is.`,
			func(ctx context.Context, cc grpc.ClientConnInterface, name string, over *durationpb.Duration) (drainAnswer, error) {
				answer, err := causewayv1.NewAdministrationClient(cc).UndrainCluster(ctx, &causewayv1.UndrainClusterRequest{Cluster: name, Over: over})
				return answer, err
			}))
	return cmd
}

// drainAnswer is what both answers have.
type drainAnswer interface {
	GetDrain() *causewayv1.ClusterDrain
	GetRevision() int64
}

// newDrain makes one of the two commands; do says it to the server.
func newDrain(cfg Config, use, short, long string,
	do func(context.Context, grpc.ClientConnInterface, string, *durationpb.Duration) (drainAnswer, error)) *cobra.Command {
	conn := connection{getenv: cfg.Getenv}
	var over time.Duration
	var wait bool
	cmd := &cobra.Command{
		Use: use, Short: short, Long: long,
		Args: cobra.ExactArgs(1),
		RunE: func(cmd *cobra.Command, args []string) error {
			cc, end, err := conn.connect()
			if err != nil {
				return err
			}
			defer end()
			answer, err := do(cmd.Context(), cc, args[0], durationpb.New(over))
			if err != nil {
				return err
			}
			d := answer.GetDrain()
			if !time.Now().Before(d.GetEnds().AsTime()) || d.GetFrom() == d.GetTarget() {
				_, err := fmt.Fprintf(cfg.Out, "cluster %s: drained by %d%%\n", d.GetCluster(), d.GetTarget())
				return err
			}
			if _, err := fmt.Fprintf(cfg.Out, "cluster %s: drained by %d%%, goes to %d%% within %s\n", d.GetCluster(), d.GetFrom(), d.GetTarget(),
				d.GetEnds().AsTime().Sub(d.GetStarted().AsTime())); err != nil || !wait {
				return err
			}
			return awaitDrain(cmd.Context(), cfg, causewayv1.NewFederationClient(cc), d, answer.GetRevision())
		},
	}
	conn.addFlags(cmd)
	f := cmd.Flags()
	f.DurationVar(&over, "over", 30*time.Second, "how long it takes; 0s: at once")
	f.BoolVar(&wait, "wait", false, "return when it is over, and tell meanwhile how far it is")
	return cmd
}

// awaitDrain follows the cluster, as the server sees it from the store revision at
// which the drain was set, until it is over.
func awaitDrain(ctx context.Context, cfg Config, c causewayv1.FederationClient, d *causewayv1.ClusterDrain, revision int64) error {
	stream, err := c.Watch(ctx, &causewayv1.WatchRequest{
		Types: []causewayv1.WatchType{causewayv1.WatchType_WATCH_TYPE_CLUSTERS}, Filter: &causewayv1.Filter{Cluster: d.GetCluster()},
	})
	if err != nil {
		return readable(err, "the server")
	}
	told := d.GetFrom()
	for {
		e, err := stream.Recv()
		if err != nil {
			return fmt.Errorf("the drain goes on, but this command lost sight of it: %w", readable(err, "the server"))
		}
		now := e.GetCluster()
		switch {
		case now == nil || e.GetRevision() < revision: // not heard of it yet
			continue
		case e.GetEvent() == causewayv1.EventType_EVENT_TYPE_DELETED:
			return fmt.Errorf("cluster %s has left the clusterset", d.GetCluster())
		case now.GetDrainTarget() != d.GetTarget():
			return fmt.Errorf("somebody else has turned cluster %s towards %d%%; it is drained by %d%%", d.GetCluster(), now.GetDrainTarget(), now.GetDrained())
		case now.GetDrained() == d.GetTarget():
			_, err := fmt.Fprintf(cfg.Out, "cluster %s: drained by %d%%\n", d.GetCluster(), d.GetTarget())
			return err
		case now.GetDrained() != told:
			told = now.GetDrained()
			if _, err := fmt.Fprintf(cfg.Err, "%d%%\n", told); err != nil {
				return err
			}
		}
	}
}
