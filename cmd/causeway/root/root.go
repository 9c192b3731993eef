// Package root puts causeway's subcommands together, for the binary and for tests that
// walk the whole path as a person does.
package root

import (
	"fmt"
	"io"
	"runtime"

	"github.com/spf13/cobra"

	"github.com/causeway-mesh/causeway/cmd/causeway/client"
	"github.com/causeway-mesh/causeway/cmd/causeway/clusterset"
	"github.com/causeway-mesh/causeway/cmd/causeway/hub"
	"github.com/causeway-mesh/causeway/cmd/causeway/incluster"
	"github.com/causeway-mesh/causeway/cmd/causeway/proxy"
	"github.com/causeway-mesh/causeway/cmd/causeway/up"
)

// Config is what the command has of its surroundings. All of it is required.
type Config struct {
	Out, Err io.Writer
	Getenv   func(string) string
	Version  string
}

// New makes the command. Its errors are returned, not printed.
func New(cfg Config) (*cobra.Command, error) {
	root := &cobra.Command{
		Use:           "causeway",
		Short:         "Federate Kubernetes clusters: routes written once, obeyed everywhere",
		SilenceUsage:  true,
		SilenceErrors: true,
	}
	root.SetOut(cfg.Out)
	root.SetErr(cfg.Err)
	root.AddCommand(incluster.Command(), proxy.Command(), hub.Command(), up.Command(), &cobra.Command{
		Use: "version", Short: "Print the version", Args: cobra.NoArgs,
		Run: func(cmd *cobra.Command, _ []string) {
			fmt.Fprintln(cmd.OutOrStdout(), "causeway", cfg.Version, runtime.Version())
		},
	})
	root.AddCommand(client.Commands(client.Config{Out: cfg.Out, Err: cfg.Err, Getenv: cfg.Getenv})...)
	admin := clusterset.Config{Out: cfg.Out, Err: cfg.Err, Getenv: cfg.Getenv}
	root.AddCommand(clusterset.Command(admin), clusterset.StoreCommand(admin))
	cluster, _, err := root.Find([]string{"cluster"})
	if err != nil {
		return nil, err
	}
	cluster.AddCommand(clusterset.ClusterCommands(admin)...)
	return root, nil
}
