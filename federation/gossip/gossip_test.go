package gossip

import (
	"context"
	"fmt"
	"io"
	"log"
	"log/slog"
	"net"
	"net/netip"
	"slices"
	"strings"
	"sync"
	"testing"
	"time"

	"github.com/hashicorp/memberlist"
	"github.com/prometheus/client_golang/prometheus"

	"github.com/causeway-mesh/causeway/cluster"
)

var loopback = netip.MustParseAddrPort("127.0.0.1:0")

// quick is Local with shorter memories, so that a partition is a real one
// (memberlist has forgotten the other side) within seconds.
func quick() Timing {
	t := Local()
	t.PushPull = 400 * time.Millisecond
	t.Rejoin = 300 * time.Millisecond
	return t
}

// island is a set of members of one test with a network that can be parted.
type island struct {
	t   *testing.T
	key Key

	mu    sync.Mutex
	addrs map[string]string // by member name, and the reverse
	side  map[string]int    // by member name
}

func newIsland(t *testing.T) *island {
	return &island{t: t, key: NewKey(), addrs: map[string]string{}, side: map[string]int{}}
}

// join gives the addresses of all members so far.
func (i *island) join() []string {
	i.mu.Lock()
	defer i.mu.Unlock()
	var out []string
	for name, addr := range i.addrs {
		if strings.Contains(name, "/") {
			out = append(out, addr)
		}
	}
	return out
}

func (i *island) part(sides map[string]int) {
	i.mu.Lock()
	defer i.mu.Unlock()
	i.side = sides
}

func (i *island) cut(from string) func(string) bool {
	return func(addr string) bool {
		i.mu.Lock()
		defer i.mu.Unlock()
		return i.side[from] != i.side[i.addrs[addr]]
	}
}

type member struct {
	*Gossip
	reg  *prometheus.Registry
	stop func() // once; waits for Run
}

func (i *island) start(role Role, id cluster.ID, replica string, change ...func(*Config)) *member {
	i.t.Helper()
	reg := prometheus.NewRegistry()
	cfg := Config{
		Role: role, Cluster: id, Replica: replica, Bind: loopback, Key: i.key, Join: i.join, Timing: quick(),
		Registerer: reg, Logger: slog.New(slog.NewTextHandler(io.Discard, nil)),
	}
	for _, c := range change {
		c(&cfg)
	}
	g, err := New(cfg)
	if err != nil {
		i.t.Fatal(err)
	}
	g.cut = i.cut(g.Name())
	ctx, cancel := context.WithCancel(context.Background())
	done := make(chan error, 1)
	go func() { done <- g.Run(ctx) }()
	addr, err := g.Addr(i.t.Context())
	if err != nil {
		i.t.Fatal(err)
	}
	i.mu.Lock()
	i.addrs[g.Name()], i.addrs[addr.String()] = addr.String(), g.Name()
	i.mu.Unlock()
	m := &member{Gossip: g, reg: reg, stop: sync.OnceFunc(func() {
		cancel()
		if err := <-done; err != nil {
			i.t.Errorf("%s: %v", g.Name(), err)
		}
	})}
	i.t.Cleanup(m.stop)
	return m
}

// five starts four agents and a hub and waits until they know each other.
func (i *island) five() []*member {
	i.t.Helper()
	out := []*member{i.start(RoleAgent, "a", "0"), i.start(RoleAgent, "b", "0"), i.start(RoleAgent, "c", "0"), i.start(RoleAgent, "d", "0"), i.start(RoleHub, "", "0")}
	for _, m := range out {
		await(i.t, m, "five alive", func(ms []Member) bool { return alive(ms) == 5 })
	}
	return out
}

// await waits until the condition holds of m's Members, by Watch alone.
func await(t *testing.T, m *member, what string, ok func([]Member) bool) []Member {
	t.Helper()
	deadline := time.After(time.Minute)
	for {
		members, changed := m.Watch()
		if ok(members) {
			return members
		}
		select {
		case <-changed:
		case <-deadline:
			t.Fatalf("%s: still not %s: %+v", m.Name(), what, members)
		}
	}
}

func alive(members []Member) int {
	n := 0
	for _, m := range members {
		if m.State == MemberAlive {
			n++
		}
	}
	return n
}

