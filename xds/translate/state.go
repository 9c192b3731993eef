package translate

import (
	"maps"
	"slices"
	"strings"

	iradix "github.com/hashicorp/go-immutable-radix/v2"

	"github.com/causeway-mesh/causeway/federation/resolve"
)

// Input is all that a proxy's configuration depends on.
type Input struct {
	Proxy  Proxy
	Result *resolve.Result
	// Bindings says where listeners bind. What it answers for a proxy and key may
	// change only from "not now" to an address; see State.Update.
	Bindings Bindings
	// Identity is the proxy's SVID and Bundles whom it trusts. Both are compared
	// by pointer.
	Identity *Identity
	Bundles  *Bundles
	Options  Options
	// Shared is what sidecars have in common, of the same Result, Options and Cache;
	// nil: the State keeps one for itself. Other roles need none; with it, a change that
	// does not concern them costs less.
	Shared *Shared
	// Cache is shared with the other proxies of the agent; nil for none.
	Cache *Cache
}

// Options are choices that hold for all proxies of an agent.
type Options struct {
	// AccessLog is the file that Envoy logs requests and connections to, one JSON
	// object a line; "/dev/stdout" is its standard output. Empty: no log.
	AccessLog string
	// AccessLogFormat makes it lines of text, in Envoy's format. Empty: JSON.
	AccessLogFormat string
	// SystemRoots is the file, where the Envoys run, with the system's certificate
	// authorities (PEM), for BackendTLSPolicies that ask for them. Empty: none.
	SystemRoots string
	// DebugHeaders adds HeaderRoute and HeaderUpstream to responses.
	DebugHeaders bool
}

// Problem says why something has no part, or another part than was asked for, in
// a proxy's configuration.
type Problem struct {
	Subject string // what Resource.Subject would name
	Message string
}

func sortProblems(p []Problem) {
	slices.SortFunc(p, func(a, b Problem) int {
		if c := strings.Compare(a.Subject, b.Subject); c != 0 {
			return c
		}
		return strings.Compare(a.Message, b.Message)
	})
}

// State is the configuration of one proxy with what is needed to bring it up to
// date. Immutable; read it from any goroutine.
type State struct {
	// Resources is what the proxy is to have.
	Resources *Resources

	in     Input
	shared *Shared  // sidecars: part of Resources
	trust  []string // the trust domains that clusters claim, sorted
	units  *iradix.Tree[*unit]
	needs  *iradix.Tree[int] // how many units need a unit, by its key
	bad    *iradix.Tree[[]Problem]
}

// Problems lists what could not be translated, sorted. The cost is in proportion
// to their number.
func (s *State) Problems() []Problem {
	var out []Problem
	s.bad.Root().Walk(func(_ []byte, p []Problem) bool {
		out = append(out, p...)
		return false
	})
	out = s.shared.problems(out)
	sortProblems(out)
	return slices.Compact(out)
}

// Build translates everything.
func Build(in Input) *State {
	s, _ := emptyState().rebuild(in)
	return s
}

func emptyState() *State {
	return &State{
		Resources: NewResources(nil),
		units:     iradix.New[*unit](),
		needs:     iradix.New[int](),
		bad:       iradix.New[[]Problem](),
	}
}

