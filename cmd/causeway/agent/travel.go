package agent

import (
	"cmp"
	"context"
	"crypto/sha256"
	"fmt"
	"log/slog"
	"slices"
	"sync"

	corev1 "k8s.io/api/core/v1"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"

	"github.com/causeway-mesh/causeway/cluster"
	"github.com/causeway-mesh/causeway/cluster/identity"
	"github.com/causeway-mesh/causeway/federation"
	"github.com/causeway-mesh/causeway/federation/record"
	"github.com/causeway-mesh/causeway/federation/resolve"
)

// travel seals the certificates that other clusters need and may have, each for each of
// them, and opens those that have come. The leader seals. Its methods may be called from
// any goroutine.
type travel struct {
	local     cluster.ID
	authority *identity.Authority
	result    func() *resolve.Result // nil before the first
	publish   func([]record.Record)
	forget    func()
	log       *slog.Logger
	wake      cluster.Bell
	ready     bool // follow's: the store is known

	mu       sync.Mutex
	problems []cluster.Problem
}

// sealedContext is what a certificate is sealed with, so that nobody can pass it on under
// another name, as another cluster's, or to another cluster.
func sealedContext(from cluster.ID, namespace, name string, to cluster.ID) string {
	return fmt.Sprintf("causeway certificate v1 of Secret %s/%s of cluster %s for cluster %s", namespace, name, from, to)
}

// open implements federation.LoopConfig.Unseal.
func (t *travel) open(from cluster.ID, namespace, name string, s *cluster.SealedSecret) (*corev1.Secret, error) {
	text, err := t.authority.Unseal(s.Key, sealedContext(from, namespace, name, t.local), s.Sealed)
	if err != nil {
		return nil, err
	}
	chain, key, err := record.DecodeCertificate(text)
	if err != nil {
		return nil, err
	}
	return &corev1.Secret{ObjectMeta: metav1.ObjectMeta{Namespace: namespace, Name: name}, Type: corev1.SecretTypeTLS,
		Data: map[string][]byte{corev1.TLSCertKey: chain, corev1.TLSPrivateKeyKey: key}}, nil
}

// follow takes notice of a Result: it is looked at again if it may have changed what travels,
// and once the store is known. One goroutine calls it.
func (t *travel) follow(snap *federation.Snapshot, delta resolve.Delta, changed federation.ChangeSet) {
	first := !t.ready && snap.Revision > 0
	t.ready = t.ready || first
	if first || len(delta.Travels) > 0 || changed.Has(federation.KeyTrust) {
		t.wake.Ring()
	}
}

// lead seals until ctx ends. It may be called again after it returned.
func (t *travel) lead(ctx context.Context) {
	defer func() { // another knows better from now on
		t.forget()
		t.mu.Lock()
		t.problems = nil
		t.mu.Unlock()
	}()
	sealed := map[string]sealedOnce{}
	for {
		next := t.wake.Next()
		if res := t.result(); res != nil && res.Snapshot.Revision > 0 {
			sealed = t.seal(res, sealed)
			var all []record.Record
			for _, s := range sealed {
				all = append(all, s.record)
			}
			t.publish(all)
		}
		select {
		case <-ctx.Done():
			return
		case <-next:
		}
	}
}

// sealedOnce is what was sealed, and of what: the same is not sealed twice.
type sealedOnce struct {
	of     [sha256.Size]byte
	record record.Record
}

// seal gives the records of all that travels, by key. have is what it gave before.
func (t *travel) seal(res *resolve.Result, have map[string]sealedOnce) map[string]sealedOnce {
	out := map[string]sealedOnce{}
	var problems []cluster.Problem
	res.Travels.Root().Walk(func(_ []byte, g *resolve.Travel) bool {
		for _, c := range g.Certificates {
			object := cluster.Ref{Kind: cluster.KindSecret, Namespace: c.Namespace, Name: c.Name}.String()
			why := func(message string) {
				p := cluster.Problem{Cluster: t.local, Where: object, Object: object, Message: message}
				if !slices.Contains(problems, p) {
					problems = append(problems, p)
				}
			}
			if c.Problem != "" {
				why(c.Problem)
				continue
			}
			chain, key := c.PEM()
			text, err := record.EncodeCertificate(chain, key)
			if err != nil {
				why("does not travel: " + err.Error())
				continue
			}
			for _, to := range c.Clusters {
				if err := t.sealFor(res.Snapshot, c.Namespace, c.Name, to, text, have, out); err != nil {
					why(fmt.Sprintf("does not travel to cluster %s: %v", to, err))
				}
			}
		}
		return false
	})
	slices.SortFunc(problems, func(a, b cluster.Problem) int {
		return cmp.Or(cmp.Compare(a.Object, b.Object), cmp.Compare(a.Message, b.Message))
	})
	t.mu.Lock()
	fresh := !slices.Equal(problems, t.problems)
	t.problems = problems
	t.mu.Unlock()
	if fresh {
		for _, p := range problems {
			t.log.Warn("a certificate stays at home", "secret", p.Object, "reason", p.Message)
		}
	}
	return out
}

// sealFor adds the record of a certificate for one cluster: the one that the store has, or
// the one of the last time, if it still holds.
func (t *travel) sealFor(snap *federation.Snapshot, ns, name string, to cluster.ID, text []byte, have, out map[string]sealedOnce) error {
	key, err := record.SecretKey(t.local, ns, name, to)
	if err != nil {
		return err
	}
	if _, done := out[key]; done {
		return nil
	}
	recipient := snap.Sealing(to)
	if recipient == nil {
		return fmt.Errorf("it has published no key to seal for: its agents are of an older version, or have not led yet")
	}
	context, sum := sealedContext(t.local, ns, name, to), sha256.Sum256(text)
	of := sha256.Sum256(slices.Concat(recipient, sum[:]))
	if h, ok := have[key]; ok && h.of == of {
		out[key] = h
		return nil
	}
	marked := func(sealed []byte) [][]byte { return [][]byte{[]byte(context), recipient, sum[:], sealed} }
	s, ok := t.stored(snap, ns, name, to)
	if !ok || !slices.Equal(s.Key, recipient) || !t.authority.Marked(s.Mark, marked(s.Sealed)...) {
		sealed, err := identity.Seal(recipient, context, text)
		if err != nil {
			return err
		}
		s = &cluster.SealedSecret{Key: recipient, Sealed: sealed, Mark: t.authority.Mark(marked(sealed)...)}
	}
	r, err := record.EncodeSealed(t.local, ns, name, to, s)
	if err != nil {
		return err
	}
	out[key] = sealedOnce{of, r}
	return nil
}

// stored finds what this cluster has in the store, as another process of it may have sealed it.
func (t *travel) stored(snap *federation.Snapshot, ns, name string, to cluster.ID) (*cluster.SealedSecret, bool) {
	o, ok := snap.Get(t.local, cluster.KindSealedSecret, ns, cluster.SealedName(to, name))
	if !ok {
		return nil, false
	}
	s, ok := o.Value.(*cluster.SealedSecret)
	return s, ok
}

// list gives what a person has to mend, sorted.
func (t *travel) list() []cluster.Problem {
	t.mu.Lock()
	defer t.mu.Unlock()
	return slices.Clone(t.problems)
}
