package identity

import (
	"context"
	"crypto/x509"
	"errors"
	"fmt"
	"io/fs"
	"log/slog"
	"os"
	"path/filepath"
	"sync"
	"time"
)

// Bounds and defaults of authorities.
const (
	DefaultRootTTL = 365 * 24 * time.Hour
	DefaultMaxTTL  = 24 * time.Hour
	DefaultAhead   = 10 * time.Minute

	// MinTTL is the shortest life of a leaf.
	MinTTL = 10 * time.Second

	maxRootTTL = 10 * DefaultRootTTL
)

// RootConfig is what both kinds of authority are made from.
type RootConfig struct {
	// Dir is where the roots and their keys are kept; empty keeps them in memory
	// alone. It is made with mode 0700 if it doesn't exist.
	Dir string
	// Storage keeps them in the place of Dir, for authorities that several processes
	// share: one of them runs the authority, all of them Reload it.
	Storage Storage
	// RootTTL is the life of a root; default DefaultRootTTL. Run rotates it when
	// two thirds are over.
	RootTTL time.Duration
	// MaxTTL bounds the life of a leaf and so the overlap of roots; default
	// DefaultMaxTTL. Lower it only when the leaves of the longer one have expired.
	MaxTTL time.Duration
	// Ahead is how long a new root is published before it signs; default
	// DefaultAhead. It must exceed the time that a bundle needs to reach all readers.
	Ahead  time.Duration
	Logger *slog.Logger // default slog.Default()
}

// Storage keeps the roots of an authority, private keys included.
type Storage interface {
	// Load gives what was saved last; an error that is fs.ErrNotExist says that
	// nothing was.
	Load() ([]byte, error)
	// Create saves the first content; an error that is fs.ErrExist says that
	// somebody else was faster.
	Create(data []byte) error
	// Save replaces what Load or Create of this process saw last.
	Save(data []byte) error
}

// fileStorage is a file that nobody else may read.
type fileStorage struct{ path string }

func (f fileStorage) Load() ([]byte, error)    { return readSecret(f.path, maxKeyringFile) }
func (f fileStorage) Create(data []byte) error { return createFile(f.path, data, 0o600) }
func (f fileStorage) Save(data []byte) error   { return WriteFile(f.path, data, 0o600) }
func (f fileStorage) String() string           { return f.path }

func (c *RootConfig) complete() error {
	if c.RootTTL == 0 {
		c.RootTTL = DefaultRootTTL
	}
	if c.MaxTTL == 0 {
		c.MaxTTL = DefaultMaxTTL
	}
	if c.Ahead == 0 {
		c.Ahead = DefaultAhead
	}
	if c.Logger == nil {
		c.Logger = slog.Default()
	}
	switch {
	case c.MaxTTL < MinTTL:
		return fmt.Errorf("longest life of a leaf %s is below %s", c.MaxTTL, MinTTL)
	case c.Ahead < 0:
		return fmt.Errorf("publishing ahead by %s is negative", c.Ahead)
	case c.RootTTL > maxRootTTL:
		return fmt.Errorf("life of a root %s is above %s", c.RootTTL, maxRootTTL)
	// Otherwise the next root would have to be made before this one signs.
	case c.RootTTL < 3*(c.MaxTTL+c.Ahead):
		return fmt.Errorf("life of a root %s is below three times that of a leaf and its publishing ahead (%s + %s)", c.RootTTL, c.MaxTTL, c.Ahead)
	}
	return nil
}

// roots owns the keyring of an authority: in memory, in its storage, over time.
type roots struct {
	cfg      RootConfig
	storage  Storage // nil: memory only
	template x509.Certificate
	check    func(*x509.Certificate) error
	name     string // for messages

	io sync.Mutex // held while the storage is read or written; before mu

	mu      sync.Mutex
	keyring keyring
	changed chan struct{} // closed and replaced when keyring changes
}

// openRoots loads the keyring, or makes its first root. Of several processes
// that start on one directory, one makes it and the others load it.
func openRoots(cfg RootConfig, file, name string, template x509.Certificate, check func(*x509.Certificate) error) (*roots, error) {
	if err := cfg.complete(); err != nil {
		return nil, fmt.Errorf("authority of %s: %w", name, err)
	}
	r := &roots{cfg: cfg, template: template, check: check, name: name, storage: cfg.Storage, changed: make(chan struct{})}
	if cfg.Storage == nil && cfg.Dir != "" {
		if err := os.MkdirAll(cfg.Dir, 0o700); err != nil {
			return nil, fmt.Errorf("authority of %s: %w", name, err)
		}
		r.storage = fileStorage{filepath.Join(cfg.Dir, file)}
	}
	var err error
	if r.storage != nil {
		r.keyring, err = r.load()
	}
	if r.storage == nil || errors.Is(err, fs.ErrNotExist) {
		r.keyring, err = r.create()
	}
	if err != nil {
		return nil, fmt.Errorf("authority of %s: %w", name, err)
	}
	return r, nil
}

