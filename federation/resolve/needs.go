package resolve

import (
	"reflect"
	"slices"
	"strings"

	"github.com/causeway-mesh/causeway/federation"
)

// needs are the units that a unit refers to.
type needs map[unit]struct{}

func needsOfFrontend(f *Frontend) needs {
	n := needs{}
	for _, p := range f.Ports {
		n.backend(p.Backend)
		n.table(p.Producer)
		for _, c := range p.Consumers {
			n.table(c.Table)
		}
	}
	return n
}

func needsOfGateway(g *Gateway) needs {
	n := needs{}
	for _, l := range g.Listeners {
		for _, h := range l.Hosts {
			n.table(h.Table)
		}
		n.forward(l.Forward)
	}
	return n
}

func (n needs) backend(k BackendKey) { n[unit{class: unitBackend, backend: k}] = struct{}{} }

func (n needs) table(t *RouteTable) {
	eachTarget(t, func(k BackendKey, chain *FrontendKey) {
		n.backend(k)
		if chain != nil && chain.Cluster != "" {
			n[remoteUnit(*chain)] = struct{}{}
		}
	})
}

func (n needs) forward(f *ForwardRule) { n.table(&RouteTable{Forward: f}) }

// eachTarget visits the backends that a table's requests may reach, with the
// frontend through which they chain, if any. Those that can't be used are left out.
func eachTarget(t *RouteTable, do func(k BackendKey, chain *FrontendKey)) {
	eachBackend(t, func(b *WeightedBackend) bool { return b.Invalid == "" }, do)
}

// eachWanted is eachTarget with those that only their BackendTLSPolicy forbids.
func eachWanted(t *RouteTable, do func(k BackendKey, chain *FrontendKey)) {
	eachBackend(t, func(b *WeightedBackend) bool { return b.Invalid == "" || b.distrusted }, do)
}

func eachBackend(t *RouteTable, counts func(*WeightedBackend) bool, do func(k BackendKey, chain *FrontendKey)) {
	if t == nil {
		return
	}
	filters := func(f *Filters) {
		for _, m := range f.Mirrors {
			do(m.Backend, nil)
		}
		if f.Auth != nil {
			do(f.Auth.Backend, nil)
		}
	}
	weighted := func(list []WeightedBackend) {
		for i := range list {
			b := &list[i]
			filters(&b.Filters)
			if counts(b) {
				do(b.Backend, b.Chain)
			}
		}
	}
	for _, rule := range t.Rules {
		filters(&rule.Filters)
		weighted(rule.Backends)
	}
	if t.Forward != nil {
		weighted(t.Forward.Backends)
	}
}

// fact is something that a unit found out and that units of later classes read,
// in the same way as they read the Snapshot: by a Key. A unit has at most one
// fact for a Key; several units may have one each.
type fact struct {
	key   federation.Key
	value any // compared with its method equal, else with reflect.DeepEqual; never changed
}

func sameFact(a, b any) bool {
	if x, ok := a.(interface{ equal(any) bool }); ok {
		return x.equal(b)
	}
	return reflect.DeepEqual(a, b)
}

// factKey makes a Key that no set of the Snapshot has.
func factKey(what string, parts ...string) federation.Key {
	n := len("fact\x00") + len(what) + 1
	for _, p := range parts {
		n += len(p) + 1
	}
	var k strings.Builder
	k.Grow(n)
	k.WriteString("fact\x00" + what + "\x00")
	for _, p := range parts {
		k.WriteString(p)
		k.WriteByte(0)
	}
	return federation.Key(k.String())
}

func (u *run) reader() *reader {
	r := newReader(u.local, u.snap)
	r.factsOf = u.factsOf
	return r
}

func (u *run) factsOf(k federation.Key) []any {
	var out []any
	u.facts.Root().WalkPrefix([]byte(string(k)+readerSep), func(_ []byte, v any) bool {
		out = append(out, v)
		return false
	})
	return out
}

// putFacts replaces the facts of a unit, queues the readers of those that differ,
// and gives their Keys, sorted.
func (u *run) putFacts(x unit, id string, old []federation.Key, next []fact) []federation.Key {
	keys := make([]federation.Key, 0, len(next))
	changed := func(k federation.Key) {
		u.readers.Root().WalkPrefix([]byte(string(k)+readerSep), func(_ []byte, reader unit) bool {
			if reader.class <= x.class {
				panic("resolve: " + reader.id() + " reads a fact of " + id + ", which is computed after it")
			}
			u.touch(reader)
			return false
		})
	}
	var at []byte
	for _, f := range next {
		keys = append(keys, f.key)
		at = append(append(append(at[:0], f.key...), readerSep...), id...)
		if v, ok := u.facts.Get(at); !ok || !sameFact(v, f.value) {
			u.facts.Insert(slices.Clone(at), f.value) // the tree keeps the key
			changed(f.key)
		}
	}
	slices.Sort(keys)
	eachDiff(old, keys, func(k string) {
		u.facts.Delete([]byte(k + readerSep + id))
		changed(federation.Key(k))
	}, func(string) {})
	return keys
}