// Update brings the configuration up to date with in; s itself does not change.
// delta must name at least what differs between the Result of s and that of in;
// name a frontend or Gateway there also when Bindings has an address for it that
// it did not have before. The outcome equals Build(in), at a cost in proportion to
// delta. The caller must not change what the Changes hold: proxies share it.
func (s *State) Update(in Input, delta resolve.Delta) (*State, Changes) {
	if in.Proxy != s.in.Proxy || in.Options != s.in.Options {
		return s.rebuild(in)
	}
	if next, changes, ok := s.follow(in, delta); ok {
		return next, changes
	}
	b := s.edit(in)
	if in.Proxy.Role == RoleSidecar {
		b.share(func() *Shared { return s.shared.Update(in, delta) })
	}
	if in.Identity != s.in.Identity || in.Bundles != s.in.Bundles || !slices.Equal(b.trust, s.trust) {
		b.refresh(unitKey{kind: unitSecrets})
	}
	switch in.Proxy.Role {
	case RoleSidecar:
		for _, name := range delta.Frontends {
			b.refresh(unitKey{kind: unitFrontend, name: name})
		}
	case RoleGateway:
		for _, name := range delta.Gateways {
			if k := (unitKey{kind: unitGateway, name: name}); name == in.Proxy.Namespace+"/"+in.Proxy.Name {
				b.refresh(k)
			}
		}
		if !clientCertificate(s.in).Equal(clientCertificate(in)) {
			b.refreshAll(unitBackend)
		}
		for _, list := range [][]string{delta.Frontends, delta.Remotes} {
			for _, name := range list {
				b.refreshChains(name)
			}
			if len(list) > 0 && forwardsUDP(in) {
				// Its chains are followed where they begin.
				b.refresh(unitKey{kind: unitGateway, name: in.Proxy.Namespace + "/" + in.Proxy.Name})
			}
		}
	case RoleCrossing:
		if _, bound := s.Resources.Get(TypeListener, nameCrossing); !bound {
			b.refresh(unitKey{kind: unitCrossing})
		}
		for _, name := range delta.Imports {
			b.refresh(unitKey{kind: unitImport, name: name})
		}
		for _, name := range delta.Frontends {
			b.refresh(unitKey{kind: unitEntry, name: name})
		}
	}
	b.refreshNeeded(unitsOf(delta))
	return b.done()
}

// forwardsUDP tells whether a gateway proxy has listeners of UDP.
func forwardsUDP(in Input) bool {
	g, ok := in.Result.Gateways.Get([]byte(in.Proxy.Namespace + "/" + in.Proxy.Name))
	return ok && slices.ContainsFunc(g.Listeners, func(l resolve.Listener) bool { return l.Protocol == protocolUDP })
}

// follow is Update where a change concerns nothing that is the proxy's own, which is so
// for most changes and proxies: then only what it shares may differ. It takes a few
// lookups, so that the cost of a change grows with the proxies that it concerns.
func (s *State) follow(in Input, delta resolve.Delta) (*State, Changes, bool) {
	if !s.aside(in, delta) {
		return nil, Changes{}, false
	}
	next := *s
	next.in = in
	if in.Proxy.Role != RoleSidecar {
		return &next, Changes{}, true
	}
	var changes Changes
	if s.shared.token != in.Shared.token {
		changes = in.Shared.changes
	}
	for _, byType := range []map[string][]string{changes.Changed, changes.Removed} {
		for typeURL, names := range byType {
			for _, name := range names {
				if _, own := s.Resources.tree(typeURL).Get([]byte(name)); own {
					return nil, Changes{}, false // it hides the shared one
				}
			}
		}
	}
	next.shared = in.Shared
	next.Resources = &Resources{types: s.Resources.types, shared: in.Shared.state.Resources}
	return &next, changes, true
}

// aside reports whether none of the proxy's own units can differ, as far as the last
// Shared knows what does.
func (s *State) aside(in Input, delta resolve.Delta) bool {
	from, to := s.in.Shared, in.Shared
	if from == nil || to == nil || in.Cache == nil || in.Identity != s.in.Identity || in.Bundles != s.in.Bundles ||
		len(delta.Frontends) > 0 || !slices.Equal(to.state.trust, s.trust) {
		return false
	}
	switch in.Proxy.Role {
	case RoleGateway:
		if len(delta.Remotes) > 0 || slices.Contains(delta.Gateways, in.Proxy.Namespace+"/"+in.Proxy.Name) {
			return false
		}
	case RoleCrossing:
		if _, bound := s.Resources.Get(TypeListener, nameCrossing); !bound || len(delta.Imports) > 0 {
			return false
		}
	}
	switch from.token {
	case to.token:
		return true
	case to.before:
		return !slices.ContainsFunc(to.units, func(k []byte) bool { n, _ := s.needs.Get(k); return n > 0 })
	}
	return false
}

