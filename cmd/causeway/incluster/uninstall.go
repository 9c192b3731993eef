package incluster

import (
	"context"
	"fmt"
	"io"
	"time"

	"github.com/spf13/cobra"

	"github.com/causeway-mesh/causeway/cluster"
	"github.com/causeway-mesh/causeway/cluster/kubernetes"
	"github.com/causeway-mesh/causeway/cluster/provision"
	"github.com/causeway-mesh/causeway/cmd/causeway/agent"
)

// goneEvery is the pause between looks at whether the agents have gone.
const goneEvery = 300 * time.Millisecond

// uninstallCommand is `causeway agent uninstall`.
func uninstallCommand() *cobra.Command {
	var kubeconfig, namespace string
	var wait time.Duration
	cmd := &cobra.Command{
		Use:   "uninstall",
		Short: "Remove what agents have made in this cluster, once they are gone",
		Long: `Wait until no agent of this cluster runs, and remove what they have made: ServiceImports,
derived Services and EndpointSlices, the pods and Services of Gateways, the cluster's
certificate authority and roots, and the Lease of the leader. The Helm chart causeway does so when it is uninstalled.

What others made stays, ServiceExports and routes with their status among it. What the
cluster has exported stays in the store: "causeway cluster remove" takes it out.`,
		Args: cobra.NoArgs,
		RunE: func(cmd *cobra.Command, _ []string) error {
			ctx, cancel := context.WithTimeoutCause(cmd.Context(), wait, fmt.Errorf("not within %s", wait))
			defer cancel()
			return uninstall(ctx, cmd.OutOrStdout(), kubeconfig, namespace)
		},
	}
	f := cmd.Flags()
	f.StringVar(&kubeconfig, "kubeconfig", "", "kubeconfig file; empty: as a pod")
	f.StringVar(&namespace, "namespace", agent.SystemNamespace, "namespace of the agents")
	f.DurationVar(&wait, "wait", 4*time.Minute, "how long all of it may take")
	return cmd
}

func uninstall(ctx context.Context, out io.Writer, kubeconfig, namespace string) error {
	cfg, err := kubernetes.LoadConfig(kubeconfig, "causeway-uninstall")
	if err != nil {
		return err
	}
	client, err := kubernetes.NewClient(cfg)
	if err != nil {
		return err
	}
	for {
		err := client.AgentsGone(ctx, namespace)
		if err == nil {
			break
		}
		if cluster.Pause(ctx, goneEvery) != nil {
			return fmt.Errorf("%w (%w); uninstall them first", err, context.Cause(ctx))
		}
	}
	n, err := provision.Remove(ctx, client)
	if err != nil {
		return err
	}
	if err := client.Remove(ctx, namespace); err != nil {
		return err
	}
	fmt.Fprintf(out, "removed %d objects of imports and Gateways, and the agents' own\n", n)
	return nil
}
