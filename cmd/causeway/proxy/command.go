// Package proxy is `causeway proxy`, the entry point of an Envoy that runs in a pod.
// It proves by the pod's ServiceAccount token who it is (cluster/attest), gets the
// certificate with which Envoy speaks xDS, writes Envoy's bootstrap, and runs Envoy:
// it starts it again when it crashes, renews its certificate without a restart, and
// drains it when the pod is told to stop. What Envoy logs is the container's output, on
// stderr beside what this process logs: the kubelet keeps and rotates it.
//
// An agent that is away hinders the first start alone; later Envoy goes on with what it
// has, and renewals are tried again.
package proxy

import (
	"context"
	"fmt"
	"io"
	"log/slog"
	"net"
	"os"
	"path/filepath"
	"runtime"
	"time"

	"github.com/spf13/cobra"
	"golang.org/x/sync/errgroup"

	"github.com/causeway-mesh/causeway/cluster"
	"github.com/causeway-mesh/causeway/cluster/attest"
	"github.com/causeway-mesh/causeway/cluster/identity"
	"github.com/causeway-mesh/causeway/cmd/causeway/agent"
	"github.com/causeway-mesh/causeway/cmd/causeway/serve"
	"github.com/causeway-mesh/causeway/xds/envoy"
	"github.com/causeway-mesh/causeway/xds/translate"
)

type options struct {
	role, name, namespace string
	instance              string
	cluster, clusterset   string
	region, zone          string
	identity, xds         string
	token, roots, dir     string
	envoy, probe          string
	logLevel              string
	concurrency           int
	drain                 time.Duration
	verbose               bool
	errs                  io.Writer
}

// Command is `causeway proxy`.
func Command() *cobra.Command {
	var o options
	cmd := &cobra.Command{
		Use:   "proxy",
		Short: "Run an Envoy of this cluster, in a pod",
		Long: `Get a certificate for this pod's ServiceAccount token from the cluster's agent, and run
Envoy with it. So the Helm chart runs the cluster's crossing gateways, and the agent the
pods of Gateways.`,
		Args: cobra.NoArgs,
		RunE: func(cmd *cobra.Command, _ []string) error {
			o.errs = cmd.ErrOrStderr()
			return o.run(cmd.Context())
		},
	}
	env := os.Getenv
	host, _ := os.Hostname()
	f := cmd.Flags()
	f.StringVar(&o.role, "role", string(identity.RoleCrossing), "role of the Envoy: crossing or gateway")
	f.StringVar(&o.name, "name", agent.CrossingName, "name of the proxy; a gateway's is its Gateway's")
	f.StringVar(&o.namespace, "namespace", orDefault(env("CAUSEWAY_NAMESPACE"), agent.SystemNamespace), "namespace of the pod ($CAUSEWAY_NAMESPACE)")
	f.StringVar(&o.instance, "instance", host, "tells the pods of the proxy apart: the pod's name")
	f.StringVar(&o.cluster, "cluster", env("CAUSEWAY_CLUSTER"), "name of the cluster ($CAUSEWAY_CLUSTER)")
	f.StringVar(&o.clusterset, "clusterset", env("CAUSEWAY_CLUSTERSET_NAME"), "name of the clusterset ($CAUSEWAY_CLUSTERSET_NAME)")
	f.StringVar(&o.region, "region", env("CAUSEWAY_REGION"), "region of the cluster ($CAUSEWAY_REGION)")
	f.StringVar(&o.zone, "zone", env("CAUSEWAY_ZONE"), "zone of the pod ($CAUSEWAY_ZONE)")
	f.StringVar(&o.identity, "identity", orDefault(env("CAUSEWAY_IDENTITY"), "causeway-agent."+agent.SystemNamespace+".svc:15012"), "where the agents give certificates, HOST:PORT ($CAUSEWAY_IDENTITY)")
	f.StringVar(&o.xds, "xds", orDefault(env("CAUSEWAY_XDS"), "causeway-agent."+agent.SystemNamespace+".svc:15010"), "where the agents serve xDS, HOST:PORT ($CAUSEWAY_XDS)")
	f.StringVar(&o.token, "token", "/var/run/secrets/causeway.dev/token", "file with a ServiceAccount token for the audience causeway.dev/CLUSTER.CLUSTERSET")
	f.StringVar(&o.roots, "roots", "/etc/causeway/trust/ca.crt", "file with the roots of the cluster's trust domain, as the agent keeps them in the ConfigMap causeway-trust")
	f.StringVar(&o.dir, "dir", "/run/causeway", "folder for the bootstrap, the certificate and the admin socket; it must be the pod's own")
	f.StringVar(&o.envoy, "envoy", "", "the Envoy to run; else $CAUSEWAY_ENVOY or PATH")
	f.StringVar(&o.probe, "probe", ":8081", "address of /livez and /readyz; empty: none")
	f.StringVar(&o.logLevel, "log-level", "warning", "level of what Envoy logs of itself")
	f.IntVar(&o.concurrency, "concurrency", runtime.GOMAXPROCS(0), "Envoy's worker threads")
	f.DurationVar(&o.drain, "drain", translate.CrossingConnection+5*time.Second, "how long Envoy turns its clients away before it stops: longer than clients in other networks use a connection")
	f.BoolVarP(&o.verbose, "verbose", "v", false, "log what is done, not only what goes wrong")
	return cmd
}