// rebuild looks at everything anew, and keeps what turns out the same.
func (s *State) rebuild(in Input) (*State, Changes) {
	b := s.edit(in)
	b.shared = nil
	if in.Proxy.Role == RoleSidecar {
		b.share(func() *Shared {
			if s.shared == nil {
				return NewShared(in)
			}
			return s.shared.rebuild(in)
		})
	}
	all := roots(in)
	for _, k := range all {
		b.refresh(k)
	}
	want := map[string]bool{}
	for _, k := range all {
		want[k.String()] = true
	}
	var old []unitKey
	b.units.Root().Walk(func(_ []byte, u *unit) bool {
		old = append(old, u.key)
		return false
	})
	for _, k := range old {
		switch {
		case k.isRoot() && !want[k.String()]:
			b.set(k, nil)
		case !k.isRoot() && b.needed(k):
			b.refresh(k)
		}
	}
	return b.done()
}

// edit is an update under way.
type edit struct {
	in        Input
	from      *State
	shared    *Shared
	trust     []string
	units     *iradix.Txn[*unit]
	needs     *iradix.Txn[int]
	bad       *iradix.Txn[[]Problem]
	resources map[string]*iradix.Txn[*Resource]
	touched   map[string]map[string]struct{}
	fresh     map[string]bool // units made in this update
}

func (s *State) edit(in Input) *edit {
	if in.Cache == nil {
		in.Cache = NewCache()
	}
	return &edit{
		in: in, from: s, shared: s.shared, trust: claimed(in),
		units: s.units.Txn(), needs: s.needs.Txn(), bad: s.bad.Txn(),
		resources: map[string]*iradix.Txn[*Resource]{}, touched: map[string]map[string]struct{}{}, fresh: map[string]bool{},
	}
}

// claimed lists the trust domains of the clusters, sorted.
func claimed(in Input) []string {
	if in.Result.Snapshot == nil {
		return nil
	}
	type purpose struct{}
	return get(&in.Cache.results, in.Result, purpose{}, func() []string {
		var out []string
		for _, c := range in.Result.Snapshot.Clusters() {
			if trustDomain(c.Meta.TrustDomain) {
				out = append(out, c.Meta.TrustDomain)
			}
		}
		slices.Sort(out)
		return slices.Compact(out)
	})
}

// share takes what the sidecars have in common: what the caller gave, or what keep makes.
func (b *edit) share(keep func() *Shared) {
	if b.shared = b.in.Shared; b.shared == nil {
		b.shared = keep()
	}
}

// refreshNeeded makes anew those units that the proxy needs.
func (b *edit) refreshNeeded(units []unitKey) {
	for _, k := range units {
		if b.needed(k) {
			b.refresh(k)
		}
	}
}

// unitsOf lists the units that rest on the backends that delta names.
func unitsOf(delta resolve.Delta) (out []unitKey) {
	add := func(names []string, kinds ...unitKind) {
		for _, name := range names {
			for _, kind := range kinds {
				out = append(out, unitKey{kind: kind, name: name})
			}
		}
	}
	add(delta.BackendConfigs, unitBackend, unitRaw, unitTunnel, unitSecure, unitEndpoint)
	add(delta.BackendEndpoints, unitTunnel, unitEndpoint)
	return out
}

func (b *edit) needed(k unitKey) bool {
	n, ok := b.needs.Get([]byte(k.String()))
	return ok && n > 0
}

// refresh makes a unit anew, once an update.
func (b *edit) refresh(k unitKey) {
	if b.fresh[k.String()] {
		return
	}
	b.fresh[k.String()] = true
	b.set(k, makeUnit(b.in, b.trust, k))
}

// refreshAll makes all units of a kind anew.
func (b *edit) refreshAll(kind unitKind) {
	var keys []unitKey
	b.units.Root().WalkPrefix([]byte(string(kind)+"/"), func(_ []byte, u *unit) bool {
		keys = append(keys, u.key)
		return false
	})
	for _, k := range keys {
		b.refresh(k)
	}
}

