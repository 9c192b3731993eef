package cluster

import (
	"context"
	"time"
)

// Event is a change of one object.
type Event struct {
	// Ref names the object; Object is its new state, nil when it is gone.
	Ref    Ref
	Object *Object
}

// Problem is something in a cluster's input that a person has to mend. The
// object that it concerns is left out, or kept in its last good state; all else
// works on.
type Problem struct {
	Cluster ID
	Where   string // "app.yaml:12:3", or the object's API path
	Object  string // Ref.String() where it could be read, else empty
	Message string // what is wrong and what to do
}

// Batch is a set of changes that belong together: readers see all or none.
type Batch struct {
	Events []Event
	// Meta, if not nil, replaces what the cluster says of itself.
	Meta *Meta
	// Problems, if not nil, replaces the whole list of problems.
	Problems *[]Problem
	// Synced is true on the batch that completes the source's first full set,
	// and on every later one.
	Synced bool
}

// Pause waits for d, or until ctx ends, whose error it gives then. Loops that try
// again wait so.
func Pause(ctx context.Context, d time.Duration) error {
	t := time.NewTimer(d)
	defer t.Stop()
	select {
	case <-t.C:
		return nil
	case <-ctx.Done():
		return ctx.Err()
	}
}

// Sink takes batches. Deliver may block for backpressure; it returns an error
// only when its context ends.
type Sink interface {
	Deliver(ctx context.Context, b Batch) error
}

// Source delivers one cluster's objects: first a full set, ending in a batch
// with Synced, then every change, until its context ends. A source that loses
// its origin goes on with what it has: stale beats partial.
type Source interface {
	Run(ctx context.Context, sink Sink) error
	// Sync returns once everything that could be observed when it was called
	// has been delivered. Any goroutine may call it while Run runs.
	Sync(ctx context.Context) error
}