func orDefault(v, otherwise string) string {
	if v == "" {
		return otherwise
	}
	return v
}

func (o *options) run(ctx context.Context) error {
	level := slog.LevelInfo
	if o.verbose {
		level = slog.LevelDebug
	}
	log := slog.New(slog.NewJSONHandler(o.errs, &slog.HandlerOptions{Level: level}))
	td, err := identity.TrustDomain(cluster.ID(o.cluster), o.clusterset)
	if err != nil {
		return fmt.Errorf("--cluster and --clusterset: %w", err)
	}
	asker, err := attest.NewClient(attest.ClientConfig{
		Address: o.identity, TokenFile: o.token, RootsFile: o.roots, TrustDomain: td,
		Role: identity.Role(o.role), Namespace: o.namespace, Name: o.name,
	})
	if err != nil {
		return err
	}
	certs := filepath.Join(o.dir, "certs")
	rotator, err := identity.NewRotator(identity.RotatorConfig{Name: "proxy", Issue: asker.Issue, Dir: certs, Trust: asker.Roots, Logger: log})
	if err != nil {
		return err
	}
	server, err := identity.AgentID(td)
	if err != nil {
		return err
	}
	admin := filepath.Join(o.dir, "admin.sock")
	files, err := translate.Bootstrap(translate.BootstrapConfig{
		Proxy: translate.Proxy{Cluster: cluster.ID(o.cluster), Role: translate.Role(o.role), Namespace: o.namespace, Name: o.name}, Instance: o.instance,
		Region: o.region, Zone: o.zone, XDSAddress: o.xds, ServerID: server.String(), Dir: o.dir, Credential: certs, AdminSocket: admin,
	})
	if err != nil {
		return err
	}
	for name, data := range files {
		if err := identity.WriteFile(filepath.Join(o.dir, name), data, 0o600); err != nil {
			return fmt.Errorf("--dir: %w", err)
		}
	}
	// The certificate is renewed as long as Envoy drains.
	renewing, stop := context.WithCancel(context.WithoutCancel(ctx))
	defer stop()
	g, ctx := errgroup.WithContext(ctx)
	g.Go(func() error { return rotator.Run(renewing) })
	g.Go(func() error {
		defer stop()
		binary, err := envoy.Find(o.envoy) // while the certificate is on its way
		if err != nil {
			return err
		}
		if version, untested := binary.Untested(); untested {
			log.Warn("this Envoy is not the one that causeway is tested with", "path", binary.Path, "version", version, "tested", envoy.Version)
		}
		if _, err := rotator.Wait(ctx); err != nil {
			return nil // told to stop before it began
		}
		p := envoy.Process{
			Path: binary.Path, Bootstrap: filepath.Join(o.dir, translate.FileBootstrap), Output: o.errs, Logger: log,
			LogLevel: o.logLevel, Concurrency: o.concurrency, Admin: admin, Drain: o.drain, Grace: 5 * time.Second,
		}
		return p.Run(ctx)
	})
	if o.probe != "" {
		g.Go(func() error { return o.serveProbes(renewing, admin) })
	}
	return g.Wait()
}

// serveProbes answers kubelet until ctx ends: ready once Envoy has its first
// configuration, and as long as it isn't draining.
func (o *options) serveProbes(ctx context.Context, admin string) error {
	ready, err := envoy.NewReadiness(admin)
	if err != nil {
		return err
	}
	l, err := (&net.ListenConfig{}).Listen(ctx, "tcp", o.probe)
	if err != nil {
		return fmt.Errorf("--probe: %w", err)
	}
	return serve.HTTP(ctx, l, serve.Probes(serve.Alive, ready.Ready), nil)
}
