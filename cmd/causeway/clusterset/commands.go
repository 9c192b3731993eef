package clusterset

import (
	"context"
	"crypto/tls"
	"errors"
	"fmt"
	"io"
	"log/slog"
	"path/filepath"
	"time"

	"github.com/prometheus/client_golang/prometheus"
	"github.com/spf13/cobra"

	"github.com/causeway-mesh/causeway/cluster"
	"github.com/causeway-mesh/causeway/cluster/identity"
	"github.com/causeway-mesh/causeway/cmd/causeway/client"
	"github.com/causeway-mesh/causeway/federation/store"
	"github.com/causeway-mesh/causeway/federation/store/etcd"
)

// Config is what the commands need of the process.
type Config struct {
	Out, Err io.Writer
	Getenv   func(string) string
}

// DirVariable names the folder in the environment.
const DirVariable = "CAUSEWAY_CLUSTERSET"

const adminName = "admin"

// command is what all commands share.
type command struct {
	Config
	dir string
	log *slog.Logger
}

func newCommand(cfg Config) *command {
	return &command{Config: cfg, log: slog.New(slog.NewTextHandler(cfg.Err, &slog.HandlerOptions{Level: slog.LevelWarn}))}
}

func (c *command) addFlags(cmd *cobra.Command) {
	cmd.Flags().StringVar(&c.dir, "dir", "", "the administrator's folder ($"+DirVariable+"; else ./clusterset)")
}

func (c *command) folder() string {
	if c.dir != "" {
		return c.dir
	}
	if d := c.Getenv(DirVariable); d != "" {
		return d
	}
	return "clusterset"
}

// Command is `causeway clusterset`.
func Command(cfg Config) *cobra.Command {
	cmd := &cobra.Command{
		Use:   "clusterset",
		Short: "Administer a clusterset: prepare its store",
		Args:  cobra.NoArgs,
		RunE:  func(*cobra.Command, []string) error { return errors.New("say what to do: init") },
	}
	cmd.AddCommand(newInit(newCommand(cfg)))
	return cmd
}

// ClusterCommands are those to be put below `causeway cluster`.
func ClusterCommands(cfg Config) []*cobra.Command {
	return []*cobra.Command{newAdd(newCommand(cfg)), newRemove(newCommand(cfg))}
}

func newInit(c *command) *cobra.Command {
	var set settings
	var wait time.Duration
	var values string
	cmd := &cobra.Command{
		Use:   "init NAME",
		Short: "Prepare an etcd to be the store of a clusterset",
		Long: `Prepare an etcd to be the store of a clusterset: make the authority that says who
may be which of its users, and certificates for its members; then, once it answers,
its users and roles, and switch authentication on. Repeat it as often as you like:
what is there is kept, certificates are renewed.

The folder (--dir) makes you the administrator: whoever has it can add clusters and
write everything. Keep it as you keep the keys of your CAs.

With the Helm chart causeway-hub that runs an etcd of its own, give its address and
use --values: the file has what the chart needs.`,
		Example: `  causeway clusterset init prod --etcd=https://etcd.example.com:2379
  causeway clusterset init prod --etcd=https://causeway-etcd.example.com:2379 --hub=hub.example.com:7946 --api=hub.example.com:8443 --values=hub.yaml`,
		Args: cobra.ExactArgs(1),
		RunE: func(cmd *cobra.Command, args []string) error {
			set.Name = args[0]
			return c.init(cmd.Context(), set, values, wait)
		},
	}
	c.addFlags(cmd)
	f := cmd.Flags()
	f.StringArrayVar(&set.Etcd, "etcd", nil, "a member of the store as agents reach it, https://HOST:PORT; may be repeated")
	f.StringArrayVar(&set.EtcdNames, "etcd-name", nil, "a further DNS name or address of the store's members, for their certificate; may be repeated")
	f.StringArrayVar(&set.Hubs, "hub", nil, "gossip address of a hub as agents reach it, HOST:PORT; may be repeated")
	f.StringVar(&set.API, "api", "", "address of the hubs' query API, HOST:PORT, for the folder's own client configuration")
	f.StringVar(&values, "values", "", "also write the values of the Helm chart causeway-hub to this file")
	f.DurationVar(&wait, "wait", 10*time.Second, "how long to wait for the store to answer")
	return cmd
}

