// Package incluster is `causeway agent`: one of the agents of a real Kubernetes
// cluster, as the Helm chart runs it. It puts cluster/kubernetes, cluster/status,
// cluster/attest and cmd/causeway/agent together.
//
// What is guaranteed:
//
//   - Every replica reads the cluster and the store for itself, resolves, and serves
//     xDS, certificates and the query API. The leader alone publishes to the store,
//     writes to the API server and looks after the certificate authority.
//   - Told to stop, it is not ready from that moment on, gives the lead away once its
//     writes have ended, and serves its Envoys until others have taken over.
//   - It is ready when what it would serve is real: the cluster was read in full, or
//     the copy of it on disk when the API server is away; the same of the store; all of
//     it resolved and translated for the crossing gateways. Losing the API server or the
//     store later does not make it unready: what it serves stays real.
package incluster

import (
	"context"
	"errors"
	"fmt"
	"io"
	"log/slog"
	"net/netip"
	"os"
	"strings"
	"time"

	"github.com/spf13/cobra"
	"github.com/spf13/pflag"
	corev1 "k8s.io/api/core/v1"
	"sigs.k8s.io/yaml"

	"github.com/causeway-mesh/causeway/cluster"
	"github.com/causeway-mesh/causeway/cluster/attest"
	"github.com/causeway-mesh/causeway/cmd/causeway/agent"
)

type options struct {
	config                         string
	cluster, clusterset            string
	region, zone, network          string
	kubeconfig, namespace, replica string
	credentials, data              string
	store, join                    []string
	gossip, advertise              string
	xds, identity, listen          string
	metrics, probe                 string
	crossingService                string
	crossingPods                   string
	crossingAccount                string
	crossingPort                   uint16
	gatewayImage, gatewayPull      string
	gatewayReplicas                int32
	bind                           string
	podIPs                         []string
	handover, drain                time.Duration
	verbose                        bool
	errs                           io.Writer
}

// environment is the variable for a flag: CAUSEWAY_CROSSING_PORT for crossing-port.
func environment(flag string) string {
	return "CAUSEWAY_" + strings.ToUpper(strings.ReplaceAll(flag, "-", "_"))
}

// Command is `causeway agent`.
func Command() *cobra.Command {
	var o options
	cmd := &cobra.Command{
		Use:   "agent",
		Short: "Run an agent of this Kubernetes cluster",
		Long: `Watch this cluster's API server and the clusterset's store, and serve the cluster's
Envoys. The Helm chart causeway runs two of them.

What a flag does not say, an environment variable does: $CAUSEWAY_CROSSING_PORT for
--crossing-port; else the file of --config, which holds flags without their dashes:
"crossing-port: 15443".`,
		Args: cobra.NoArgs,
		RunE: func(cmd *cobra.Command, _ []string) error {
			o.errs = cmd.ErrOrStderr()
			if err := complete(cmd.Flags(), os.LookupEnv); err != nil {
				return err
			}
			return o.run(cmd.Context())
		},
	}
	o.flags(cmd.Flags())
	cmd.AddCommand(uninstallCommand())
	return cmd
}

