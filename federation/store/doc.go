// Package store is the contract of the global store: a small, ordered map from
// keys to bytes with one revision counter, transactions, watches and leases.
//
// It says what every backend guarantees, and nothing about what the bytes mean.
// Backends are federation/store/etcd (production) and federation/store/memory
// (tests, and programs that need no durability); federation/store/storetest is
// the one suite that both pass.
//
// # What is guaranteed
//
//   - Every change has a revision. Revisions start at 1 for an empty store, grow
//     by one for each transaction that changes something, and are the same for
//     all readers. A transaction is seen whole or not at all.
//   - List returns the state of a prefix at exactly one revision.
//   - Watch(ctx, prefix, R, ...) delivers each change of the prefix after R once,
//     in order, whole revisions at a time, over any number of broken connections,
//     or returns an error that says why it cannot (see Resync). Hence List at R
//     followed by Watch after R is a complete history.
//   - A Batch of revision R says that everything up to and including R has been
//     delivered. Batches come regularly even when nothing changes, so a reader
//     knows how far behind it is.
//   - Keys held by Hold vanish some time after their holder; all other keys stay
//     until they are deleted. Losing the store never deletes anything.
//
// # Who calls it
//
// Agents commit their cluster's exports and hold their liveness key; agents and
// hubs list and watch everything. Names of keys are built and parsed here too
// (keys.go), because readers of another cluster's keys must not trust them.
//
// All values handed out are shared and must not be modified. All functions may
// be called from any goroutine.
package store
