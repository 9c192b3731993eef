package storetest

import (
	"bytes"
	"errors"
	"fmt"
	"strings"
	"testing"

	"github.com/causeway-mesh/causeway/federation/store"
)

func testRevisions(t *testing.T, b *Backend) {
	kvs, rev := list(t, b.Store, store.Root, 0)
	if len(kvs) != 0 || rev != 1 {
		t.Fatalf("an empty store has %s at revision %d, want nothing at 1", show(kvs), rev)
	}
	steps := []struct {
		ops  []store.Op
		want int64
	}{
		{[]store.Op{store.Put(Own+"a", []byte("1"))}, 2},
		{[]store.Op{store.Put(Own+"a", []byte("1"))}, 3}, // the same value is a change
		{[]store.Op{store.Delete(Own + "none")}, 3},      // nothing happened
		{nil, 3},
		{[]store.Op{store.Put(Own+"b", nil), store.Delete(Own + "none"), store.Put(Own+"c", []byte("3"))}, 4},
		{[]store.Op{store.Delete(Own + "a")}, 5},
		{[]store.Op{store.Put(Own+"a", []byte("2"))}, 6}, // a new creation
	}
	for i, s := range steps {
		if got := commit(t, b.Store, s.ops...); got != s.want {
			t.Errorf("step %d is revision %d, want %d", i, got, s.want)
		}
	}
	kvs, _ = list(t, b.Store, Own, 0)
	if got, want := show(kvs), "one/a=2@6/6 one/b=@4/4 one/c=3@4/4"; got != want {
		t.Errorf("state %s\n want %s", got, want)
	}
	if kvs[1].Value == nil {
		t.Error("the value of a present key is nil")
	}
	w := watch(t, b.Store, Own, 0)
	wantEvents(t, "history", w.reach(t, 6),
		"one/a=1@2/2 one/a=1@2/3 one/b=@4/4 one/c=3@4/4 -one/a@5 one/a=2@6/6")
}

func testList(t *testing.T, b *Backend) {
	put(t, b.Store, Own+"b", "1")
	put(t, b.Store, Own+"a", "1")
	put(t, b.Foreign, Other+"a", "1")
	at := put(t, b.Store, Own+"a/x", "1")
	commit(t, b.Store, store.Delete(Own+"b"))
	put(t, b.Store, Own+"a", "2")
	for _, c := range []struct {
		prefix string
		rev    int64
		want   string
		at     int64
	}{
		{Own, 0, "one/a=2@3/7 one/a/x=1@5/5", 7},
		{Own, at, "one/a=1@3/3 one/a/x=1@5/5 one/b=1@2/2", at},
		{Own, 1, "", 1},
		{Own + "a/", 0, "one/a/x=1@5/5", 7},
		{store.ClustersPrefix, at, "one/a=1@3/3 one/a/x=1@5/5 one/b=1@2/2 two/a=1@4/4", at},
		{store.PolicyPrefix, 0, "", 7},
	} {
		kvs, rev := list(t, b.Store, c.prefix, c.rev)
		if got := show(kvs); got != c.want || rev != c.at {
			t.Errorf("list of %s at %d:\n got %s at %d\nwant %s at %d", c.prefix, c.rev, got, rev, c.want, c.at)
		}
	}
	_, _, err := b.Store.List(t.Context(), Own, 8)
	wantError(t, "list at a future revision", err, store.ErrFutureRevision)
}

// A result of several megabytes, with values of very different sizes, is read
// whole and at one revision while the keys change.
func testListPages(t *testing.T, b *Backend) {
	var ops []store.Op
	for i := range 600 {
		size := 20
		if i >= 500 {
			size = 40_000
		}
		ops = append(ops, store.Put(fmt.Sprintf("%sk%04d", Own, i), bytes.Repeat([]byte{'x'}, size)))
	}
	txns, err := store.Split(ops)
	if err != nil {
		t.Fatal(err)
	}
	var at int64
	for _, txn := range txns {
		if at, err = b.Store.Commit(t.Context(), txn); err != nil {
			t.Fatal(err)
		}
	}
	stop, stopped := make(chan struct{}), make(chan struct{})
	go func() {
		defer close(stopped)
		for i := 0; ; i++ {
			select {
			case <-stop:
				return
			default:
			}
			// Both ends of the range, together: a mixture of revisions would show.
			v := fmt.Append(nil, i)
			if _, err := b.Store.Commit(t.Context(), store.Txn{Ops: []store.Op{store.Put(Own+"k0000", v), store.Put(Own+"k0599", v)}}); err != nil {
				t.Error(err)
				return
			}
		}
	}()
	for _, rev := range []int64{at, 0, 0, 0} {
		kvs, got := list(t, b.Store, Own, rev)
		if len(kvs) != 600 {
			t.Fatalf("%d keys, want 600", len(kvs))
		}
		first, last := kvs[0], kvs[599]
		if rev == 0 && first.ModRevision > 1 && last.ModRevision != first.ModRevision && got > at {
			t.Errorf("list at %d mixes revisions %d and %d", got, first.ModRevision, last.ModRevision)
		}
		if rev != 0 && (got != rev || len(first.Value) != 20 || len(last.Value) != 40_000) {
			t.Errorf("list at %d is at %d, with values of %d and %d bytes", rev, got, len(first.Value), len(last.Value))
		}
	}
	close(stop)
	<-stopped
}