func (o *options) flags(f *pflag.FlagSet) {
	host, _ := os.Hostname()
	f.StringVar(&o.config, "config", "", "YAML file with flags that the command line and the environment do not set")
	f.StringVar(&o.cluster, "cluster", "", "name of this cluster, a DNS label")
	f.StringVar(&o.clusterset, "clusterset", "", "name of the clusterset")
	f.StringVar(&o.region, "region", "", "region of this cluster")
	f.StringVar(&o.zone, "zone", "", "zone of this cluster")
	f.StringVar(&o.network, "network", "", "name of the network: clusters of one network reach each other's pods; empty: a network of its own")
	f.StringVar(&o.kubeconfig, "kubeconfig", "", "kubeconfig file; empty: as a pod")
	f.StringVar(&o.namespace, "namespace", agent.SystemNamespace, "namespace of the agent's own Lease, Secret and ConfigMap")
	f.StringVar(&o.replica, "replica", host, "tells the agents of the cluster apart: the pod's name")
	f.StringVar(&o.credentials, "credentials", "/etc/causeway/clusterset", "folder with what `causeway cluster add` made")
	f.StringVar(&o.data, "data", "/var/lib/causeway", "folder for the copies of the store, of the cluster and of its authority, with which a start begins when they are away; it holds private keys")
	f.StringSliceVar(&o.store, "store", nil, "members of the store, https://HOST:PORT; may be repeated")
	f.StringVar(&o.gossip, "gossip", "0.0.0.0:7946", "address of the gossip, TCP and UDP")
	f.StringVar(&o.advertise, "advertise", "", "address at which others reach the gossip, IP:PORT; the one bound to if empty")
	f.StringSliceVar(&o.join, "join", nil, "gossip addresses of other members, HOST:PORT; may be repeated")
	f.StringVar(&o.xds, "xds", ":15010", "address of xDS, for the cluster's Envoys")
	f.StringVar(&o.identity, "identity", ":15012", "address at which Envoys get their certificate for a ServiceAccount token")
	f.StringVar(&o.listen, "listen", ":8443", "address of the query API")
	f.StringVar(&o.metrics, "metrics", ":9090", "address of the Prometheus metrics (mTLS, as the query API); empty: none")
	f.StringVar(&o.probe, "probe", ":8080", "address of /livez and /readyz, which say nothing else; empty: none")
	f.StringVar(&o.crossingService, "crossing-service", agent.SystemNamespace+"/causeway-crossing", "Service of the crossing gateways, NAMESPACE/NAME: by its load balancer's addresses other networks enter")
	f.StringVar(&o.crossingPods, "crossing-pods", agent.SystemNamespace+"/causeway-crossing-pods", "headless Service of the crossing gateways, NAMESPACE/NAME: its endpoints take this cluster's clients without a sidecar")
	f.StringVar(&o.crossingAccount, "crossing-account", "causeway-crossing", "ServiceAccount of the crossing gateways, in the namespace "+agent.SystemNamespace)
	f.Uint16Var(&o.crossingPort, "crossing-port", 15443, "port on which crossing gateways listen for other networks")
	f.StringVar(&o.gatewayImage, "gateway-image", "causeway-envoy:latest", "image of the pods of Gateways, the same as of the crossing gateways")
	f.StringVar(&o.gatewayPull, "gateway-pull-policy", string(corev1.PullIfNotPresent), "when that image is pulled: Always, IfNotPresent or Never")
	f.Int32Var(&o.gatewayReplicas, "gateway-replicas", 1, "pods that a Gateway begins with, unless its parameters say so")
	f.StringVar(&o.bind, "bind", "", "address on which Envoys listen; if empty all, of both families if --pod-ips has one of IPv6")
	f.StringSliceVar(&o.podIPs, "pod-ips", nil, "addresses of the agent's pod: of which families the cluster's pods have addresses")
	f.DurationVar(&o.handover, "handover", 3*time.Second, "how long Envoys are still served after the agent is told to stop, so that all have heard of it")
	f.DurationVar(&o.drain, "drain", 2*time.Second, "how long streams may then go on, so that Envoys connect elsewhere")
	f.BoolVarP(&o.verbose, "verbose", "v", false, "log what is done, not only what goes wrong")
}

