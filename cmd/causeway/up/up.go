// Package up is `causeway up`: a store, a hub and one cluster for each folder of
// manifests, in one process, with a real Envoy for each role, for people who want
// to see federation work and for tests. It needs neither Kubernetes nor root.
package up

import (
	"context"
	"errors"
	"fmt"
	"io"
	"log/slog"
	"net"
	"os"
	"path/filepath"
	"syscall"

	"github.com/spf13/cobra"

	"github.com/causeway-mesh/causeway/cmd/causeway/client"
	"github.com/causeway-mesh/causeway/xds/envoy"
)

// options are what the command line says.
type options struct {
	dir        string
	state      string
	listen     string
	metrics    string
	envoy      string
	clusterset string
	store      string
	storeCA    string
	storeCert  string
	storeKey   string
	workloads  bool
	verbose    bool
}

// Command is the cobra command.
func Command() *cobra.Command {
	o := options{}
	cmd := &cobra.Command{
		Use:   "up DIR",
		Short: "Run clusters that are folders of manifests, with a store and real Envoys",
		Long: `Run one cluster for each folder in DIR, with a global store (an embedded etcd
unless --store names another), a hub, and a real Envoy for each role.

A folder holds ordinary Kubernetes YAML, nested as you like, and an optional
cluster.yaml (region, zone, network). Edits take effect at once; a new folder is a
cluster that joins, a removed one is a cluster that leaves. Everything is served
on loopback addresses, and stays up until Ctrl-C.`,
		Example: `  causeway up deploy/examples/archipelago
  causeway get clusters
  causeway request --from west/shop http://catalog.shop.svc.clusterset.local/`,
		Args:          cobra.ExactArgs(1),
		SilenceUsage:  true,
		SilenceErrors: true,
		RunE: func(cmd *cobra.Command, args []string) error {
			o.dir = args[0]
			if o.state == "" {
				dir, err := client.StateDir("", os.Getenv)
				if err != nil {
					return err
				}
				o.state = dir
			}
			return run(cmd.Context(), o, cmd.OutOrStdout(), cmd.ErrOrStderr())
		},
	}
	f := cmd.Flags()
	f.StringVar(&o.state, "state", os.Getenv("CAUSEWAY_STATE"), "folder for keys, logs and etcd's data, all made anew at each start ($CAUSEWAY_STATE)")
	f.StringVar(&o.listen, "listen", "127.0.0.1:7443", "address of the query API; a free port is taken if the default one is in use")
	f.StringVar(&o.metrics, "metrics", "127.0.0.1:0", "address of the Prometheus metrics (mTLS, as the query API); empty: none")
	f.StringVar(&o.envoy, "envoy", "", "the Envoy to run; else $CAUSEWAY_ENVOY, PATH, or what 'make envoy' fetched")
	f.StringVar(&o.clusterset, "clusterset", "clusterset.local", "name of the clusterset; trust domains are <cluster>.<clusterset>")
	f.StringVar(&o.store, "store", "embedded", `"embedded", or an etcd of yours: etcd://HOST:PORT,HOST:PORT`)
	f.StringVar(&o.storeCA, "store-cacert", "", "roots of an external store's certificates (PEM)")
	f.StringVar(&o.storeCert, "store-cert", "", "client certificate for an external store (PEM); its user must be allowed to write all clusters")
	f.StringVar(&o.storeKey, "store-key", "", "key of --store-cert (PEM)")
	f.BoolVar(&o.workloads, "workloads", true, "run each Deployment's replicas as echo servers and make up their EndpointSlices")
	f.BoolVarP(&o.verbose, "verbose", "v", false, "log what is done, not only what goes wrong")
	return cmd
}

// run does all of it until ctx ends.
func run(ctx context.Context, o options, out, errs io.Writer) (err error) {
	if o.dir, err = filepath.Abs(o.dir); err != nil {
		return err
	}
	// etcd and memberlist warn of much that is nobody's business, such as slow
	// disks and pings that were late.
	level, quiet := slog.LevelWarn, slog.LevelError
	if o.verbose {
		level, quiet = slog.LevelDebug, slog.LevelWarn
	}
	log := slog.New(slog.NewTextHandler(errs, &slog.HandlerOptions{Level: level}))
	quietLog := slog.New(slog.NewTextHandler(errs, &slog.HandlerOptions{Level: quiet}))
	names, err := clusterFolders(o.dir)
	if err != nil {
		return err
	}
	binary, err := envoy.Find(o.envoy)
	if err != nil {
		return err
	}
	if version, untested := binary.Untested(); untested {
		log.Warn("this Envoy is not the one that causeway is tested with", "path", binary.Path, "version", version, "tested", envoy.Version)
	}
	dir, err := openState(o.state)
	if err != nil {
		return err
	}
	defer func() { err = errors.Join(err, dir.close()) }()
	s, err := newSupervisor(o, binary.Path, dir, log, quietLog, out)
	if err != nil {
		return err
	}
	return s.run(ctx, names)
}

// listenAPI opens the query API's port. The default one gives way when taken.
func listenAPI(addr string) (net.Listener, error) {
	l, err := net.Listen("tcp", addr)
	if err != nil && addr == "127.0.0.1:7443" && errors.Is(err, syscall.EADDRINUSE) {
		return net.Listen("tcp", "127.0.0.1:0")
	}
	if err != nil {
		return nil, fmt.Errorf("listen for the query API: %w; choose another address with --listen", err)
	}
	return l, nil
}