func testCompaction(t *testing.T, b *Backend) {
	for i := range 9 {
		put(t, b.Store, Own+"a", fmt.Sprint(i)) // revisions 2 to 10
	}
	b.Compact(t, 8)
	_, _, err := b.Store.List(t.Context(), Own, 7)
	wantError(t, "list at a compacted revision", err, store.ErrCompacted)
	if kvs, _ := list(t, b.Store, Own, 8); show(kvs) != "one/a=6@2/8" {
		t.Errorf("at the compacted revision: %s", show(kvs))
	}
	for _, after := range []int64{0, 1, 6} {
		err = watch(t, b.Store, Own, after).end(t)
		wantError(t, fmt.Sprintf("watch after revision %d", after), err, store.ErrCompacted)
		if !store.Resync(err) {
			t.Errorf("%v does not ask for a resync", err)
		}
	}
	wantEvents(t, "watch after the compacted revision", watch(t, b.Store, Own, 8).reach(t, 10), "one/a=7@2/9 one/a=8@2/10")
}

func testConflict(t *testing.T, b *Backend) {
	a := put(t, b.Store, Own+"a", "1")
	for _, c := range []struct {
		name   string
		guards []store.Guard
		want   *store.ConflictError // nil: holds
	}{
		{"right revision", []store.Guard{{Key: Own + "a", ModRevision: a}}, nil},
		{"absent", []store.Guard{{Key: Own + "none"}}, nil},
		{"wrong revision", []store.Guard{{Key: Own + "a", ModRevision: a + 7}}, &store.ConflictError{Key: Own + "a", Want: a + 7, Have: a}},
		{"expected absent", []store.Guard{{Key: Own + "none"}, {Key: Own + "a"}}, &store.ConflictError{Key: Own + "a", Have: a}},
		{"expected present", []store.Guard{{Key: Own + "a", ModRevision: a}, {Key: Own + "none", ModRevision: 5}}, &store.ConflictError{Key: Own + "none", Want: 5}},
	} {
		_, before := list(t, b.Store, Own, 0)
		rev, err := b.Store.Commit(t.Context(), store.Txn{Guards: c.guards, Ops: []store.Op{store.Put(Own+"x", []byte(c.name))}})
		_, after := list(t, b.Store, Own, 0)
		if c.want == nil {
			if err != nil || rev != after || after != before+1 {
				t.Errorf("%s: revision %d (was %d, is %d), %v", c.name, rev, before, after, err)
			}
			continue
		}
		var got *store.ConflictError
		if !errors.As(err, &got) || *got != *c.want || !errors.Is(err, store.ErrConflict) {
			t.Errorf("%s: %v, want %v", c.name, err, c.want)
		}
		if after != before {
			t.Errorf("%s: a refused transaction made revision %d of %d", c.name, after, before)
		}
	}
	// Of two that were prepared at the same revision, one takes effect.
	errs := make(chan error, 2)
	for i := range 2 {
		go func() {
			_, err := b.Store.Commit(t.Context(), store.Txn{
				Guards: []store.Guard{{Key: Own + "a", ModRevision: a}},
				Ops:    []store.Op{store.Put(Own+"a", fmt.Append(nil, i))},
			})
			errs <- err
		}()
	}
	e1, e2 := <-errs, <-errs
	if (e1 == nil) == (e2 == nil) || !errors.Is(errors.Join(e1, e2), store.ErrConflict) {
		t.Errorf("two rivals: %v, %v", e1, e2)
	}
}

