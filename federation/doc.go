// Package federation holds the merged model: the immutable Snapshot of all
// clusters' objects, Meta and Health, the Builder that derives one Snapshot
// from another at a cost that grows with the change, and the Loop that owns the
// Builder in a running agent or hub.
//
// Whoever computes from a Snapshot records the Keys of the sets that it read;
// the ChangeSet that comes with the next Snapshot tells what to compute again.
//
// The package imports package cluster and the store's contract; it never sees
// Envoy or client-go.
package federation