func (b *edit) refreshChains(frontend string) {
	var keys []unitKey
	b.units.Root().WalkPrefix([]byte(unitKey{kind: unitChain, name: frontend}.prefix()), func(_ []byte, u *unit) bool {
		keys = append(keys, u.key)
		return false
	})
	for _, k := range keys {
		b.refresh(k)
	}
}

// set puts a unit in place of the one before, or takes it away (nil), and with it
// what it alone needed.
func (b *edit) set(k unitKey, u *unit) {
	key := []byte(k.String())
	old, _ := b.units.Get(key)
	if old == nil {
		old = &unit{}
	} else if u != nil && old.same(u) {
		return
	}
	if u == nil {
		b.units.Delete(key)
		b.bad.Delete(key)
		u = &unit{}
	} else {
		b.units.Insert(key, u)
		if len(u.problems) > 0 {
			b.bad.Insert(key, u.problems)
		} else {
			b.bad.Delete(key)
		}
	}
	for t, list := range old.resources {
		for _, r := range list {
			if !slices.ContainsFunc(u.resources[t], func(n *Resource) bool { return n.Name == r.Name }) {
				b.txn(t).Delete([]byte(r.Name))
				b.touch(t, r.Name)
			}
		}
	}
	for t, list := range u.resources {
		for i, r := range list {
			if was, ok := b.txn(t).Get([]byte(r.Name)); ok && was.same(r) {
				list[i] = was
				continue
			}
			b.txn(t).Insert([]byte(r.Name), r)
			b.touch(t, r.Name)
		}
	}
	// What is needed comes before what is not needed any more goes, so that what
	// passes from one unit to another is not made twice.
	for _, n := range without(u.needs, old.needs) {
		b.count(n, +1)
	}
	for _, n := range without(old.needs, u.needs) {
		b.count(n, -1)
	}
}

// without gives what is in one sorted list of units and not in another.
func without(list, other []unitKey) (out []unitKey) {
	for _, k := range list {
		for len(other) > 0 && other[0].compare(k) < 0 {
			other = other[1:]
		}
		if len(other) == 0 || other[0].compare(k) != 0 {
			out = append(out, k)
		}
	}
	return out
}

func (b *edit) count(k unitKey, by int) {
	key := []byte(k.String())
	n, _ := b.needs.Get(key)
	n += by
	switch {
	case n == 0:
		b.needs.Delete(key)
		delete(b.fresh, k.String())
		b.set(k, nil)
		return
	case n == 1 && by > 0:
		b.needs.Insert(key, n)
		b.refresh(k)
		return
	}
	b.needs.Insert(key, n)
}

func (b *edit) txn(t string) *iradix.Txn[*Resource] {
	txn := b.resources[t]
	if txn == nil {
		txn = b.from.Resources.tree(t).Txn()
		b.resources[t] = txn
	}
	return txn
}

func (b *edit) touch(t, name string) {
	if b.touched[t] == nil {
		b.touched[t] = map[string]struct{}{}
	}
	b.touched[t][name] = struct{}{}
}

func (b *edit) done() (*State, Changes) {
	next := &Resources{types: maps.Clone(b.from.Resources.types)}
	if next.types == nil {
		next.types = map[string]*iradix.Tree[*Resource]{}
	}
	for t, txn := range b.resources {
		next.types[t] = txn.Commit()
	}
	if b.shared != nil {
		next.shared = b.shared.state.Resources
		b.shared.since(b.from.shared, b.touched)
	}
	changes := Changes{Changed: map[string][]string{}, Removed: map[string][]string{}}
	for t, names := range b.touched {
		for _, name := range slices.Sorted(maps.Keys(names)) {
			was, had := b.from.Resources.Get(t, name)
			is, has := next.Get(t, name)
			switch {
			case had && !has:
				changes.Removed[t] = append(changes.Removed[t], name)
			case has && (!had || was != is && !was.same(is)):
				changes.Changed[t] = append(changes.Changed[t], name)
			}
		}
	}
	return &State{
		Resources: next,
		in:        b.in, shared: b.shared, trust: b.trust,
		units: b.units.Commit(), needs: b.needs.Commit(), bad: b.bad.Commit(),
	}, changes
}
