// Package gossip joins all agents and hubs of a clusterset by memberlist, tells
// each what the others report of themselves, and judges from that, from leases
// and from probes which clusters are alive.
//
// # What is guaranteed
//
//   - Gossip informs Health and nothing else. It authorises nothing and deletes
//     nothing: no output of this package removes a cluster or an object.
//   - A member's claim is only ever a hint. Messages are encrypted, and only the
//     holder of the key takes part; but whoever holds the key may claim any name.
//     So no claim, however forged, makes a cluster dead while its lease is held
//     (leases are the store's, which knows its writers), and none makes it dead
//     alone: see Judge.
//   - What comes from the network is bounded in size, number of members and
//     number of votes; what can't be decoded is counted and dropped.
//   - Members returns immutable snapshots; one goroutine owns the table behind
//     them. memberlist's callbacks, which run under its lock, copy, enqueue and
//     return.
//   - Losing all other members changes nothing but their state: the last that
//     each reported stays. A member that is alone goes on trying to join, and so
//     does one that misses an address which it was told to join, so that the
//     halves of a partition find each other again.
//
// # Who calls it
//
// An agent or hub makes one Gossip, runs it, keeps it informed by Report, and
// recomputes Health by Judge when Watch tells of a change. Agents also run a
// Prober, whose votes they Report.
//
// memberlist starts work while it is constructed and does not wait for all of
// its goroutines when it stops: therefore it is constructed in Run, and a few
// timers and inbound connections of it may outlive Run by their timeout. They
// find a mailbox that nobody empties.
package gossip
