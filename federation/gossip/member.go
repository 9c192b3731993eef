package gossip

import (
	"fmt"
	"net/netip"
	"regexp"
	"strings"
	"time"

	"github.com/causeway-mesh/causeway/cluster"
)

// Role says what a member is.
type Role string

// The roles of members.
const (
	RoleAgent Role = "agent"
	RoleHub   Role = "hub"
)

// MemberState is what this process thinks of a member.
type MemberState string

// The states of members.
const (
	MemberAlive MemberState = "alive"
	// MemberSuspect has not been heard of for Timing.SuspectAfter. (memberlist
	// keeps its own suspicion to itself; this one comes from silence.)
	MemberSuspect MemberState = "suspect"
	// MemberDead has left, or doesn't answer anyone's pings.
	MemberDead MemberState = "dead"
)

// Vote is what a member says of its probes of a cluster's crossing gateways.
type Vote struct {
	Cluster   cluster.ID
	Reachable bool
}

// Report is what a member tells the others of itself.
type Report struct {
	// Revision is the newest store revision that it has taken in.
	Revision int64
	// Lag is how far its view of the store is behind, in its own estimate.
	Lag time.Duration
	// Votes are the results of its Prober. What doesn't fit in a packet (some 80
	// votes with names of usual length) is cut off.
	Votes []Vote
}

// Member is one agent or hub as this process sees it. All but State, Addr and
// LastSeen is the member's own claim, or that of someone who took its name.
type Member struct {
	Name    string // MemberName of the others
	Role    Role
	Cluster cluster.ID // empty for hubs
	Addr    netip.AddrPort
	State   MemberState
	Report
	// LastSeen is when news of it last arrived, by this process's clock.
	LastSeen time.Time
	// Self marks the member that this process is.
	Self bool
}

const (
	// hubPrefix can't be a cluster's name, so no hub is taken for an agent.
	hubPrefix   = "@hub"
	maxReplica  = 63
	maxNameSize = 2*maxReplica + 1
)

var replicaName = regexp.MustCompile(`^[A-Za-z0-9]([A-Za-z0-9._-]{0,61}[A-Za-z0-9])?$`)

// MemberName names a member: <cluster>/<replica> for agents, @hub/<replica> for
// hubs. Replica is the pod's name as a rule; it must be unique within its
// cluster, or among hubs, and may be taken again after a restart.
func MemberName(role Role, id cluster.ID, replica string) (string, error) {
	if !replicaName.MatchString(replica) {
		return "", fmt.Errorf("replica name %q: use 1 to %d letters, digits, '.', '_' and '-'", shorten(replica), maxReplica)
	}
	switch role {
	case RoleAgent:
		if err := id.Validate(); err != nil {
			return "", fmt.Errorf("agent's cluster: %w", err)
		}
		return string(id) + "/" + replica, nil
	case RoleHub:
		if id != "" {
			return "", fmt.Errorf("a hub belongs to no cluster, but %q was given", shorten(string(id)))
		}
		return hubPrefix + "/" + replica, nil
	}
	return "", fmt.Errorf("member role %q is neither agent nor hub", shorten(string(role)))
}

// parseName is the inverse of MemberName.
func parseName(name string) (Role, cluster.ID, error) {
	if len(name) > maxNameSize {
		return "", "", fmt.Errorf("member name of %d bytes is too long", len(name))
	}
	first, replica, _ := strings.Cut(name, "/")
	role, id := RoleAgent, cluster.ID(first)
	if first == hubPrefix {
		role, id = RoleHub, ""
	}
	if _, err := MemberName(role, id, replica); err != nil {
		return "", "", fmt.Errorf("member name %q: %w", name, err)
	}
	return role, id, nil
}

// shorten bounds what a message repeats of its input.
func shorten(s string) string {
	if len(s) > 100 {
		return s[:100] + "..."
	}
	return s
}
