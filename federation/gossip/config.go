package gossip

import (
	"errors"
	"fmt"
	"log/slog"
	"net"
	"net/netip"
	"strconv"
	"time"

	"github.com/hashicorp/memberlist"
	"github.com/prometheus/client_golang/prometheus"

	"github.com/causeway-mesh/causeway/cluster"
)

// MaxMembers bounds the members that are known at once, dead ones included.
const MaxMembers = 1024

// Config makes a Gossip.
type Config struct {
	Role    Role
	Cluster cluster.ID // empty for hubs
	// Replica tells the agents of a cluster, or the hubs, apart; see MemberName.
	Replica string
	// Bind is the address to listen on, UDP and TCP; port 0 takes a free one,
	// which Addr tells.
	Bind netip.AddrPort
	// Advertise is the address at which the others reach this member; by default
	// that bound to, or a private one of this machine where that is 0.0.0.0. Its
	// port may be 0: the one bound to.
	Advertise netip.AddrPort
	// Key encrypts all messages. Required.
	Key Key
	// Join gives host:port of members to join, as they are known now; nil or an
	// empty result means to wait until others join this one. Called from time to
	// time on a goroutine of Run; the result isn't modified.
	Join func() []string
	// Timing is LAN() by default.
	Timing     Timing
	Logger     *slog.Logger          // default slog.Default()
	Registerer prometheus.Registerer // nil: no metrics
}

// Timing is how fast members notice things. All are positive.
type Timing struct {
	// ProbeInterval is how often a member pings another, ProbeTimeout how long it
	// waits for the answer; SuspicionMult times ProbeInterval (and the logarithm
	// of the number of members) is how long a suspicion lasts before it is death.
	ProbeInterval, ProbeTimeout time.Duration
	SuspicionMult               int
	// GossipInterval is how often messages go out to a few members, PushPull how
	// often two members exchange all they know.
	GossipInterval, PushPull time.Duration
	// StreamTimeout bounds each TCP exchange.
	StreamTimeout time.Duration
	// ReportEvery is how often a member reports although nothing changed; changes
	// go out after a quarter of that at the latest.
	ReportEvery time.Duration
	// SuspectAfter is how long a member may be silent before it is suspect.
	SuspectAfter time.Duration
	// RejoinAlone is how often a member that is alone tries to join, Rejoin how
	// often one tries that misses an address of Join.
	RejoinAlone, Rejoin time.Duration
	// ForgetDead is how long a dead member is remembered.
	ForgetDead time.Duration
	// Leave bounds the farewell.
	Leave time.Duration
}

// LAN suits clusters in one or several data centres: a dead member is noticed
// within some 5 to 20 seconds.
func LAN() Timing {
	return Timing{
		ProbeInterval: time.Second, ProbeTimeout: 500 * time.Millisecond, SuspicionMult: 4,
		GossipInterval: 200 * time.Millisecond, PushPull: 30 * time.Second, StreamTimeout: 10 * time.Second,
		ReportEvery: 2 * time.Second, SuspectAfter: 7 * time.Second,
		RejoinAlone: 3 * time.Second, Rejoin: 30 * time.Second,
		ForgetDead: time.Hour, Leave: time.Second,
	}
}

// Local suits members on one machine, as in `causeway up`: a dead member is
// noticed within some 1 to 2 seconds.
func Local() Timing {
	return Timing{
		ProbeInterval: 300 * time.Millisecond, ProbeTimeout: 200 * time.Millisecond, SuspicionMult: 3,
		GossipInterval: 50 * time.Millisecond, PushPull: 2 * time.Second, StreamTimeout: time.Second,
		ReportEvery: 250 * time.Millisecond, SuspectAfter: 1500 * time.Millisecond,
		RejoinAlone: 300 * time.Millisecond, Rejoin: 2 * time.Second,
		ForgetDead: 10 * time.Minute, Leave: 300 * time.Millisecond,
	}
}

