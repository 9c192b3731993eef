// Command causeway is all of Causeway: each part is a subcommand (DESIGN section 1).
package main

import (
	"context"
	"fmt"
	"os"
	"os/signal"
	"syscall"

	"github.com/causeway-mesh/causeway/cmd/causeway/root"
)

// version is what the linker says: `make build` and `make images` have git's description of the source.
var version = "unknown"

func main() {
	ctx, stop := signal.NotifyContext(context.Background(), os.Interrupt, syscall.SIGTERM, syscall.SIGHUP)
	// A second signal ends the process at once; `up`'s Envoys go with it.
	context.AfterFunc(ctx, stop)
	cmd, err := root.New(root.Config{Out: os.Stdout, Err: os.Stderr, Getenv: os.Getenv, Version: version})
	if err == nil {
		err = cmd.ExecuteContext(ctx)
	}
	if err != nil {
		fmt.Fprintln(os.Stderr, "causeway:", err)
		os.Exit(1)
	}
}
