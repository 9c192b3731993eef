package lab

import (
	"context"
	"errors"
	"fmt"
	"log/slog"
	"os"
	"path/filepath"
	"time"

	"golang.org/x/sync/errgroup"
)

const (
	upTimeout   = 5 * time.Minute // for all clusters, once all is built
	downTimeout = time.Minute
)

// Options say what a lab is to be like.
type Options struct {
	// Clusters is how many it has, from 1 to MaxClusters.
	Clusters int
	// Dir is the folder of all its files, which must not be there or be empty, and which
	// goes with the lab. Empty: a folder below /var/tmp.
	Dir string
	// Flat lets all pods reach each other by their own addresses. Otherwise a cluster's
	// pods reach other clusters' nodes and load balancers alone.
	Flat bool
	CRDs CRDs
	// Images are archives that all clusters have from the start.
	Images []string
	// Detached: the lab stays when this process ends, for Open and Down. Otherwise a
	// process that ends without Close leaves it to the next Start to clean up.
	Detached bool
	// Logger tells what takes long. Nil: nobody hears.
	Logger *slog.Logger
}

// Lab is a set of running clusters.
type Lab struct {
	// Clusters are in the order of their numbers.
	Clusters []*Cluster
	// Machine is this machine's address, by which pods reach what runs on it.
	Machine string

	claim   claim
	foreign bool // the clusters are not ours
}

// Start builds what is not in the cache (see Build), cleans up after labs whose process
// was killed, and starts a lab. It returns when all of it is ready, or leaves nothing.
// Labs may run beside each other. ctx bounds the start alone.
func Start(ctx context.Context, o Options) (_ *Lab, err error) {
	if o.Clusters < 1 || o.Clusters > MaxClusters {
		return nil, fmt.Errorf("a lab has 1 to %d clusters, not %d", MaxClusters, o.Clusters)
	}
	log := o.Logger
	if log == nil {
		log = slog.New(slog.DiscardHandler)
	}
	if err := Prepare(ctx, log); err != nil {
		return nil, err
	}
	var paths [3]string
	for i, c := range []component{pauseBinary, corednsBinary, kubernetesBinary} {
		if paths[i], err = c.build(ctx, log); err != nil {
			return nil, err
		}
	}
	images, err := packImages(paths[0], paths[1])
	if err != nil {
		return nil, err
	}
	ctx, cancel := context.WithTimeoutCause(ctx, upTimeout, fmt.Errorf("the lab has not come up within %s", upTimeout))
	defer cancel()
	cl, err := stake(ctx, o, log)
	if err != nil {
		return nil, err
	}
	defer func() {
		if err != nil {
			ctx, cancel := context.WithTimeout(context.WithoutCancel(ctx), downTimeout)
			defer cancel()
			err = errors.Join(err, cl.destroy(ctx))
		}
	}()
	l := &Lab{claim: cl, Machine: cl.Slot.address4().String()}
	if err := cl.Slot.createWire(ctx); err != nil {
		return nil, err
	}
	for i, m := range cl.members() {
		if err := m.createNode(ctx); err != nil {
			return nil, err
		}
		for _, other := range cl.members()[:i] {
			if err := meet(ctx, m, other); err != nil {
				return nil, err
			}
			if o.Flat {
				if err := flatten(ctx, m, other); err != nil {
					return nil, err
				}
			}
		}
		n := &node{member: m, dir: filepath.Join(cl.Dir, nameOf(m.n)), bin: paths[2]}
		if err := n.prepare(nameOf(m.n)); err != nil {
			return nil, err
		}
		c, err := newCluster(n)
		if err != nil {
			return nil, err
		}
		l.Clusters = append(l.Clusters, c)
	}
	group, gctx := errgroup.WithContext(ctx)
	for _, c := range l.Clusters {
		group.Go(func() error {
			if err := c.up(gctx, o, append(images, o.Images...)); err != nil {
				return fmt.Errorf("cluster %s: %w", c.Name, err)
			}
			return nil
		})
	}
	if err := group.Wait(); err != nil {
		return nil, err
	}
	l.claim.Ready = true
	return l, l.claim.write()
}