func (r *roots) create() (keyring, error) {
	first, err := newRoot(r.template, time.Now(), r.cfg.RootTTL)
	if err != nil {
		return nil, err
	}
	k := keyring{first}
	if r.storage == nil {
		return k, nil
	}
	data, err := k.encode()
	if err != nil {
		return nil, err
	}
	err = r.storage.Create(data)
	if errors.Is(err, fs.ErrExist) {
		return r.load()
	}
	return k, err
}

func (r *roots) load() (keyring, error) {
	data, err := r.storage.Load()
	if err != nil {
		return nil, err
	}
	k, err := decodeKeyring(data)
	if err != nil {
		return nil, fmt.Errorf("%s is damaged: %w: restore it from a backup, or remove it to have a new root, which all clusters must then learn", r.storage, err)
	}
	for _, g := range k {
		if err := r.check(g.cert); err != nil {
			return nil, fmt.Errorf("%s: %w", r.storage, err)
		}
	}
	return k, nil
}

// reload takes over what another process saved.
func (r *roots) reload() error {
	r.io.Lock()
	defer r.io.Unlock()
	if r.storage == nil {
		return nil
	}
	next, err := r.load()
	if err != nil {
		return fmt.Errorf("reload the roots of %s: %w", r.name, err)
	}
	r.mu.Lock()
	defer r.mu.Unlock()
	if !next.same(r.keyring) {
		r.keyring = next
		r.wakeLocked()
	}
	return nil
}

// current gives the keyring and a channel that is closed when it changes.
func (r *roots) current() (keyring, <-chan struct{}) {
	r.mu.Lock()
	defer r.mu.Unlock()
	return r.keyring, r.changed
}

// replace saves what change makes of the keyring, then publishes it: a root that
// would be lost in a crash must not be seen.
func (r *roots) replace(change func(keyring) (keyring, error)) error {
	r.io.Lock()
	defer r.io.Unlock()
	now, _ := r.current()
	next, err := change(now)
	if err != nil || next.equal(now) {
		return err
	}
	if r.storage != nil {
		data, err := next.encode()
		if err == nil {
			err = r.storage.Save(data)
		}
		if err != nil {
			return fmt.Errorf("save roots: %w", err)
		}
	}
	r.mu.Lock()
	defer r.mu.Unlock()
	r.keyring = next
	r.wakeLocked()
	return nil
}

func (r *roots) wakeLocked() {
	close(r.changed)
	r.changed = make(chan struct{})
}

func (r *roots) rotate() error {
	now := time.Now()
	next, err := newRoot(r.template, now, r.cfg.RootTTL)
	if err == nil {
		err = r.replace(func(k keyring) (keyring, error) {
			return k.rotated(next, now, r.cfg.Ahead, r.cfg.MaxTTL)
		})
	}
	if err != nil {
		return fmt.Errorf("rotate the root of %s: %w", r.name, err)
	}
	r.cfg.Logger.Info("made a new root", "authority", r.name, "signsFrom", now.Add(r.cfg.Ahead))
	return nil
}

// run rotates when two thirds of the newest root's life are over, and lets go of
// old roots when their time has come, until ctx ends. What fails is tried again.
func (r *roots) run(ctx context.Context) error {
	for ctx.Err() == nil {
		k, changed := r.current()
		now := time.Now()
		newest := k[len(k)-1]
		due := newest.activeFrom.Add(newest.cert.NotAfter.Sub(newest.activeFrom) * 2 / 3)
		var err error
		if !now.Before(due) {
			err = r.rotate()
		} else if pruned := k.pruned(now); !pruned.equal(k) {
			err = r.replace(func(k keyring) (keyring, error) { return k.pruned(now), nil })
		}
		if err != nil {
			r.cfg.Logger.Error("can't look after the root; will try again", "authority", r.name, "error", err)
		}
		next := due
		if t := k.nextChange(now); !t.IsZero() && t.Before(next) {
			next = t
		}
		if err != nil {
			next = now.Add(maxWait)
		}
		waitUntil(ctx, next, changed)
		// Time alone changes what trusted and signer say: readers must look again.
		r.mu.Lock()
		if now, then := time.Now(), now; r.keyring.signer(now).cert != r.keyring.signer(then).cert || len(r.keyring.trusted(now)) != len(r.keyring.trusted(then)) {
			r.wakeLocked()
		}
		r.mu.Unlock()
	}
	return nil
}

// maxWait bounds how long a timer runs without a look at the wall clock: timers
// stand still while a machine sleeps, certificates don't.
const maxWait = time.Minute

// waitUntil returns at t, or earlier: when wake is closed, when ctx ends, and at
// least once a maxWait.
func waitUntil(ctx context.Context, t time.Time, wake <-chan struct{}) {
	timer := time.NewTimer(max(time.Second, min(maxWait, time.Until(t.Round(0)))))
	defer timer.Stop()
	select {
	case <-ctx.Done():
	case <-wake:
	case <-timer.C:
	}
}