func (t Timing) validate() error {
	for _, d := range []struct {
		name string
		d    time.Duration
	}{
		{"ProbeInterval", t.ProbeInterval}, {"ProbeTimeout", t.ProbeTimeout}, {"GossipInterval", t.GossipInterval},
		{"PushPull", t.PushPull}, {"StreamTimeout", t.StreamTimeout}, {"ReportEvery", t.ReportEvery},
		{"SuspectAfter", t.SuspectAfter}, {"RejoinAlone", t.RejoinAlone}, {"Rejoin", t.Rejoin},
		{"ForgetDead", t.ForgetDead}, {"Leave", t.Leave},
	} {
		if d.d < time.Millisecond {
			return fmt.Errorf("gossip timing: %s is %s, not at least 1ms: start from LAN() or Local()", d.name, d.d)
		}
	}
	switch {
	case t.SuspicionMult < 1:
		return fmt.Errorf("gossip timing: SuspicionMult is %d, not at least 1", t.SuspicionMult)
	case t.ProbeTimeout >= t.ProbeInterval:
		return fmt.Errorf("gossip timing: ProbeTimeout %s is not below ProbeInterval %s", t.ProbeTimeout, t.ProbeInterval)
	case t.SuspectAfter < 2*t.ReportEvery:
		return fmt.Errorf("gossip timing: SuspectAfter %s is below twice ReportEvery %s", t.SuspectAfter, t.ReportEvery)
	}
	return nil
}

// complete validates the Config, fills in its defaults and gives the member's name.
func (c *Config) complete() (name string, err error) {
	if name, err = MemberName(c.Role, c.Cluster, c.Replica); err != nil {
		return "", err
	}
	if c.Timing == (Timing{}) {
		c.Timing = LAN()
	}
	if c.Logger == nil {
		c.Logger = slog.Default()
	}
	if c.Join == nil {
		c.Join = func() []string { return nil }
	}
	switch {
	case c.Key.IsZero():
		return "", errors.New("gossip without an encryption key: make one with `head -c 32 /dev/urandom | base64`")
	case !c.Bind.IsValid():
		return "", errors.New("gossip without an address to bind to")
	case c.Bind.Addr().IsUnspecified() && c.Bind.Addr().Is6() && !c.Advertise.IsValid():
		return "", errors.New("gossip bound to [::] needs an address to advertise")
	case c.Advertise.IsValid() && c.Advertise.Addr().IsUnspecified():
		return "", fmt.Errorf("gossip can't advertise %s: name one address", c.Advertise.Addr())
	}
	return name, c.Timing.validate()
}

// memberlistConfig is all of memberlist's but the transport and the delegates.
func (c *Config) memberlistConfig(name string, transport *transport, logger *limitedLog) *memberlist.Config {
	m := memberlist.DefaultLANConfig()
	m.Name = name
	m.Transport = transport
	m.BindAddr, m.BindPort = c.Bind.Addr().String(), transport.port()
	if c.Advertise.IsValid() {
		m.AdvertiseAddr, m.AdvertisePort = c.Advertise.Addr().String(), int(c.Advertise.Port())
		if m.AdvertisePort == 0 {
			m.AdvertisePort = transport.port()
		}
	}
	t := c.Timing
	m.ProbeInterval, m.ProbeTimeout = t.ProbeInterval, t.ProbeTimeout
	m.SuspicionMult, m.SuspicionMaxTimeoutMult = t.SuspicionMult, 2
	m.AwarenessMaxMultiplier = 3
	m.GossipInterval, m.PushPullInterval, m.TCPTimeout = t.GossipInterval, t.PushPull, t.StreamTimeout
	m.GossipToTheDeadTime = 2 * t.PushPull
	// A member that comes back elsewhere (a new pod, a new port) takes its name
	// again as soon as its former self is found dead.
	m.DeadNodeReclaimTime = time.Millisecond
	// Packets are a few hundred bytes: a compressor for each takes more than it saves.
	m.EnableCompression = false
	m.SecretKey = c.Key.bytes()
	m.GossipVerifyIncoming, m.GossipVerifyOutgoing = true, true
	m.DelegateProtocolMin, m.DelegateProtocolMax, m.DelegateProtocolVersion = codecVersion, codecVersion, codecVersion
	m.Logger = logger.logger()
	return m
}

// checkJoin reports why a string can't be joined.
func checkJoin(s string) (host string, port uint16, err error) {
	host, p, err := net.SplitHostPort(s)
	if err != nil || host == "" || len(host) > 253 {
		return "", 0, fmt.Errorf("join address %q is not host:port", shorten(s))
	}
	n, err := strconv.ParseUint(p, 10, 16)
	if err != nil || n == 0 {
		return "", 0, fmt.Errorf("join address %q has no port from 1 to 65535", shorten(s))
	}
	return host, uint16(n), nil
}
