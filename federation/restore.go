package federation

import (
	"time"

	"github.com/causeway-mesh/causeway/federation/store"
)

// Restore makes the Snapshot that a store's records amount to, as a hub sees them
// that has just listed them at this revision: for questions about the past.
// Clusters are judged by their leases alone, and their drains by the time now:
// when a revision was the newest is not known. records are all below store.Root;
// those that can't be used are left out, as a Loop leaves them out.
func Restore(revision int64, records []store.KV, now time.Time) *Snapshot {
	in := newInput(0)
	in.now = now
	in.list = &listing{records: records, revision: revision}
	m := newMerger("")
	if out := m.merge(in); out.snapshot != nil {
		return out.snapshot
	}
	return m.builder.Snapshot()
}
