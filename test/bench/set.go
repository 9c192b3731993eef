package main

import (
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"log/slog"
	"net/netip"
	"os"
	"path/filepath"
	"strings"
	"sync"
	"time"

	"golang.org/x/sync/errgroup"

	"github.com/causeway-mesh/causeway/cluster/identity"
	"github.com/causeway-mesh/causeway/cmd/causeway/agent"
	"github.com/causeway-mesh/causeway/federation/gossip"
	"github.com/causeway-mesh/causeway/federation/store/etcd"
	"github.com/causeway-mesh/causeway/xds/translate"
)

// set is a running clusterset: etcd and agents in processes of their own, and the
// proxies, which the driver plays.
type set struct {
	w       world
	dir     string
	log     *slog.Logger
	output  *os.File // of the parts
	storeCA *identity.StoreAuthority
	store   *process
	storeAt string
	admin   *etcd.Store
	key     gossip.Key
	cas     []*identity.Authority
	agents  []*process
	hubs    []*process
	peers   []string
	edits   [][]edit // what each cluster's source was told, for when its agent starts anew

	run      *arrivals
	learned  *references
	mu       sync.Mutex
	proxies  [][]*proxy // by cluster: sidecars first
	services int        // counts the changes
	resting  *bill      // per second, see idle
	closely  bool       // setup.Profile
}

// open starts etcd and sets up its users for a world's clusters.
func open(ctx context.Context, w world, dir string, log *slog.Logger) (s *set, err error) {
	if _, err := subdir(dir); err != nil {
		return nil, err
	}
	s = &set{w: w, dir: dir, log: log, key: gossip.NewKey(), run: newArrivals(), learned: &references{}, proxies: make([][]*proxy, w.Clusters), agents: make([]*process, w.Clusters), edits: make([][]edit, w.Clusters)}
	defer func() {
		if err != nil {
			s.close()
		}
	}()
	if s.output, err = os.Create(filepath.Join(dir, "parts.log")); err != nil {
		return s, err
	}
	if s.storeCA, err = identity.OpenStoreAuthority(identity.StoreAuthorityConfig{Clusterset: clusterset, RootConfig: identity.RootConfig{Logger: log}}); err != nil {
		return s, err
	}
	for c := range w.Clusters {
		ca, err := authority(w, c, s.clusterDir(c)+"/ca", log)
		if err != nil {
			return s, err
		}
		s.cas = append(s.cas, ca)
	}
	cert, err := s.storeCA.IssueServer(0, []string{"localhost"}, []netip.Addr{netip.MustParseAddr("127.0.0.1")})
	if err != nil {
		return s, err
	}
	ca, _ := s.storeCA.BundlePEM()
	var first started
	if s.store, first, err = start(ctx, "etcd", setup{Part: partStore, Dir: filepath.Join(dir, "etcd"), Store: storeSetup{CA: ca, Cert: cert.CertPEM(), Key: cert.KeyPEM()}}, s.output); err != nil {
		return s, err
	}
	s.storeAt = first.Address
	if s.admin, err = s.connect(etcd.AdminUser); err != nil {
		return s, err
	}
	var names []string
	for c := range w.Clusters {
		names = append(names, string(w.cluster(c)))
	}
	return s, etcd.Bootstrap(ctx, s.admin, names...)
}

func (s *set) clusterDir(c int) string { return filepath.Join(s.dir, string(s.w.cluster(c))) }

// client is what a user of the store needs.
func (s *set) client(user string) (storeSetup, error) {
	cred, err := s.storeCA.IssueClient(0, user)
	if err != nil {
		return storeSetup{}, err
	}
	ca, _ := s.storeCA.BundlePEM()
	return storeSetup{Endpoint: s.storeAt, CA: ca, Cert: cred.CertPEM(), Key: cred.KeyPEM()}, nil
}

func (s *set) connect(user string) (*etcd.Store, error) {
	c, err := s.client(user)
	if err != nil {
		return nil, err
	}
	return connect(c, s.log)
}

// close ends everything.
func (s *set) close() {
	for c := range s.agents {
		s.stop(c)
	}
	for _, h := range s.hubs {
		h.kill()
	}
	if s.admin != nil {
		_ = s.admin.Close()
	}
	if s.store != nil {
		s.store.kill()
	}
	if s.output != nil {
		_ = s.output.Close()
	}
}

// stop kills an agent and forgets its proxies.
func (s *set) stop(c int) {
	if s.agents[c] != nil {
		s.agents[c].kill()
		s.agents[c] = nil
	}
	for _, p := range s.proxies[c] {
		p.close()
	}
	s.proxies[c] = nil
}