// storeNames are how the chart's own etcd is reached within its cluster.
var storeNames = []string{"*.causeway-etcd.causeway-system.svc", "*.causeway-etcd.causeway-system.svc.cluster.local", "causeway-etcd.causeway-system.svc", "causeway-etcd-client.causeway-system.svc"}

func (c *command) init(ctx context.Context, set settings, values string, wait time.Duration) error {
	if values != "" {
		set.EtcdNames = append(set.EtcdNames, storeNames...)
	}
	f, err := create(c.folder(), set, c.log)
	if err != nil {
		return err
	}
	server, err := f.serverCredential()
	if err != nil {
		return err
	}
	if err := f.write(dirEtcd, server, f.storeRoots()); err != nil {
		return err
	}
	if err := f.writePerson(); err != nil {
		return err
	}
	if values != "" {
		data, err := f.hubValues(server)
		if err != nil {
			return err
		}
		if err := identity.WriteFile(values, data, 0o600); err != nil {
			return err
		}
		c.say("%s has the values of the chart causeway-hub (it holds keys: treat it as one)", values)
	}
	s, err := f.connect(c.log)
	if err != nil {
		return err
	}
	defer s.Close()
	ctx, cancel := context.WithTimeout(ctx, wait)
	defer cancel()
	if err := etcd.Bootstrap(ctx, s); err != nil {
		if errors.Is(err, store.ErrUnavailable) || ctx.Err() != nil {
			dir := filepath.Join(f.path, dirEtcd)
			return fmt.Errorf(`%w (%[3]w)
The certificates are made, but the store does not answer yet. Let its members run with
  --cert-file=%[2]s/tls.crt --key-file=%[2]s/tls.key --trusted-ca-file=%[2]s/ca.crt --client-cert-auth
(members of more than one: the same for --peer-...), or install the chart causeway-hub; then repeat this command`, store.ErrUnavailable, dir, err)
		}
		return err
	}
	c.say("clusterset %s: its store is ready; add clusters with `causeway cluster add NAME --dir=%s`", f.set.Name, f.path)
	return nil
}

// writePerson makes the administrator's own certificate for the query API.
func (f *folder) writePerson() error {
	id, err := identity.UserID(f.domain.TrustDomain(), adminName)
	if err != nil {
		return err
	}
	person, err := f.domain.Issue(identity.SVIDRequest{ID: id, TTL: leafTTL})
	if err != nil {
		return err
	}
	if err := f.write(dirAdmin, person, f.domainRoots()); err != nil || f.set.API == "" {
		return err
	}
	at := func(name string) string { return filepath.Join(dirAdmin, name) }
	return client.WriteContext(f.path, client.Context{Server: f.set.API, CACert: at(identity.FileBundle), Cert: at(identity.FileCert), Key: at(identity.FileKey)})
}

func (c *command) say(format string, a ...any) { fmt.Fprintf(c.Err, format+"\n", a...) }

// connect reaches the store as its root.
func (f *folder) connect(log *slog.Logger) (*etcd.Store, error) {
	root, err := f.store.IssueClient(time.Hour, etcd.AdminUser)
	if err != nil {
		return nil, err
	}
	var cfg *tls.Config
	if cfg, err = identity.StoreClientConfig(func() (*identity.Credential, error) { return root, nil }, f.storeRoots, f.set.hosts()); err != nil {
		return nil, err
	}
	return etcd.New(etcd.Config{Endpoints: f.set.Etcd, TLS: cfg, Logger: log, Registerer: prometheus.NewRegistry()})
}