// Open returns the detached lab that runs on this machine.
func Open() (*Lab, error) {
	all, err := readClaims()
	if err != nil {
		return nil, err
	}
	for _, c := range all {
		if !c.Detached || !c.Ready {
			continue
		}
		l := &Lab{claim: c, Machine: c.Slot.address4().String()}
		for _, m := range c.members() {
			n := &node{member: m, dir: filepath.Join(c.Dir, nameOf(m.n))}
			if n.bin, err = kubernetesBinary.find(); err != nil {
				return nil, err
			}
			n.ca = &authority{dir: n.file("pki")}
			cluster, err := newCluster(n)
			if err != nil {
				return nil, err
			}
			l.Clusters = append(l.Clusters, cluster)
		}
		return l, nil
	}
	return nil, errors.New("no lab runs here; `make lab` starts one")
}

// Down removes detached labs, and what labs have left whose process was killed. Those of
// processes that go on stay. It says how many it has removed.
func Down(ctx context.Context) (int, error) {
	return remove(ctx, func(c claim) bool { return !c.alive() || c.Detached })
}

// Clean removes what labs have left whose process was killed, as the next Start would. It
// says of how many.
func Clean(ctx context.Context) (int, error) {
	return remove(ctx, func(c claim) bool { return !c.alive() })
}

func remove(ctx context.Context, which func(claim) bool) (int, error) {
	all, err := readClaims()
	if err != nil {
		return 0, err
	}
	n := 0
	for _, c := range all {
		if !which(c) {
			continue
		}
		if err := c.destroy(ctx); err != nil {
			return n, err
		}
		n++
	}
	return n, nil
}

// Close removes the lab. Nothing of it is left: no process, network, mount, cgroup or file.
func (l *Lab) Close() error {
	if l.foreign {
		return nil
	}
	ctx, cancel := context.WithTimeout(context.Background(), downTimeout)
	defer cancel()
	return l.claim.destroy(ctx)
}

// LoadImage loads image archives into all clusters, as Cluster.LoadImage does.
func (l *Lab) LoadImage(ctx context.Context, archives ...string) error {
	group, ctx := errgroup.WithContext(ctx)
	for _, c := range l.Clusters {
		group.Go(func() error { return c.LoadImage(ctx, archives...) })
	}
	return group.Wait()
}

// Cut drops all packets between two clusters, given by their numbers, until Heal. Number 0
// is this machine, whose kubectl then does not reach the other either.
func (l *Lab) Cut(ctx context.Context, a, b int) error {
	ma, mb, err := l.pair(a, b, 0)
	if err != nil {
		return err
	}
	return l.claim.Slot.cut(ctx, ma, mb)
}

// Heal ends a Cut.
func (l *Lab) Heal(ctx context.Context, a, b int) error {
	ma, mb, err := l.pair(a, b, 0)
	if err != nil {
		return err
	}
	return l.claim.Slot.heal(ctx, ma, mb)
}

// Flat lets the pods of two clusters reach each other by their own addresses, from now on.
func (l *Lab) Flat(ctx context.Context, a, b int) error {
	if l.foreign && os.Getenv(flatVariable) != "" {
		return nil
	}
	ma, mb, err := l.pair(a, b, 1)
	if err != nil {
		return err
	}
	return flatten(ctx, ma, mb)
}

func (l *Lab) pair(a, b, lowest int) (member, member, error) {
	if l.foreign {
		return member{}, member{}, ErrForeign
	}
	for _, n := range []int{a, b} {
		if n < lowest || n > len(l.Clusters) || a == b {
			return member{}, member{}, fmt.Errorf("%d and %d are not two of the lab's %d clusters", a, b, len(l.Clusters))
		}
	}
	return member{l.claim.Slot, a}, member{l.claim.Slot, b}, nil
}
