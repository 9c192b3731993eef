// Command causeway is all of Causeway: each part is a subcommand (DESIGN section 1).
package main

import (
	"context"
	"fmt"
	"os"
	"os/signal"
	"runtime"
	"syscall"

	"github.com/spf13/cobra"

	"github.com/causeway-mesh/causeway/cmd/causeway/client"
	"github.com/causeway-mesh/causeway/cmd/causeway/clusterset"
	"github.com/causeway-mesh/causeway/cmd/causeway/hub"
	"github.com/causeway-mesh/causeway/cmd/causeway/incluster"
	"github.com/causeway-mesh/causeway/cmd/causeway/proxy"
	"github.com/causeway-mesh/causeway/cmd/causeway/up"
)

// version is what the linker says: `make build` and `make images` have git's description of the source.
var version = "unknown"

func main() {
	root := &cobra.Command{
		Use:           "causeway",
		Short:         "Federate Kubernetes clusters: routes written once, obeyed everywhere",
		SilenceUsage:  true,
		SilenceErrors: true,
	}
	root.AddCommand(incluster.Command(), proxy.Command())
	root.AddCommand(up.Command(), &cobra.Command{
		Use: "version", Short: "Print the version", Args: cobra.NoArgs,
		Run: func(cmd *cobra.Command, _ []string) {
			fmt.Fprintln(cmd.OutOrStdout(), "causeway", version, runtime.Version())
		},
	})
	root.AddCommand(hub.Command())
	root.AddCommand(client.Commands(client.Config{})...)
	admin := clusterset.Config{Out: os.Stdout, Err: os.Stderr, Getenv: os.Getenv}
	root.AddCommand(clusterset.Command(admin), clusterset.StoreCommand(admin))
	if cluster, _, err := root.Find([]string{"cluster"}); err == nil {
		cluster.AddCommand(clusterset.ClusterCommands(admin)...)
	}
	ctx, stop := signal.NotifyContext(context.Background(), os.Interrupt, syscall.SIGTERM, syscall.SIGHUP)
	// A second signal ends the process at once; `up`'s Envoys go with it.
	context.AfterFunc(ctx, stop)
	if err := root.ExecuteContext(ctx); err != nil {
		fmt.Fprintln(os.Stderr, "causeway:", err)
		os.Exit(1)
	}
}
