package lab

import (
	"context"
	"fmt"
	"net/netip"
	"os/exec"
	"strings"
)

// bridge is the switch inside of the wire.
const bridge = "br0"

// ip runs commands of iproute2, one a line, inside of a network namespace, or on the
// machine if netns is empty. The first that fails ends it.
func ip(ctx context.Context, netns string, commands ...string) error {
	args := []string{"-batch", "-"}
	if netns != "" {
		args = append([]string{"-n", netns}, args...)
	}
	cmd := exec.CommandContext(ctx, "ip", args...)
	cmd.Stdin = strings.NewReader(strings.Join(commands, "\n") + "\n")
	if _, err := outputOf(cmd); err != nil {
		return fmt.Errorf("in network namespace %q, of %q: %w", netns, commands, err)
	}
	return nil
}

// inside makes a command one that runs in the network namespace. (`ip netns exec`
// would mount a /sys without cgroups as well.)
func inside(netns string, argv ...string) []string {
	return append([]string{"nsenter", "--net=" + netnsPath(netns), "--"}, argv...)
}

// createWire makes the switch of a lab and the machine's leg to it. Nothing is on the
// machine but this leg, with its addresses and routes.
func (s slot) createWire(ctx context.Context) error {
	if err := ip(ctx, "", "netns add "+s.wire()); err != nil {
		return err
	}
	port := member{s, 0}.name()
	if err := ip(ctx, s.wire(), "link add "+bridge+" type bridge forward_delay 0 mcast_snooping 0", "link set "+bridge+" up"); err != nil {
		return err
	}
	if err := ip(ctx, "", fmt.Sprintf("link add %s type veth peer name %s netns %s", s.link(), port, s.wire()),
		fmt.Sprintf("addr add %s/24 dev %s", s.address4(), s.link()),
		fmt.Sprintf("addr add %s/64 dev %s nodad", s.address6(), s.link()),
		"link set "+s.link()+" up"); err != nil {
		return err
	}
	if err := ip(ctx, s.wire(), "link set "+port+" master "+bridge, "link set "+port+" up"); err != nil {
		return err
	}
	return s.nft(ctx,
		"add table bridge lab",
		"add set bridge lab cut { type ifname . ifname; }",
		"add chain bridge lab forward { type filter hook forward priority 0; }",
		"add rule bridge lab forward meta iifname . meta oifname @cut drop")
}

// nft runs commands of nftables in the wire as one transaction.
func (s slot) nft(ctx context.Context, commands ...string) error {
	argv := inside(s.wire(), "nft", "-f", "-")
	cmd := exec.CommandContext(ctx, argv[0], argv[1:]...)
	cmd.Stdin = strings.NewReader(strings.Join(commands, "\n") + "\n")
	_, err := outputOf(cmd)
	return err
}

// cut drops every frame between two members; heal lets them through again. Both may
// be said twice.
func (s slot) cut(ctx context.Context, a, b member) error {
	return s.nft(ctx, s.pairs("add", a, b)...)
}

func (s slot) heal(ctx context.Context, a, b member) error {
	return s.nft(ctx, append(s.pairs("add", a, b), s.pairs("delete", a, b)...)...) // deleting what is not there fails
}

func (s slot) pairs(verb string, a, b member) []string {
	return []string{
		fmt.Sprintf("%s element bridge lab cut { %q . %q }", verb, a.name(), b.name()),
		fmt.Sprintf("%s element bridge lab cut { %q . %q }", verb, b.name(), a.name()),
	}
}

// createNode makes the network namespace of a cluster's node, with its leg to the
// switch, and the machine's routes to its pods and load balancers.
func (m member) createNode(ctx context.Context) error {
	if err := ip(ctx, "", "netns add "+m.name()); err != nil {
		return err
	}
	if err := ip(ctx, m.name(), fmt.Sprintf("link add eth0 type veth peer name %s netns %s", m.name(), m.slot.wire()),
		"link set lo up",
		fmt.Sprintf("addr add %s/24 dev eth0", m.node4()),
		fmt.Sprintf("addr add %s/64 dev eth0 nodad", m.node6()),
		"link set eth0 up",
		"route add default via "+m.slot.address4().String(),
		"route add default via "+m.slot.address6().String(),
		// What reaches a load balancer's address that no Service has is refused here.
		fmt.Sprintf("route add local %s dev lo", m.balancers4()),
		fmt.Sprintf("route add local %s dev lo", m.balancers6()),
	); err != nil {
		return err
	}
	if err := ip(ctx, m.slot.wire(), "link set "+m.name()+" master "+bridge, "link set "+m.name()+" up"); err != nil {
		return err
	}
	if err := ip(ctx, "", append(m.routes(m.balancers4(), m.balancers6()), m.routes(m.pods4(), m.pods6())...)...); err != nil {
		return err
	}
	if err := run(ctx, inside(m.name(), "sh", "-ec", `
		echo 1 > /proc/sys/net/ipv4/ip_forward
		echo 1 > /proc/sys/net/ipv6/conf/all/forwarding
		for f in /proc/sys/net/bridge/bridge-nf-call-ip*tables; do [ ! -e $f ] || echo 1 > $f; done
		echo '0 2147483647' > /proc/sys/net/ipv4/ping_group_range || true`)...); err != nil {
		return err
	}
	// Pods leave the cluster with the node's address, as in most clouds.
	for _, p := range []netip.Prefix{m.pods4(), m.pods6()} {
		if err := m.iptables(ctx, p, "-A", "POSTROUTING", "-s", p.String(), "!", "-d", p.String(), "-o", "eth0", "-j", "MASQUERADE"); err != nil {
			return err
		}
	}
	return nil
}

// routes are the commands for routes to prefixes of the cluster.
func (m member) routes(prefixes ...netip.Prefix) []string {
	var out []string
	for _, p := range prefixes {
		via := m.node4()
		if p.Addr().Is6() {
			via = m.node6()
		}
		out = append(out, fmt.Sprintf("route replace %s via %s", p, via))
	}
	return out
}

// iptables edits the nat table of the node, for the family of p.
func (m member) iptables(ctx context.Context, p netip.Prefix, rule ...string) error {
	tool := "iptables"
	if p.Addr().Is6() {
		tool = "ip6tables"
	}
	return run(ctx, inside(m.name(), append([]string{tool, "-w", "10", "-t", "nat"}, rule...)...)...)
}

// meet lets two nodes reach each other's load balancers. Nodes reach each other anyway.
func meet(ctx context.Context, a, b member) error {
	if err := ip(ctx, a.name(), b.routes(b.balancers4(), b.balancers6())...); err != nil {
		return err
	}
	return ip(ctx, b.name(), a.routes(a.balancers4(), a.balancers6())...)
}

// flatten lets the pods of two clusters reach each other, with their own addresses.
func flatten(ctx context.Context, a, b member) error {
	for _, d := range [][2]member{{a, b}, {b, a}} {
		from, to := d[0], d[1]
		if err := ip(ctx, from.name(), to.routes(to.pods4(), to.pods6())...); err != nil {
			return err
		}
		for _, p := range [][2]netip.Prefix{{from.pods4(), to.pods4()}, {from.pods6(), to.pods6()}} {
			rule := []string{"POSTROUTING", "-s", p[0].String(), "-d", p[1].String(), "-j", "ACCEPT"}
			if from.iptables(ctx, p[0], append([]string{"-C"}, rule...)...) == nil {
				continue
			}
			if err := from.iptables(ctx, p[0], append([]string{"-I"}, rule...)...); err != nil {
				return err
			}
		}
	}
	return nil
}
