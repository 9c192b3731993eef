package store

import (
	"context"
	"time"
)

// KV is one key as it was at some revision.
type KV struct {
	// Key is the whole key, beginning with Root.
	Key string
	// Value must not be modified; it is nil in the Event of a deletion.
	Value []byte
	// CreateRevision is the revision at which the key came into being (again, if
	// it had been deleted). No writer can choose it: it is the seniority of objects.
	CreateRevision int64
	// ModRevision is the revision of the last change; in the Event of a deletion,
	// that of the deletion.
	ModRevision int64
	// Leased says that the key belongs to a Hold and vanishes with its holder.
	Leased bool
}

// Event is one change of one key. For a deletion only Key and ModRevision are set.
type Event struct {
	KV
	Deleted bool
}

// Batch holds all events, of the watched prefix, of one or more whole revisions,
// in the order in which they happened.
type Batch struct {
	// Revision is the point reached: all that happened up to and including it has
	// been delivered by this batch and those before it. It never decreases.
	Revision int64
	// Events is empty for a batch that reports progress alone.
	Events []Event
}

// Op changes one key. Make it with Put or Delete.
type Op struct {
	Key   string
	Value []byte
	// Remove makes the operation a deletion; Value is then ignored. Deleting a key
	// that does not exist changes nothing.
	Remove bool
}

// Put returns the operation that sets key to value. The value belongs to the
// store from the call of Commit until its return.
func Put(key string, value []byte) Op { return Op{Key: key, Value: value} }

// Delete returns the operation that deletes key.
func Delete(key string) Op { return Op{Key: key, Remove: true} }

// Guard is a condition of a transaction: the ModRevision of Key must equal
// ModRevision, where 0 means that the key does not exist.
type Guard struct {
	Key         string
	ModRevision int64
}

// Txn is a set of operations that take effect together, at one revision, if all
// guards hold at that moment. A key may appear in one operation only.
type Txn struct {
	Guards []Guard
	Ops    []Op
}

// Store is the global store. See the package documentation for what holds for
// all methods.
type Store interface {
	// List returns all keys beginning with prefix, sorted, as they were at the
	// given revision (0: the newest), and that revision. Large results are read in
	// bounded pages of one revision. Errors: ErrCompacted, ErrFutureRevision,
	// ErrDenied, ErrUnavailable.
	List(ctx context.Context, prefix string, revision int64) ([]KV, int64, error)

	// Watch delivers what happens to keys beginning with prefix after the revision
	// after, and blocks until ctx ends (it then returns ctx's error), deliver
	// returns an error (which it returns as it is), or the watch cannot go on
	// without loss: ErrCompacted, ErrFutureRevision or ErrReplaced (see Resync),
	// ErrDenied. Broken connections are no error: Watch reconnects until ctx ends.
	//
	// deliver is called from one goroutine at a time, and not after Watch returned.
	// While it runs nothing more is read, so a slow one slows down its own watch
	// only. It owns the Events slice.
	Watch(ctx context.Context, prefix string, after int64, deliver func(Batch) error) error

	// Commit applies txn and returns the revision at which it took effect; for a
	// transaction without effect, the current one. Errors: ErrConflict (as a
	// *ConflictError), ErrTooLarge, ErrInvalid, ErrDenied: nothing was changed.
	// After ErrUnavailable, or the end of ctx, the transaction may or may not have
	// been applied: read before deciding, or repeat it if it is idempotent.
	Commit(ctx context.Context, txn Txn) (int64, error)

	// Hold keeps key present with value until ctx ends, under a lease of its own,
	// so that it vanishes between ttl and a few seconds more after the
	// holder died. It blocks; it puts the key again whenever it was lost
	// (lease expired, key deleted or overwritten), and waits for the store when
	// that is away. When ctx ends it gives the key up at once, within a bounded
	// time, and returns ctx's error. Other errors (ErrDenied, ErrInvalid,
	// ErrTooLarge) say that holding can never succeed. One key, one holder.
	//
	// A ttl is rounded up to whole seconds; etcd's shortest is about 2 s.
	Hold(ctx context.Context, key string, value []byte, ttl time.Duration) error
}
