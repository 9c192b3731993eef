package memory

import (
	"context"
	"errors"
	"fmt"
	"time"

	"github.com/causeway-mesh/causeway/federation/store"
)

var errLost = errors.New("lease expired, or its key was deleted or overwritten")

// Hold implements store.Store.
func (s *Store) Hold(ctx context.Context, key string, value []byte, ttl time.Duration) error {
	op := store.Put(key, append([]byte{}, value...))
	if err := (store.Txn{Ops: []store.Op{op}}).Validate(); err != nil {
		return fmt.Errorf("hold: %w", err)
	}
	if ttl <= 0 {
		return fmt.Errorf("hold of key %q: ttl %v is not positive: %w", key, ttl, store.ErrInvalid)
	}
	// Whole seconds, as etcd has them.
	ttl = (ttl + time.Second - 1).Truncate(time.Second)
	renew := time.NewTicker(ttl / 3)
	defer renew.Stop()
	var l *lease
	defer func() { s.giveUp(key, l) }()
	for {
		if err := s.lockAvailable(ctx); err != nil {
			return ctx.Err()
		}
		established := l == nil
		if established {
			l = s.establish(op, ttl)
		} else {
			l.expiry.Reset(ttl)
		}
		s.mu.Unlock()
		if established && s.cfg.OnHold != nil {
			s.cfg.OnHold(key, true, nil)
		}
		select {
		case <-renew.C:
		case <-l.lost: // also the next time, should both be ready
			l = nil
			if s.cfg.OnHold != nil {
				s.cfg.OnHold(key, false, errLost)
			}
		case <-ctx.Done():
			return ctx.Err()
		}
	}
}

// establish puts the key under a new lease. s.mu is held.
func (s *Store) establish(op store.Op, ttl time.Duration) *lease {
	s.release(op.Key)
	l := &lease{lost: make(chan struct{})}
	s.leases[op.Key] = l
	s.apply([]store.Op{op}, true)
	l.expiry = time.AfterFunc(ttl, func() { s.expire(op.Key, l) })
	return l
}

// release takes the key from its holder, if it has one. s.mu is held.
func (s *Store) release(key string) {
	if l := s.leases[key]; l != nil {
		delete(s.leases, key)
		l.expiry.Stop()
		close(l.lost)
	}
}

func (s *Store) expire(key string, l *lease) {
	s.mu.Lock()
	defer s.mu.Unlock()
	if s.leases[key] == l {
		s.release(key)
		s.apply([]store.Op{store.Delete(key)}, false)
	}
}

// giveUp ends the holding. A store that is away keeps the key until the lease
// expires, as a server would.
func (s *Store) giveUp(key string, l *lease) {
	s.mu.Lock()
	defer s.mu.Unlock()
	if l != nil && s.leases[key] == l && !s.down {
		s.release(key)
		s.apply([]store.Op{store.Delete(key)}, false)
	}
}

// Expire ends the lease of a held key at once, as if it had not been renewed in
// time; it does nothing for other keys.
func (s *Store) Expire(key string) {
	s.mu.Lock()
	l := s.leases[key]
	s.mu.Unlock()
	if l != nil {
		s.expire(key, l)
	}
}
