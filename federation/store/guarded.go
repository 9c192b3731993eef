package store

import (
	"context"
	"fmt"
	"strings"
	"time"
)

// Guarded wraps s so that mistakes of its user are errors before they reach the
// store: keys outside Root, keys that ParseKey refuses, empty values (ErrInvalid),
// and writes outside writable (ErrDenied), which is a prefix such as
// ClusterPrefix returns, or empty for clients that write nothing.
//
// It is a help against bugs, not a protection: what a client may write is
// enforced by the server.
func Guarded(s Store, writable string) Store { return &guarded{inner: s, writable: writable} }

type guarded struct {
	inner    Store
	writable string
}

func (g *guarded) List(ctx context.Context, prefix string, revision int64) ([]KV, int64, error) {
	if err := checkRead(prefix, revision); err != nil {
		return nil, 0, err
	}
	return g.inner.List(ctx, prefix, revision)
}

func (g *guarded) Watch(ctx context.Context, prefix string, after int64, deliver func(Batch) error) error {
	if err := checkRead(prefix, after); err != nil {
		return err
	}
	return g.inner.Watch(ctx, prefix, after, deliver)
}

func (g *guarded) Commit(ctx context.Context, txn Txn) (int64, error) {
	for _, gd := range txn.Guards {
		if _, err := ParseKey(gd.Key); err != nil {
			return 0, err
		}
	}
	for _, o := range txn.Ops {
		if err := g.checkWrite(o); err != nil {
			return 0, err
		}
	}
	return g.inner.Commit(ctx, txn)
}

func (g *guarded) Hold(ctx context.Context, key string, value []byte, ttl time.Duration) error {
	if err := g.checkWrite(Put(key, value)); err != nil {
		return err
	}
	return g.inner.Hold(ctx, key, value, ttl)
}

func (g *guarded) checkWrite(o Op) error {
	if _, err := ParseKey(o.Key); err != nil {
		return err
	}
	if g.writable == "" || !strings.HasPrefix(o.Key, g.writable) {
		return fmt.Errorf("write of key %q outside own prefix %q: %w", o.Key, g.writable, ErrDenied)
	}
	if !o.Remove && len(o.Value) == 0 {
		return fmt.Errorf("empty value for key %q: %w", o.Key, ErrInvalid)
	}
	return nil
}

func checkRead(prefix string, revision int64) error {
	if !strings.HasPrefix(prefix, Root) {
		return fmt.Errorf("prefix %.80q is not below %s: %w", prefix, Root, ErrInvalid)
	}
	if !strings.HasSuffix(prefix, "/") {
		return fmt.Errorf("prefix %.80q does not end in a slash, so it could cover another cluster's keys: %w", prefix, ErrInvalid)
	}
	if revision < 0 {
		return fmt.Errorf("negative revision %d: %w", revision, ErrInvalid)
	}
	return nil
}
