// Command causeway is all of Causeway: each part is a subcommand (DESIGN section 1).
package main

import (
	"context"
	"fmt"
	"os"

	"github.com/spf13/cobra"

	"github.com/causeway-mesh/causeway/cmd/causeway/client"
	"github.com/causeway-mesh/causeway/cmd/causeway/up"
)

func main() {
	root := &cobra.Command{
		Use:           "causeway",
		Short:         "Federate Kubernetes clusters: routes written once, obeyed everywhere",
		SilenceUsage:  true,
		SilenceErrors: true,
	}
	root.AddCommand(up.Command())
	root.AddCommand(client.Commands(client.Config{})...)
	if err := root.ExecuteContext(context.Background()); err != nil {
		fmt.Fprintln(os.Stderr, "causeway:", err)
		os.Exit(1)
	}
}
