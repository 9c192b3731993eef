package gossip

import (
	"fmt"
	"log/slog"
	"net/netip"
	"testing"
	"time"

	"github.com/hashicorp/memberlist"
)

func TestNewRefuses(t *testing.T) {
	good := Config{Role: RoleAgent, Cluster: "a", Replica: "0", Bind: loopback, Key: NewKey()}
	if _, err := New(good); err != nil {
		t.Fatal(err)
	}
	for name, change := range map[string]func(*Config){
		"no key":               func(c *Config) { c.Key = Key{} },
		"no role":              func(c *Config) { c.Role = "" },
		"no cluster":           func(c *Config) { c.Cluster = "" },
		"hub with a cluster":   func(c *Config) { c.Role = RoleHub },
		"no replica":           func(c *Config) { c.Replica = "" },
		"no address":           func(c *Config) { c.Bind = netip.AddrPort{} },
		"[::], nothing to say": func(c *Config) { c.Bind = netip.MustParseAddrPort("[::]:0") },
		"advertise 0.0.0.0":    func(c *Config) { c.Advertise = netip.MustParseAddrPort("0.0.0.0:1") },
		"half a timing":        func(c *Config) { c.Timing = Timing{ProbeInterval: time.Second} },
		"hasty suspicion":      func(c *Config) { c.Timing = LAN(); c.Timing.SuspectAfter = c.Timing.ReportEvery },
	} {
		c := good
		change(&c)
		if _, err := New(c); err == nil {
			t.Errorf("%s: accepted", name)
		}
	}
	for _, s := range []string{"", "host", "host:", ":1", "host:0", "host:x", "host:70000"} {
		if _, _, err := checkJoin(s); err == nil {
			t.Errorf("%q can be joined", s)
		}
	}
}

// Silence makes a member suspect and news of it alive again; memberlist's word
// makes it dead, and time forgets it. Neither touches what it said.
func TestTable(t *testing.T) {
	timing := LAN()
	now := time.Date(2026, 1, 1, 0, 0, 0, 0, time.UTC)
	at := func(d time.Duration) time.Time { return now.Add(d) }
	tab := newTable("a/0", timing)
	tab.event("a/0", event{alive: true, addr: loopback}, now)
	tab.event("b/0", event{alive: true, addr: loopback}, now)
	state1 := &state{name: "b/0", epoch: 1, seq: 2, report: Report{Revision: 3}}
	if tab.state(state1, now) == nil {
		t.Error("news is not passed on")
	}
	for name, old := range map[string]*state{"the same": state1, "older": {name: "b/0", epoch: 1, seq: 1}, "of an older run": {name: "b/0", seq: 99}, "of a stranger": {name: "c/0", epoch: 1, seq: 1}} {
		if tab.state(old, at(time.Hour)) != nil {
			t.Errorf("a state that is %s is passed on", name)
		}
	}
	check := func(d time.Duration, want MemberState) {
		t.Helper()
		b := find(tab.members(at(d)), "b/0")
		if b.State != want || want != "" && b.Revision < 3 {
			t.Errorf("after %s b is %+v, want %s", d, b, want)
		}
		if a := find(tab.members(at(d)), "a/0"); a.State != MemberAlive {
			t.Errorf("this member itself is %s", a.State)
		}
	}
	s := timing.SuspectAfter
	check(s-1, MemberAlive)
	check(s, MemberSuspect)
	if next := tab.nextChange(now); !next.Equal(at(s)) {
		t.Errorf("next change at %s, want %s", next, at(s))
	}
	tab.state(&state{name: "b/0", epoch: 1, seq: 3, report: Report{Revision: 4}}, at(s))
	check(s, MemberAlive)
	if n := len(tab.states()); n != 1 {
		t.Errorf("%d states to exchange, want 1", n)
	}
	tab.event("b/0", event{}, at(s))
	check(s, MemberDead)
	if n := len(tab.states()); n != 0 {
		t.Errorf("%d states of the dead to exchange", n)
	}
	if next := tab.nextChange(at(s)); !next.Equal(at(s + timing.ForgetDead)) {
		t.Errorf("next change at %s", next)
	}
	tab.forget(at(s + timing.ForgetDead - 1))
	check(s+timing.ForgetDead-1, MemberDead)
	tab.forget(at(s + timing.ForgetDead))
	check(s+timing.ForgetDead, "")

	// What this process slept through is not held against the others.
	tab.event("b/0", event{alive: true, addr: loopback}, now)
	tab.state(&state{name: "b/0", epoch: 2, report: Report{Revision: 5}}, now)
	tab.excuse(time.Minute)
	check(time.Minute+s-1, MemberAlive)
	check(time.Minute+s, MemberSuspect)
}

func TestTableIsBounded(t *testing.T) {
	now := time.Now()
	tab := newTable("a/self", LAN())
	tab.event("a/self", event{alive: true}, now)
	for n := range 3 * MaxMembers {
		name := fmt.Sprintf("b/%d", n)
		tab.event(name, event{alive: true}, now)
		tab.event(name, event{}, now.Add(time.Duration(n)*time.Second))
	}
	members := tab.members(now)
	if len(members) != MaxMembers || find(members, "a/self").Name == "" {
		t.Errorf("%d members are kept, want %d with this one", len(members), MaxMembers)
	}
	if find(members, "b/0").Name != "" || find(members, fmt.Sprintf("b/%d", 3*MaxMembers-1)).Name == "" {
		t.Error("others than those dead longest were forgotten")
	}

	m, err := newMetrics(nil)
	if err != nil {
		t.Fatal(err)
	}
	box := newMailbox("a/self", m, &limitedLog{slog: slog.New(slog.DiscardHandler)}, 4)
	refused := 0
	for n := range 2 * MaxMembers {
		node := &memberlist.Node{Name: fmt.Sprintf("b/%d", n)}
		if box.NotifyAlive(node) != nil {
			refused++
			continue
		}
		box.NotifyJoin(node)
	}
	if refused != MaxMembers {
		t.Errorf("%d of %d members refused", refused, 2*MaxMembers)
	}
	if box.NotifyAlive(&memberlist.Node{Name: "b/0"}) != nil {
		t.Error("a member that is known is refused")
	}
	if box.NotifyAlive(&memberlist.Node{Name: "not a name"}) == nil {
		t.Error("a name that can't be is admitted")
	}
}
