package store_test

import (
	"context"
	"errors"
	"fmt"
	"testing"
	"time"

	"pgregory.net/rapid"

	"github.com/causeway-mesh/causeway/federation/store"
	"github.com/causeway-mesh/causeway/federation/store/memory"
)

// Split keeps every operation, in order, in transactions that are valid, and
// starts a new one only when it must.
func TestSplit(t *testing.T) {
	t.Parallel()
	rapid.Check(t, func(t *rapid.T) {
		sizes := rapid.SliceOfN(rapid.OneOf(rapid.IntRange(0, 100), rapid.IntRange(0, store.MaxTxnBytes-200)), 0, 300).Draw(t, "sizes")
		buf := make([]byte, store.MaxTxnBytes)
		var ops []store.Op
		for i, n := range sizes {
			ops = append(ops, store.Put(fmt.Sprint("k", i), buf[:n]))
		}
		txns, err := store.Split(ops)
		if err != nil {
			t.Fatal(err)
		}
		n := 0
		for i, txn := range txns {
			if err := txn.Validate(); err != nil {
				t.Fatal(err)
			}
			for _, o := range txn.Ops {
				if o.Key != ops[n].Key || len(o.Value) != len(ops[n].Value) {
					t.Fatalf("operation %d is %s", n, o.Key)
				}
				n++
			}
			if i+1 < len(txns) {
				more := store.Txn{Ops: append(append([]store.Op{}, txn.Ops...), txns[i+1].Ops[0])}
				if more.Validate() == nil {
					t.Fatalf("transaction %d of %d operations could take another", i, len(txn.Ops))
				}
			}
		}
		if n != len(ops) {
			t.Fatalf("%d operations of %d", n, len(ops))
		}
	})
	if _, err := store.Split([]store.Op{store.Put("a", nil), store.Put("b", make([]byte, store.MaxRequestBytes))}); !errors.Is(err, store.ErrTooLarge) {
		t.Errorf("an operation that fits nowhere: %v", err)
	}
	if _, err := store.Split([]store.Op{store.Put("a", nil), store.Delete("a")}); !errors.Is(err, store.ErrInvalid) {
		t.Errorf("a key twice: %v", err)
	}
}

func TestGuarded(t *testing.T) {
	t.Parallel()
	inner, err := memory.New(memory.Config{})
	if err != nil {
		t.Fatal(err)
	}
	own, err := store.ClusterPrefix("one")
	if err != nil {
		t.Fatal(err)
	}
	s := store.Guarded(inner, own)
	x := []byte("x")
	for name, c := range map[string]struct {
		txn  store.Txn
		want error
	}{
		"fine":                {store.Txn{Guards: []store.Guard{{Key: store.ClustersPrefix + "two/meta/a"}}, Ops: []store.Op{store.Put(own+"meta/a", x), store.Delete(own + "meta/b")}}, nil},
		"other cluster":       {store.Txn{Ops: []store.Op{store.Put(store.ClustersPrefix+"two/meta/a", x)}}, store.ErrDenied},
		"deletion in another": {store.Txn{Ops: []store.Op{store.Delete(store.ClustersPrefix + "two/meta/a")}}, store.ErrDenied},
		"policy":              {store.Txn{Ops: []store.Op{store.Put(store.PolicyPrefix+"a", x)}}, store.ErrDenied},
		"outside":             {store.Txn{Ops: []store.Op{store.Put("/a", x)}}, store.ErrInvalid},
		"malformed":           {store.Txn{Ops: []store.Op{store.Put(own+"meta/a//b", x)}}, store.ErrInvalid},
		"empty value":         {store.Txn{Ops: []store.Op{store.Put(own+"meta/a", nil)}}, store.ErrInvalid},
		"malformed guard":     {store.Txn{Guards: []store.Guard{{Key: own}}, Ops: []store.Op{store.Put(own+"meta/a", x)}}, store.ErrInvalid},
	} {
		_, before, err := inner.List(t.Context(), store.Root, 0)
		if err != nil {
			t.Fatal(err)
		}
		if _, err := s.Commit(t.Context(), c.txn); !errors.Is(err, c.want) {
			t.Errorf("%s: %v, want %v", name, err, c.want)
		}
		if _, after, _ := inner.List(t.Context(), store.Root, 0); (after == before) != (c.want != nil) {
			t.Errorf("%s: revision %d after %d", name, after, before)
		}
	}
	for _, p := range []string{"/", "/causeway/", store.Root + "clusters/one"} {
		if _, _, err := s.List(t.Context(), p, 0); !errors.Is(err, store.ErrInvalid) {
			t.Errorf("list of %q: %v", p, err)
		}
		if err := s.Watch(t.Context(), p, 0, nil); !errors.Is(err, store.ErrInvalid) {
			t.Errorf("watch of %q: %v", p, err)
		}
	}
	if err := s.Hold(t.Context(), store.ClustersPrefix+"two/alive/a", x, time.Second); !errors.Is(err, store.ErrDenied) {
		t.Errorf("hold: %v", err)
	}
	// A client that writes nothing.
	if _, err := store.Guarded(inner, "").Commit(context.Background(), store.Txn{Ops: []store.Op{store.Put(own+"meta/a", x)}}); !errors.Is(err, store.ErrDenied) {
		t.Errorf("write of a reader: %v", err)
	}
}
