// Package clusterset has the commands of the person who administers a clusterset:
// `clusterset init`, `cluster add` and `cluster remove`. They are the only ones that
// speak to etcd themselves, as its root.
//
// # What is guaranteed
//
//   - What makes an administrator is one folder: the authority of the store (who
//     may be which etcd user), that of the clusterset's own trust domain (hubs and
//     people), and the key of the gossip. Its files have mode 0600, folders 0700.
//   - Every command may be repeated, also one that was cut off. What is there is
//     kept; certificates are issued anew each time.
//   - What `cluster add` prints has all that the agents of that cluster need, and
//     nothing by which another cluster could be written or spoken for: a
//     certificate of the etcd user agent:<cluster>, public roots and the gossip key.
//     The cluster's own certificate authority is made in the cluster and stays there.
//
// The folder is used by one command at a time.
package clusterset

import (
	"errors"
	"fmt"
	"io/fs"
	"log/slog"
	"net"
	"net/netip"
	"net/url"
	"os"
	"path/filepath"
	"slices"
	"time"

	"sigs.k8s.io/yaml"

	"github.com/causeway-mesh/causeway/cluster/identity"
	"github.com/causeway-mesh/causeway/federation/gossip"
)

// Lives of what the administrator hands out. Agents and hubs don't renew what
// lets them into etcd: repeating the command does.
const (
	rootTTL = 10 * 365 * 24 * time.Hour
	leafTTL = 365 * 24 * time.Hour
)

const (
	fileSettings = "clusterset.yaml"
	fileGossip   = "gossip.key"
	dirStore     = "store"
	dirDomain    = "domain"
	dirAdmin     = "admin"
	dirEtcd      = "etcd"
)

// settings are what the folder remembers of the clusterset.
type settings struct {
	Name string `json:"name"`
	// Etcd lists the members as agents and hubs reach them, https://host:port.
	Etcd []string `json:"etcd"`
	// EtcdNames are further names and addresses of the members' certificate.
	EtcdNames []string `json:"etcdNames,omitempty"`
	// Hubs lists gossip addresses of hubs, host:port, that agents join.
	Hubs []string `json:"hubs,omitempty"`
	// API is the address of the hubs' query API, host:port, for people.
	API string `json:"api,omitempty"`
}

// folder is an administrator's folder, open.
type folder struct {
	path   string
	set    settings
	store  *identity.StoreAuthority
	domain *identity.Authority
	gossip gossip.Key
}

var errNoFolder = errors.New("is no clusterset's folder: make one with `causeway clusterset init NAME --etcd=https://HOST:2379`, or name it with --dir")

// open reads a folder that `clusterset init` made.
func open(path string, log *slog.Logger) (*folder, error) {
	data, err := os.ReadFile(filepath.Join(path, fileSettings))
	switch {
	case errors.Is(err, fs.ErrNotExist):
		return nil, fmt.Errorf("%s %w", path, errNoFolder)
	case err != nil:
		return nil, err
	}
	f := &folder{path: path}
	if err := yaml.UnmarshalStrict(data, &f.set); err != nil {
		return nil, fmt.Errorf("%s: %w", filepath.Join(path, fileSettings), err)
	}
	return f, f.complete(log)
}

// create makes a folder, or takes over the one that is there.
func create(path string, set settings, log *slog.Logger) (*folder, error) {
	f, err := open(path, log)
	switch {
	case err == nil && f.set.Name != set.Name:
		return nil, fmt.Errorf("%s is the folder of clusterset %s, not %s: give another one with --dir", path, f.set.Name, set.Name)
	case err == nil:
		// What is not said stays as it is.
		if len(set.Etcd) == 0 {
			set.Etcd = f.set.Etcd
		}
		if len(set.EtcdNames) == 0 {
			set.EtcdNames = f.set.EtcdNames
		}
		if len(set.Hubs) == 0 {
			set.Hubs = f.set.Hubs
		}
		if set.API == "" {
			set.API = f.set.API
		}
	case !errors.Is(err, errNoFolder):
		return nil, err
	}
	if err := set.check(); err != nil {
		return nil, err
	}
	if err := os.MkdirAll(path, 0o700); err != nil {
		return nil, err
	}
	f = &folder{path: path, set: set}
	if err := f.complete(log); err != nil {
		return nil, err
	}
	data, err := yaml.Marshal(set)
	if err != nil {
		return nil, err
	}
	return f, identity.WriteFile(filepath.Join(path, fileSettings), data, 0o600)
}

