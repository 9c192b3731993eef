package publish

import (
	"cmp"
	"crypto/sha256"
	"slices"
	"strings"

	"github.com/causeway-mesh/causeway/federation/store"
)

// held is what the store is known to hold under one key.
type held struct {
	sum [sha256.Size]byte
	mod int64
}

// ledger is what the store is known to hold below the prefix. One session owns it.
type ledger struct {
	known map[string]held
	// gone has the revisions of own deletions that the watch has yet to bring.
	gone map[string]int64
}

// wrote notes an own operation.
func (l *ledger) wrote(op store.Op, revision int64) {
	if op.Remove {
		delete(l.known, op.Key)
		l.gone[op.Key] = revision
		return
	}
	delete(l.gone, op.Key)
	l.known[op.Key] = held{sha256.Sum256(op.Value), revision}
}

// saw notes an event of the watch and reports whether it was news: own writes
// come back too, perhaps after newer ones.
func (l *ledger) saw(e store.Event) bool {
	if own, deleted := l.gone[e.Key]; deleted && e.ModRevision <= own {
		if e.ModRevision == own {
			delete(l.gone, e.Key)
		}
		return false
	}
	have, exists := l.known[e.Key]
	if e.ModRevision <= have.mod || e.Deleted && !exists {
		return false
	}
	if e.Deleted {
		delete(l.known, e.Key)
	} else {
		l.known[e.Key] = held{sha256.Sum256(e.Value), e.ModRevision}
	}
	return true
}

// differs reports whether a key has to be written or deleted.
func (x *exports) differs(key string, known map[string]held) bool {
	value, _, err := x.desired(key)
	return err == nil && differs(value, known, key)
}

func differs(value []byte, known map[string]held, key string) bool {
	have, exists := known[key]
	return exists != (value != nil) || exists && have.sum != sha256.Sum256(value)
}

type step struct {
	op store.Op
	rank
}

// plan turns the dirty keys into operations, in the order in which they have to
// take effect: what comes or changes by rank, then what goes. It leaves dirty
// empty.
func (x *exports) plan(known map[string]held) []store.Op {
	var puts []step
	var gone []store.Op
	for key := range x.dirty {
		value, rank, err := x.desired(key)
		switch {
		case err != nil || !differs(value, known, key):
		case value == nil:
			gone = append(gone, store.Delete(key))
		default:
			puts = append(puts, step{store.Put(key, value), rank})
		}
	}
	clear(x.dirty)
	slices.SortFunc(puts, func(a, b step) int {
		return cmp.Or(a.compare(b.rank), strings.Compare(a.op.Key, b.op.Key))
	})
	// A Service goes before its slices: no reader sees it without endpoints.
	slices.SortFunc(gone, func(a, b store.Op) int { return strings.Compare(b.Key, a.Key) })
	out := make([]store.Op, 0, len(puts)+len(gone))
	for _, p := range puts {
		out = append(out, p.op)
	}
	return append(out, gone...)
}

// guarded cuts ops into transactions, each operation guarded by what is known of
// its key. An operation always fits: record.MaxValueBytes sees to that.
func guarded(ops []store.Op, known map[string]held) []store.Txn {
	var out []store.Txn
	var t store.Txn
	size := 0
	for _, op := range ops {
		g := store.Guard{Key: op.Key, ModRevision: known[op.Key].mod}
		n := store.Txn{Guards: []store.Guard{g}, Ops: []store.Op{op}}.Size()
		if len(t.Ops) == store.MaxTxnOps || len(t.Ops) > 0 && size+n > store.MaxTxnBytes {
			out = append(out, t)
			t, size = store.Txn{}, 0
		}
		t.Guards, t.Ops, size = append(t.Guards, g), append(t.Ops, op), size+n
	}
	if len(t.Ops) > 0 {
		out = append(out, t)
	}
	return out
}