// complete sets the flags that the command line did not: by the environment, else by
// the file that --config names.
func complete(f *pflag.FlagSet, lookup func(string) (string, bool)) error {
	var errs []error
	set := func(fl *pflag.Flag, value, from string) {
		if err := f.Set(fl.Name, value); err != nil {
			errs = append(errs, fmt.Errorf("%s: %w", from, err))
		}
	}
	f.VisitAll(func(fl *pflag.Flag) {
		if v, ok := lookup(environment(fl.Name)); ok && !fl.Changed {
			set(fl, v, "$"+environment(fl.Name))
		}
	})
	path, err := f.GetString("config")
	if err != nil || path == "" {
		return errors.Join(append(errs, err)...)
	}
	data, err := os.ReadFile(path)
	if err != nil {
		return fmt.Errorf("--config: %w", err)
	}
	values := map[string]any{}
	if err := yaml.UnmarshalStrict(data, &values); err != nil {
		return fmt.Errorf("--config %s: %w", path, err)
	}
	for name, v := range values {
		fl := f.Lookup(name)
		if fl == nil || name == "config" {
			errs = append(errs, fmt.Errorf("--config %s: there is no flag --%s", path, name))
			continue
		}
		if fl.Changed || v == nil {
			continue
		}
		text := fmt.Sprint(v)
		if list, ok := v.([]any); ok {
			parts := make([]string, 0, len(list))
			for _, x := range list {
				parts = append(parts, fmt.Sprint(x))
			}
			text = strings.Join(parts, ",")
		}
		if text != "" || fl.Value.Type() == "string" {
			set(fl, text, "--config "+path)
		}
	}
	return errors.Join(errs...)
}

func (o *options) logger() *slog.Logger {
	level := slog.LevelInfo
	if o.verbose {
		level = slog.LevelDebug
	}
	return slog.New(slog.NewJSONHandler(o.errs, &slog.HandlerOptions{Level: level}))
}

// validate says what is wrong with the options, before anything starts.
func (o *options) validate() error {
	id := cluster.ID(o.cluster)
	switch {
	case o.cluster == "":
		return errors.New("no cluster named: give --cluster, the name with which `causeway cluster add` was called")
	case o.clusterset == "":
		return errors.New("no clusterset named: give --clusterset")
	case len(o.store) == 0:
		return errors.New("no store given: name its members with --store=https://HOST:2379")
	case o.data == "":
		return errors.New("no folder for copies given: name one with --data")
	case o.handover < 0 || o.drain < 0:
		return errors.New("--handover and --drain can't be negative")
	}
	if _, err := o.bindTo(); err != nil {
		return err
	}
	if p := corev1.PullPolicy(o.gatewayPull); p != corev1.PullAlways && p != corev1.PullIfNotPresent && p != corev1.PullNever {
		return fmt.Errorf("--gateway-pull-policy %q is not Always, IfNotPresent or Never", o.gatewayPull)
	}
	if o.gatewayReplicas < 1 {
		return errors.New("--gateway-replicas has to be at least 1")
	}
	if o.crossingPort == 0 {
		return errors.New("--crossing-port can't be 0")
	}
	return id.Validate()
}

// bindTo is where Envoys listen in their pods.
func (o *options) bindTo() (netip.Addr, error) {
	if o.bind != "" {
		addr, err := netip.ParseAddr(o.bind)
		if err != nil {
			return addr, fmt.Errorf("--bind: %w", err)
		}
		return addr, nil
	}
	out := netip.IPv4Unspecified()
	for _, ip := range o.podIPs {
		addr, err := netip.ParseAddr(ip)
		if err != nil {
			return out, fmt.Errorf("--pod-ips: %w", err)
		}
		if addr.Is6() {
			out = netip.IPv6Unspecified() // takes IPv4 too
		}
	}
	return out, nil
}

// crossing says who may be this cluster's crossing gateways.
func (o *options) crossing() attest.Crossing {
	return attest.Crossing{Account: attest.Account{Namespace: agent.SystemNamespace, Name: o.crossingAccount}, Name: agent.CrossingName}
}

func (o *options) run(ctx context.Context) error {
	if err := o.validate(); err != nil {
		return err
	}
	s, err := o.build(ctx)
	if err != nil {
		return err
	}
	return s.run(ctx)
}