// start runs an agent, which begins with nothing on disk but its CA, and connects
// its proxies.
func (s *set) start(ctx context.Context, c int) error {
	dir := s.clusterDir(c)
	if err := os.RemoveAll(filepath.Join(dir, "state")); err != nil {
		return err
	}
	store, err := s.client(etcd.AgentUser(string(s.w.cluster(c))))
	if err != nil {
		return err
	}
	p, first, err := start(ctx, "agent of "+string(s.w.cluster(c)), setup{Part: partAgent, World: s.w, Index: c, Dir: dir, Store: store, Key: s.key.Reveal(), Edits: s.edits[c], Profile: s.closely}, s.output)
	if err != nil {
		return err
	}
	s.mu.Lock()
	s.agents[c] = p
	s.peers = append(s.peers, first.Gossip)
	peers := s.peers
	s.mu.Unlock()
	if _, err := p.ask(request{Peers: peers}); err != nil {
		return err
	}
	list := s.w.sidecars(c)
	list = append(list, translate.Proxy{Cluster: s.w.cluster(c), Role: translate.RoleCrossing, Namespace: agent.SystemNamespace, Name: "crossing"})
	if s.w.Routes > 0 {
		for n := range s.w.Gateways {
			list = append(list, translate.Proxy{Cluster: s.w.cluster(c), Role: translate.RoleGateway, Namespace: s.w.namespace(n), Name: gatewayName(n)})
		}
	}
	out := make([]*proxy, len(list))
	var g errgroup.Group
	for i, x := range list {
		g.Go(func() (err error) {
			out[i], err = dial(ctx, x, first.Address, s.cas[c], s.run, s.learned)
			return err
		})
	}
	err = g.Wait()
	for _, x := range out {
		if x != nil {
			s.proxies[c] = append(s.proxies[c], x)
		}
	}
	return err
}

// edit tells a cluster's source of a change.
func (s *set) edit(c int, e edit) (response, error) {
	s.edits[c] = append(s.edits[c], e)
	return s.agents[c].ask(request{Edit: &e})
}

// of gives the proxies of a role in a cluster, or in all (-1).
func (s *set) of(role translate.Role, c int) (out []*proxy) {
	for i, list := range s.proxies {
		for _, p := range list {
			if (c < 0 || i == c) && p.Role == role {
				out = append(out, p)
			}
		}
	}
	return out
}

// settle waits until all that was delivered anywhere has reached every proxy.
func (s *set) settle() error {
	answers, err := s.askAgents(func(int) request { return request{Settle: &settle{Flush: true}} })
	if err != nil {
		return err
	}
	var newest int64
	for _, a := range answers {
		newest = max(newest, a.Revision)
	}
	if _, err := s.askAgents(func(c int) request {
		return request{Settle: &settle{Revision: newest, Proxies: len(s.proxies[c])}}
	}); err != nil {
		return err
	}
	return s.healthy()
}

// calm waits until no proxy has been sent anything for a while.
func (s *set) calm(ctx context.Context, quiet time.Duration) error {
	for {
		last := int64(0)
		for _, list := range s.proxies {
			for _, p := range list {
				last = max(last, p.last.Load())
			}
		}
		left := quiet - time.Duration(time.Now().UnixNano()-last)
		if left <= 0 {
			return s.healthy()
		}
		select {
		case <-ctx.Done():
			return ctx.Err()
		case <-time.After(left):
		}
	}
}

// healthy reports proxies whose stream has ended.
func (s *set) healthy() error {
	var errs []error
	for _, list := range s.proxies {
		for _, p := range list {
			p.mu.Lock()
			errs = append(errs, p.err)
			p.mu.Unlock()
		}
	}
	return errors.Join(errs...)
}

// askAgents sends each agent that runs a request, one after the other, and gives the
// answers. All are asked, also when one fails.
func (s *set) askAgents(r func(c int) request) (out []response, err error) {
	for c, a := range s.agents {
		if a == nil {
			continue
		}
		answer, e := a.ask(r(c))
		out, err = append(out, answer), errors.Join(err, e)
	}
	return out, err
}

// usage sums up what the agents have used.
func (s *set) usage() (total usage, err error) {
	answers, err := s.askAgents(func(int) request { return request{Usage: true} })
	for _, a := range answers {
		total = total.plus(a.Usage)
	}
	return total, err
}

// hold keeps the agents from collecting garbage until resume, and says what a collection
// takes in all of them together.
func (s *set) hold() (total cycle, err error) {
	answers, err := s.askAgents(func(int) request { return request{Hold: true} })
	for _, a := range answers {
		total.CPU += a.Cycle.CPU
		total.Room += a.Cycle.Room
	}
	return total, err
}

// resume ends hold. Agents that were not held go on as they do.
func (s *set) resume() error {
	_, err := s.askAgents(func(int) request { return request{Resume: true} })
	return err
}

// profile begins to profile the agents into files whose names begin with what is given,
// until "-" writes them.
func (s *set) profile(into string) error {
	_, err := s.askAgents(func(c int) request { return request{Profile: profileOf(into, fmt.Sprintf("c%d", c))} })
	return err
}

// profileOf is what a part is asked for.
func profileOf(into, part string) string {
	if into == "-" {
		return into
	}
	dir, name := filepath.Split(into)
	return dir + strings.ReplaceAll(name, " ", "-") + "-" + part
}

// String makes a world fit for a log.
func (w world) String() string {
	b, _ := json.Marshal(w)
	return string(b)
}