func find(members []Member, name string) Member {
	for _, m := range members {
		if m.Name == name {
			return m
		}
	}
	return Member{}
}

func metric(t *testing.T, reg *prometheus.Registry, name string, label string) float64 {
	t.Helper()
	families, err := reg.Gather()
	if err != nil {
		t.Fatal(err)
	}
	for _, f := range families {
		if f.GetName() != name {
			continue
		}
		for _, m := range f.Metric {
			if label == "" || len(m.Label) > 0 && m.Label[0].GetValue() == label {
				return m.GetCounter().GetValue() + m.GetGauge().GetValue()
			}
		}
	}
	return 0
}

// awaitMetric polls, since metrics tell no one of changes.
func awaitMetric(t *testing.T, m *member, name, label string, least float64) {
	t.Helper()
	tick := time.NewTicker(10 * time.Millisecond)
	defer tick.Stop()
	for deadline := time.Now().Add(time.Minute); metric(t, m.reg, name, label) < least; <-tick.C {
		if time.Now().After(deadline) {
			t.Fatalf("%s: %s{%s} is %v, not %v", m.Name(), name, label, metric(t, m.reg, name, label), least)
		}
	}
}

func TestMembersLearnOfEachOther(t *testing.T) {
	t.Parallel()
	i := newIsland(t)
	all := i.five()
	want := Report{Revision: 42, Lag: 7 * time.Millisecond, Votes: []Vote{{"c", false}, {"d", true}}}
	// Votes are put in order, duplicates and names that can't be are dropped.
	all[1].Report(Report{Revision: 42, Lag: 7 * time.Millisecond, Votes: []Vote{{"d", true}, {"c", false}, {"c", true}, {"No", true}}})
	for _, m := range all {
		members := await(t, m, "told of b's report", func(ms []Member) bool { return find(ms, "b/0").Revision == 42 })
		b := find(members, "b/0")
		if b.Lag != want.Lag || !slices.Equal(b.Votes, want.Votes) || b.Role != RoleAgent || b.Cluster != "b" || b.Self != (m == all[1]) {
			t.Errorf("%s sees %+v", m.Name(), b)
		}
		if hub := find(members, "@hub/0"); hub.Role != RoleHub || hub.Cluster != "" {
			t.Errorf("%s sees the hub as %+v", m.Name(), hub)
		}
		if addr, _ := all[1].Addr(t.Context()); b.Addr != addr {
			t.Errorf("%s sees b at %s, not %s", m.Name(), b.Addr, addr)
		}
	}
	awaitMetric(t, all[0], "causeway_gossip_members", "alive", 5) // on a busy machine one may be suspected for a moment

	// The largest report there can be arrives, cut to what a packet holds.
	large := Report{Revision: 43}
	for n := range 60 {
		large.Votes = append(large.Votes, Vote{Cluster: cluster.ID(fmt.Sprintf("%02d%s", n, strings.Repeat("x", 61)))})
	}
	all[1].Report(large)
	for _, m := range all {
		members := await(t, m, "told of b's large report", func(ms []Member) bool { return find(ms, "b/0").Revision == 43 })
		if n := len(find(members, "b/0").Votes); m != all[1] && (n < 15 || n >= 60) {
			t.Errorf("%s got %d votes", m.Name(), n)
		}
	}
	awaitMetric(t, all[1], "causeway_gossip_votes_cut_total", "", 40)
	all[1].Report(want)

	// One that comes late learns all that is known at once.
	late := i.start(RoleAgent, "e", "0")
	members := await(t, late, "told of b's report", func(ms []Member) bool { return find(ms, "b/0").Revision == 42 })
	if len(members) < 2 {
		t.Errorf("the late one sees %+v", members)
	}
}

