// Package publish keeps a cluster's prefix of the global store equal to what the
// cluster exports.
//
// # What is guaranteed
//
//   - It writes below its own cluster's prefix alone, and there everything but the
//     liveness keys of other agents.
//   - Nothing is written or deleted before the source has delivered its first full
//     set, so that a slow source withdraws nothing; trust bundles not before
//     SetTrust was called.
//   - No address of an endpoint is written, nor the name of its pod, while no other
//     cluster of the clusterset names the same network in its Meta: slices then say
//     how many endpoints are in which state. Addresses follow when a first cluster
//     shares the network and go again with the last one; losing the store, or the
//     cluster's death, is no leaving. Nothing is written before Follow has told who
//     there is, so that a start does not flap.
//   - Records come into being in the order of cluster.Older of their objects (a
//     Service by its ServiceExport, its slices just before it), so that the store's
//     create revisions rank them as their creation times do. Where one transaction
//     holds several, they share a revision and creation time decides, as everywhere.
//     A record that is the same, at start too, is left alone and one that differs is
//     overwritten, so it keeps its rank.
//   - There is no timer between a change and its transaction. Changes that arrive
//     while one is under way go together into the next, and only the newest state of
//     an object is written.
//   - Whatever the store holds otherwise below the prefix is put right: what an
//     earlier process left, an administrator deleted, or a backup brought back. Each
//     operation is guarded by the revision last seen of its key; a second writer shows
//     as conflicts, in State, log and metrics, and slows both down instead of letting
//     them overwrite each other at full speed.
//   - While the store is away nothing is lost: the newest state is written when it
//     is back.
//
// # Who calls it
//
// The agent gives it the batches of its source and its Snapshots in every replica,
// and calls Run in the one that leads. What crosses is defined in package federation/record.
package publish
