package client

import (
	"io"
	"os"

	"github.com/spf13/cobra"
)

// Config says where commands print and where they read the environment.
type Config struct {
	Out    io.Writer           // answers; nil: stdout
	Err    io.Writer           // remarks that are no part of an answer; nil: stderr
	Getenv func(string) string // nil: os.Getenv
}

// Commands gives the client's subcommands, to be added to causeway's root. They
// return errors instead of printing them, and stop when their context ends.
func Commands(cfg Config) []*cobra.Command {
	if cfg.Out == nil {
		cfg.Out = os.Stdout
	}
	if cfg.Err == nil {
		cfg.Err = os.Stderr
	}
	if cfg.Getenv == nil {
		cfg.Getenv = os.Getenv
	}
	return []*cobra.Command{newGet(cfg), newExplain(cfg), newStatus(cfg), newRequest(cfg), newCluster(cfg), newPolicy(cfg), newFault(cfg)}
}