func TestDeathAndReturn(t *testing.T) {
	t.Parallel()
	i := newIsland(t)
	all := i.five()
	others := []*member{all[0], all[1], all[2], all[4]}
	all[3].Report(Report{Revision: 9})
	for _, m := range others {
		await(t, m, "told of revision 9", func(ms []Member) bool { return find(ms, "d/0").Revision == 9 })
	}

	start := time.Now()
	all[3].crash = true
	all[3].stop()
	for _, m := range others {
		members := await(t, m, "rid of d alone", func(ms []Member) bool { return find(ms, "d/0").State == MemberDead && alive(ms) == 4 })
		if d := find(members, "d/0"); d.Revision != 9 {
			t.Errorf("what the dead member said is gone: %+v", d)
		}
	}
	t.Logf("a crash was noticed by all after %s", time.Since(start).Round(time.Millisecond))

	// It comes back under its name, at another port.
	again := i.start(RoleAgent, "d", "0")
	again.Report(Report{Revision: 10})
	addr, _ := again.Addr(t.Context())
	for _, m := range others {
		await(t, m, "reunited with d", func(ms []Member) bool {
			d := find(ms, "d/0")
			return d.State == MemberAlive && d.Addr == addr && d.Revision == 10
		})
	}
	await(t, again, "among five", func(ms []Member) bool { return alive(ms) == 5 })

	// It leaves, which is noticed faster than a crash, and comes back at the same port.
	again.stop()
	for _, m := range others {
		await(t, m, "told that d left", func(ms []Member) bool { return find(ms, "d/0").State == MemberDead })
	}
	third := i.start(RoleAgent, "d", "0", func(c *Config) { c.Bind = addr })
	for _, m := range others {
		await(t, m, "reunited again", func(ms []Member) bool { return find(ms, "d/0").State == MemberAlive })
	}
	await(t, third, "among five again", func(ms []Member) bool { return alive(ms) == 5 })
}

func TestPartitionHeals(t *testing.T) {
	t.Parallel()
	i := newIsland(t)
	all := i.five()
	i.part(map[string]int{"a/0": 1, "b/0": 1})
	for n, m := range all {
		mine := map[bool]int{true: 2, false: 3}[n < 2]
		await(t, m, "cut off", func(ms []Member) bool {
			dead := 0
			for _, x := range ms {
				if x.State == MemberDead {
					dead++
				}
			}
			return alive(ms) == mine && dead == 5-mine
		})
	}
	all[0].Report(Report{Revision: 5})
	await(t, all[1], "informed on its own side", func(ms []Member) bool { return find(ms, "a/0").Revision == 5 })
	if got := find(all[4].Members(), "a/0").Revision; got != 0 {
		t.Errorf("news crossed the partition: revision %d", got)
	}
	i.part(nil)
	for _, m := range all {
		await(t, m, "whole again", func(ms []Member) bool { return alive(ms) == 5 && find(ms, "a/0").Revision == 5 })
	}
}

func TestWrongKeyIsRefused(t *testing.T) {
	t.Parallel()
	i := newIsland(t)
	inside := i.start(RoleAgent, "a", "0")
	outside := i.start(RoleAgent, "b", "0", func(c *Config) { c.Key = NewKey() })
	awaitMetric(t, outside, "causeway_gossip_joins_total", "error", 2)
	awaitMetric(t, inside, "causeway_gossip_joins_total", "error", 2)
	for _, m := range []*member{inside, outside} {
		if members := m.Members(); len(members) != 1 || !members[0].Self {
			t.Errorf("%s sees %+v", m.Name(), members)
		}
	}
}

