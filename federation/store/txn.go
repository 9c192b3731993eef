package store

import "fmt"

// Limits of every backend. They are etcd's defaults; Commit refuses more without
// asking the server, so that a client learns which key is to blame.
const (
	// MaxTxnOps is the largest number of operations, and of guards, of one Txn.
	MaxTxnOps = 128
	// MaxRequestBytes is the largest request that etcd takes by default.
	MaxRequestBytes = 3 << 19 // 1.5 MiB
	// MaxTxnBytes is the largest Txn.Size that Commit takes. What is left to
	// MaxRequestBytes is for etcd's own header (user name, identifiers).
	MaxTxnBytes = MaxRequestBytes - 4<<10
	// MaxKeyBytes bounds one key.
	MaxKeyBytes = 2 << 10
)

// Upper bounds for what the protobuf framing adds to an operation or guard.
const (
	opOverhead    = 48
	guardOverhead = 96
)

func (o Op) size() int {
	if o.Remove {
		return opOverhead + len(o.Key)
	}
	return opOverhead + len(o.Key) + len(o.Value)
}

// A guard's key is sent twice: to compare, and to read back on a conflict.
func (g Guard) size() int { return guardOverhead + 2*len(g.Key) }

// Size is an upper bound of the transaction's size as a request, in bytes.
func (t Txn) Size() int {
	n := 0
	for _, o := range t.Ops {
		n += o.size()
	}
	for _, g := range t.Guards {
		n += g.size()
	}
	return n
}

// Validate returns ErrInvalid or ErrTooLarge, naming the key or count, for what
// no backend would commit. Commit calls it.
func (t Txn) Validate() error {
	if n := len(t.Ops); n > MaxTxnOps {
		return fmt.Errorf("transaction has %d operations, at most %d are possible; use Split: %w", n, MaxTxnOps, ErrTooLarge)
	}
	if n := len(t.Guards); n > MaxTxnOps {
		return fmt.Errorf("transaction has %d guards, at most %d are possible: %w", n, MaxTxnOps, ErrTooLarge)
	}
	for _, g := range t.Guards {
		if err := validKey(g.Key); err != nil {
			return fmt.Errorf("guard: %w", err)
		}
		if g.ModRevision < 0 {
			return fmt.Errorf("guard of key %q has negative revision %d: %w", g.Key, g.ModRevision, ErrInvalid)
		}
	}
	seen := make(map[string]struct{}, len(t.Ops))
	for _, o := range t.Ops {
		if err := validKey(o.Key); err != nil {
			return err
		}
		if _, dup := seen[o.Key]; dup {
			return fmt.Errorf("key %q appears twice in one transaction: %w", o.Key, ErrInvalid)
		}
		seen[o.Key] = struct{}{}
		if o.size() > MaxTxnBytes {
			return fmt.Errorf("value of key %q has %d bytes, about %d are possible: %w", o.Key, len(o.Value), MaxTxnBytes, ErrTooLarge)
		}
	}
	if n := t.Size(); n > MaxTxnBytes {
		return fmt.Errorf("transaction of %d operations has %d bytes, at most %d are possible; use Split: %w", len(t.Ops), n, MaxTxnBytes, ErrTooLarge)
	}
	return nil
}

func validKey(key string) error {
	if key == "" {
		return fmt.Errorf("empty key: %w", ErrInvalid)
	}
	if len(key) > MaxKeyBytes {
		return fmt.Errorf("key %.64q... has %d bytes, at most %d are possible: %w", key, len(key), MaxKeyBytes, ErrTooLarge)
	}
	return nil
}

// Split distributes ops, in order, over as few consecutive transactions as keep
// to the limits. Each is atomic by itself; the whole is not. An operation that
// fits no transaction is ErrTooLarge, a key given twice ErrInvalid; then nothing
// is returned.
func Split(ops []Op) ([]Txn, error) {
	var out []Txn
	seen := make(map[string]struct{}, len(ops))
	start, size := 0, 0
	for i, o := range ops {
		if err := (Txn{Ops: ops[i : i+1]}).Validate(); err != nil {
			return nil, err
		}
		if _, dup := seen[o.Key]; dup {
			return nil, fmt.Errorf("key %q appears twice: %w", o.Key, ErrInvalid)
		}
		seen[o.Key] = struct{}{}
		if i > start && (i-start == MaxTxnOps || size+o.size() > MaxTxnBytes) {
			out = append(out, Txn{Ops: ops[start:i:i]})
			start, size = i, 0
		}
		size += o.size()
	}
	if start < len(ops) {
		out = append(out, Txn{Ops: ops[start:]})
	}
	return out, nil
}