func testLimits(t *testing.T, b *Backend) {
	many := func(n int) (ops []store.Op) {
		for i := range n {
			ops = append(ops, store.Put(fmt.Sprintf("%sk%d", Own, i), []byte("x")))
		}
		return ops
	}
	guards := func(n int) (gs []store.Guard) {
		for i := range n {
			gs = append(gs, store.Guard{Key: fmt.Sprintf("%sg%d", Own, i)})
		}
		return gs
	}
	big := func(key string, rest int) store.Op {
		size := store.MaxTxnBytes - store.Txn{Ops: []store.Op{store.Put(key, nil)}}.Size()
		return store.Put(key, bytes.Repeat([]byte{'x'}, size+rest))
	}
	half := bytes.Repeat([]byte{'x'}, store.MaxTxnBytes/2)
	for _, c := range []struct {
		name string
		txn  store.Txn
		says string // part of the error; empty: possible
	}{
		{"most operations and guards", store.Txn{Guards: guards(store.MaxTxnOps), Ops: many(store.MaxTxnOps)}, ""},
		{"too many operations", store.Txn{Ops: many(store.MaxTxnOps + 1)}, "129 operations"},
		{"too many guards", store.Txn{Guards: guards(store.MaxTxnOps + 1), Ops: many(1)}, "129 guards"},
		{"largest value", store.Txn{Ops: []store.Op{big(Own+"big", 0)}}, ""},
		{"too large a value", store.Txn{Ops: []store.Op{big(Own+"big", 1)}}, Own + "big"},
		{"too large together", store.Txn{Ops: []store.Op{store.Put(Own+"h1", half), store.Put(Own+"h2", half)}}, "2 operations"},
		{"too long a key", store.Txn{Ops: []store.Op{store.Put(Own+strings.Repeat("k", store.MaxKeyBytes), nil)}}, "2074 bytes"},
	} {
		_, err := b.Store.Commit(t.Context(), c.txn)
		if c.says == "" {
			if err != nil {
				t.Errorf("%s: %v", c.name, err)
			}
		} else if !errors.Is(err, store.ErrTooLarge) || !strings.Contains(err.Error(), c.says) {
			t.Errorf("%s: %v, want ErrTooLarge and %q", c.name, err, c.says)
		}
	}
}

func testInvalid(t *testing.T, b *Backend) {
	op := store.Put(Own+"a", []byte("1"))
	for name, txn := range map[string]store.Txn{
		"empty key":         {Ops: []store.Op{store.Put("", nil)}},
		"key twice":         {Ops: []store.Op{op, op}},
		"put and delete":    {Ops: []store.Op{op, store.Delete(op.Key)}},
		"negative revision": {Guards: []store.Guard{{Key: op.Key, ModRevision: -1}}, Ops: []store.Op{op}},
		"guard without key": {Guards: []store.Guard{{}}, Ops: []store.Op{op}},
	} {
		_, err := b.Store.Commit(t.Context(), txn)
		wantError(t, name, err, store.ErrInvalid)
	}
	_, _, err := b.Store.List(t.Context(), "", 0)
	wantError(t, "list of everything", err, store.ErrInvalid)
	_, _, err = b.Store.List(t.Context(), Own, -1)
	wantError(t, "list at a negative revision", err, store.ErrInvalid)
	wantError(t, "watch after a negative revision", b.Store.Watch(t.Context(), Own, -1, nil), store.ErrInvalid)
	wantError(t, "hold without ttl", b.Store.Hold(t.Context(), Own+"alive/a", nil, 0), store.ErrInvalid)
	if _, rev := list(t, b.Store, Own, 0); rev != 1 {
		t.Errorf("invalid requests made revision %d", rev)
	}
}

func testDenied(t *testing.T, b *Backend) {
	if !b.Enforced {
		t.Skip("this backend knows no users")
	}
	put(t, b.Foreign, Other+"a", "1")
	for name, txn := range map[string]store.Txn{
		"put":           {Ops: []store.Op{store.Put(Other+"a", []byte("2"))}},
		"delete":        {Ops: []store.Op{store.Delete(Other + "a")}},
		"policy":        {Ops: []store.Op{store.Put(store.PolicyPrefix+"a", []byte("2"))}},
		"similar name":  {Ops: []store.Op{store.Put(store.ClustersPrefix+"one-more/a", []byte("2"))}},
		"among own":     {Ops: []store.Op{store.Put(Own+"a", []byte("1")), store.Put(Other+"a", []byte("2"))}},
		"outside of it": {Ops: []store.Op{store.Put("/elsewhere", []byte("2"))}},
	} {
		_, err := b.Store.Commit(t.Context(), txn)
		wantError(t, name, err, store.ErrDenied)
	}
	wantError(t, "hold", b.Store.Hold(t.Context(), Other+"alive/a", []byte("x"), 5e9), store.ErrDenied)
	_, _, err := b.Store.List(t.Context(), "/elsewhere/", 0)
	wantError(t, "list outside the root", err, store.ErrDenied)
	wantError(t, "watch outside the root", watch(t, b.Store, "/elsewhere/", 0).end(t), store.ErrDenied)
	if kvs, _ := list(t, b.Store, store.Root, 0); show(kvs) != "two/a=1@2/2" {
		t.Errorf("after denied writes: %s", show(kvs))
	}
}