// A holder of the key who speaks under b's name, and sends rubbish: b's own word
// returns, nothing breaks, and with leases held nobody is dead meanwhile.
func TestForgedClaimsAreRefuted(t *testing.T) {
	t.Parallel()
	i := newIsland(t)
	all := i.five()
	all[1].Report(Report{Revision: 7, Votes: []Vote{{"c", true}}})
	for _, m := range all {
		await(t, m, "told of revision 7", func(ms []Member) bool { return find(ms, "b/0").Revision == 7 })
	}

	mc := memberlist.DefaultLocalConfig()
	mc.Name, mc.BindAddr, mc.BindPort, mc.SecretKey = "z/forger", "127.0.0.1", 0, i.key.bytes()
	mc.DelegateProtocolMin, mc.DelegateProtocolMax, mc.DelegateProtocolVersion = 1, 1, 1
	mc.Logger = log.New(io.Discard, "", 0)
	forger, err := memberlist.Create(mc)
	if err != nil {
		t.Fatal(err)
	}
	defer func() { _ = forger.Shutdown() }()
	if _, err := forger.Join(i.join()); err != nil {
		t.Fatal(err)
	}
	forged, _ := (&state{name: "b/0", epoch: 1 << 61, seq: 9, report: Report{Revision: 1 << 40, Votes: []Vote{{"a", false}, {"c", false}, {"d", false}}}}).encode()
	var dead sync.Map
	watch, stopWatch := context.WithCancel(t.Context())
	var watching sync.WaitGroup
	for _, m := range all {
		watching.Go(func() {
			for {
				members, changed := m.Watch()
				in := Inputs{Members: members}
				for _, id := range []cluster.ID{"a", "b", "c", "d"} {
					in.Clusters = append(in.Clusters, ClusterInput{ID: id, Lease: LeaseHeld})
				}
				for id, v := range Judge(in) {
					if v.Health == Dead {
						dead.Store(id, v.Reason)
					}
				}
				select {
				case <-changed:
				case <-watch.Done():
					return
				}
			}
		})
	}
	for _, m := range all { // whomever the forger takes for alive
		addr, err := m.Addr(t.Context())
		if err != nil {
			t.Fatal(err)
		}
		node := &memberlist.Node{Name: m.Name(), Addr: addr.Addr().AsSlice(), Port: addr.Port()}
		for _, msg := range [][]byte{forged, []byte("rubbish"), {codecVersion}} {
			if err := forger.SendReliable(node, msg); err != nil {
				t.Fatal(err)
			}
		}
	}
	awaitMetric(t, all[1], "causeway_gossip_name_conflicts_total", "", 1)
	for _, m := range all {
		awaitMetric(t, m, "causeway_gossip_rejected_total", "malformed", 2)
		await(t, m, "back at b's own word", func(ms []Member) bool {
			b := find(ms, "b/0")
			return b.Revision == 7 && slices.Equal(b.Votes, []Vote{{"c", true}})
		})
	}
	stopWatch()
	watching.Wait()
	dead.Range(func(id, reason any) bool { t.Errorf("%v was dead: %v", id, reason); return true })
}

// A second member under a name that is in use doesn't displace the first.
func TestNameTaken(t *testing.T) {
	t.Parallel()
	i := newIsland(t)
	// Nobody is taken for dead, however busy the machine: a dead one's name is free.
	calm := func(c *Config) { c.Timing.SuspicionMult = 1000 }
	first, second := i.start(RoleAgent, "a", "0", calm), i.start(RoleAgent, "b", "0", calm)
	await(t, first, "two alive", func(ms []Member) bool { return alive(ms) == 2 })
	addr, _ := second.Addr(t.Context())
	i.start(RoleAgent, "b", "0", calm)
	awaitMetric(t, first, "causeway_gossip_name_conflicts_total", "", 1)
	if b := find(first.Members(), "b/0"); b.Addr != addr {
		t.Errorf("b is at %s now, was at %s", b.Addr, addr)
	}
}

// Run ends at once although a join hangs on a peer that never answers.
func TestRunEndsWhileJoining(t *testing.T) {
	t.Parallel()
	ln, err := net.Listen("tcp", "127.0.0.1:0")
	if err != nil {
		t.Fatal(err)
	}
	defer func() { _ = ln.Close() }()
	i := newIsland(t)
	m := i.start(RoleAgent, "a", "0", func(c *Config) {
		c.Timing = LAN()
		c.Timing.StreamTimeout = time.Minute
		c.Join = func() []string { return []string{ln.Addr().String()} }
	})
	conn, err := ln.Accept()
	if err != nil {
		t.Fatal(err)
	}
	defer func() { _ = conn.Close() }()
	start := time.Now()
	m.stop()
	if took := time.Since(start); took > 20*time.Second {
		t.Errorf("Run took %s to end", took)
	}
}

func TestPortTaken(t *testing.T) {
	t.Parallel()
	i := newIsland(t)
	first := i.start(RoleAgent, "a", "0")
	addr, _ := first.Addr(t.Context())
	g, err := New(Config{Role: RoleAgent, Cluster: "b", Replica: "0", Bind: addr, Key: i.key})
	if err != nil {
		t.Fatal(err)
	}
	err = g.Run(t.Context())
	if err == nil || !strings.Contains(err.Error(), addr.String()) || !strings.Contains(err.Error(), "port is taken") {
		t.Errorf("on a port that is taken: %v", err)
	}
	if _, addrErr := g.Addr(t.Context()); addrErr == nil {
		t.Error("Addr gives an address that was not bound")
	}
}