func newAdd(c *command) *cobra.Command {
	var p place
	var output string
	cmd := &cobra.Command{
		Use:   "add CLUSTER",
		Short: "Add a cluster to the clusterset, and print what its agents need",
		Long: `Add a cluster to the clusterset: make its user in the store, who may read everything
and write below the cluster's own prefix alone, and print what the cluster's agents
need, as values of the Helm chart causeway or as a Secret.

What is printed lets its bearer speak for that cluster, and for no other. Repeat the
command to renew the certificate in it, which lasts a year.`,
		Example: `  causeway cluster add west --region=eu --network=west > west.yaml
  helm install causeway deploy/helm/causeway -n causeway-system --create-namespace -f west.yaml`,
		Args: cobra.ExactArgs(1),
		RunE: func(cmd *cobra.Command, args []string) error {
			p.Name = args[0]
			return c.add(cmd.Context(), p, output)
		},
	}
	c.addFlags(cmd)
	f := cmd.Flags()
	f.StringVar(&p.Region, "region", "", "the cluster's region: clients prefer clusters of their own")
	f.StringVar(&p.Zone, "zone", "", "the cluster's zone, if it lies in one")
	f.StringVar(&p.Network, "network", "", "the cluster's network: clusters of one network reach each other's pods; a network of its own if not given")
	f.StringVarP(&output, "output", "o", "values", "values: of the Helm chart causeway; secret: a Secret for its value existingSecret")
	return cmd
}

func (c *command) add(ctx context.Context, p place, output string) error {
	render, ok := map[string]func(*folder, place, *identity.Credential) ([]byte, error){"values": (*folder).agentValues, "secret": (*folder).agentSecret}[output]
	if !ok {
		return fmt.Errorf("output %q is unknown: use values or secret", output)
	}
	if err := cluster.ID(p.Name).Validate(); err != nil {
		return err
	}
	f, err := open(c.folder(), c.log)
	if err != nil {
		return err
	}
	if _, err := identity.TrustDomain(cluster.ID(p.Name), f.set.Name); err != nil {
		return err
	}
	s, err := f.connect(c.log)
	if err != nil {
		return err
	}
	defer s.Close()
	if err := etcd.Bootstrap(ctx, s, p.Name); err != nil {
		return err
	}
	agent, err := f.store.IssueClient(leafTTL, etcd.AgentUser(p.Name))
	if err != nil {
		return err
	}
	data, err := render(f, p, agent)
	if err != nil {
		return err
	}
	if _, err := c.Out.Write(data); err != nil {
		return err
	}
	c.say("cluster %s is added; its agents' certificate lasts until %s", p.Name, agent.NotAfter().Format(time.DateOnly))
	return nil
}

func newRemove(c *command) *cobra.Command {
	var yes bool
	cmd := &cobra.Command{
		Use:   "remove CLUSTER",
		Short: "Take a cluster out of the clusterset for good",
		Long: `Take a cluster out of the clusterset for good, whether it still runs or is gone: its
user in the store is deleted, so that its agents can write no more, and with it all
that the cluster exported. The others forget it at once. Drain it first
("causeway cluster drain") if it still serves requests of other clusters.

The certificates that its agents had are worth nothing without the user. A cluster
that is added under the same name later gives them their worth back until they
expire: if a key may be in wrong hands, choose another name.`,
		Args: cobra.ExactArgs(1),
		RunE: func(cmd *cobra.Command, args []string) error {
			if !yes {
				return fmt.Errorf("this deletes all that cluster %s exported from the store; say --yes if you mean it", args[0])
			}
			return c.remove(cmd.Context(), args[0])
		},
	}
	c.addFlags(cmd)
	cmd.Flags().BoolVar(&yes, "yes", false, "do it")
	return cmd
}

func (c *command) remove(ctx context.Context, name string) error {
	f, err := open(c.folder(), c.log)
	if err != nil {
		return err
	}
	s, err := f.connect(c.log)
	if err != nil {
		return err
	}
	defer s.Close()
	prefix, err := store.ClusterPrefix(name)
	if err != nil {
		return err
	}
	had, _, err := s.List(ctx, prefix, 0)
	if err != nil {
		return err
	}
	rev, err := etcd.RemoveCluster(ctx, s, name)
	if err != nil {
		return err
	}
	if len(had) == 0 {
		c.say("cluster %s had nothing in the store; its user is gone at revision %d", name, rev)
		return nil
	}
	c.say("cluster %s is removed, and %d keys with it, at revision %d", name, len(had), rev)
	return nil
}