// complete opens what the folder holds, and makes what it lacks.
func (f *folder) complete(log *slog.Logger) error {
	td, err := identity.ClustersetDomain(f.set.Name)
	if err != nil {
		return err
	}
	root := func(name string) identity.RootConfig {
		return identity.RootConfig{Dir: filepath.Join(f.path, name), RootTTL: rootTTL, MaxTTL: leafTTL, Logger: log}
	}
	if f.store, err = identity.OpenStoreAuthority(identity.StoreAuthorityConfig{Clusterset: f.set.Name, RootConfig: root(dirStore)}); err != nil {
		return err
	}
	if f.domain, err = identity.OpenAuthority(identity.AuthorityConfig{TrustDomain: td, RootConfig: root(dirDomain)}); err != nil {
		return err
	}
	path := filepath.Join(f.path, fileGossip)
	data, err := os.ReadFile(path)
	if errors.Is(err, fs.ErrNotExist) {
		f.gossip = gossip.NewKey()
		return identity.WriteFile(path, []byte(f.gossip.Reveal()+"\n"), 0o600)
	}
	if err != nil {
		return err
	}
	if f.gossip, err = gossip.ParseKey(string(data)); err != nil {
		return fmt.Errorf("%s: %w", path, err)
	}
	return nil
}

func (s *settings) check() error {
	if len(s.Etcd) == 0 {
		return errors.New("no etcd given: say with --etcd=https://HOST:2379 how agents reach its members, once for each")
	}
	for _, e := range s.Etcd {
		if _, err := hostOf(e); err != nil {
			return err
		}
	}
	for _, h := range s.Hubs {
		if _, _, err := net.SplitHostPort(h); err != nil {
			return fmt.Errorf("--hub %q is not HOST:PORT", h)
		}
	}
	if _, _, err := net.SplitHostPort(s.API); s.API != "" && err != nil {
		return fmt.Errorf("--api %q is not HOST:PORT", s.API)
	}
	return nil
}

// hostOf gives the host of a member's URL.
func hostOf(endpoint string) (string, error) {
	u, err := url.Parse(endpoint)
	if err != nil || u.Scheme != "https" || u.Port() == "" || u.Hostname() == "" || (u.Path != "" && u.Path != "/") {
		return "", fmt.Errorf("etcd member %q is not https://HOST:PORT", endpoint)
	}
	return u.Hostname(), nil
}

// hosts are the names and addresses under which etcd's members are dialled.
func (s *settings) hosts() []string {
	var out []string
	for _, e := range s.Etcd {
		if h, err := hostOf(e); err == nil {
			out = append(out, h)
		}
	}
	out = append(out, s.EtcdNames...)
	slices.Sort(out)
	return slices.Compact(out)
}

// serverCredential certifies etcd's members, all by one certificate. They need the
// loopback addresses too, for etcd's own health checks.
func (f *folder) serverCredential() (*identity.Credential, error) {
	names, ips := sans(f.set.hosts())
	return f.store.IssueServer(leafTTL, names, ips)
}

// hubNames are how hubs are reached in the cluster of their chart.
var hubNames = []string{"causeway-hub.causeway-system.svc", "causeway-hub.causeway-system.svc.cluster.local"}

// hubCredential certifies hubs, as themselves and for callers like grpcurl that
// know servers by name.
func (f *folder) hubCredential() (*identity.Credential, error) {
	id, err := identity.HubID(f.domain.TrustDomain())
	if err != nil {
		return nil, err
	}
	hosts := hubNames
	if host, _, err := net.SplitHostPort(f.set.API); err == nil {
		hosts = append(slices.Clone(hosts), host)
	}
	names, ips := sans(hosts)
	return f.domain.Issue(identity.SVIDRequest{ID: id, TTL: leafTTL, DNSNames: names, IPs: ips})
}

// sans parts hosts into names and addresses, this machine's own among them.
func sans(hosts []string) (names []string, ips []netip.Addr) {
	names, ips = []string{"localhost"}, []netip.Addr{netip.MustParseAddr("127.0.0.1"), netip.IPv6Loopback()}
	for _, h := range hosts {
		if ip, err := netip.ParseAddr(h); err == nil {
			ips = append(ips, ip)
		} else {
			names = append(names, h)
		}
	}
	return names, ips
}

func (f *folder) storeRoots() []byte {
	pem, _ := f.store.BundlePEM()
	return pem
}

func (f *folder) domainRoots() []byte { return identity.BundlePEM(f.domain.Bundle()) }

// write puts a credential and the roots into a folder below.
func (f *folder) write(dir string, c *identity.Credential, roots []byte) error {
	return identity.WriteDir(filepath.Join(f.path, dir), identity.Files(c, roots))
}
