package resolve

import (
	"reflect"
	"slices"
	"strings"

	iradix "github.com/hashicorp/go-immutable-radix/v2"

	"github.com/causeway-mesh/causeway/cluster"
	"github.com/causeway-mesh/causeway/federation"
)

// unit is one piece of the work. Its id is unique; ids sort units into an order
// in which a unit comes after all that may need it.
type unit struct {
	class     unitClass
	kind      cluster.Kind // routes and frontends
	namespace string
	name      string
	cluster   cluster.ID // frontends of another cluster
	backend   BackendKey
	// part names a piece of the unit's work that is remembered by itself
	// (reader.sub), empty for the unit as a whole.
	part string
}

type unitClass byte

const (
	unitClassObject    unitClass = 'a' // a GatewayClass
	unitImport         unitClass = 'b'
	unitVerdict        unitClass = 'c' // whether a BackendTLSPolicy can be obeyed
	unitGateway        unitClass = 'd'
	unitFrontend       unitClass = 'e'
	unitRemoteFrontend unitClass = 'f' // exists while a Gateway chains through it
	unitRoute          unitClass = 'g'
	unitListenerSet    unitClass = 'h'
	unitPolicy         unitClass = 'i' // the report on a BackendTLSPolicy
	unitBackend        unitClass = 'j' // exists while a frontend or Gateway refers to it
	unitRuns           unitClass = 'k' // who runs the Gateways of a name that are for several clusters
	unitTravel         unitClass = 'l' // which certificates others need for the Gateway of a name
)

func (u unit) id() string {
	if u.class == unitBackend {
		return string(u.class) + u.backend.String()
	}
	return strings.Join([]string{string(u.class), string(u.kind), u.namespace, u.name, string(u.cluster), u.part}, "/")
}

// needed tells whether the unit lives only as long as others need it.
func (u unit) needed() bool { return u.class == unitRemoteFrontend || u.class == unitBackend }

func remoteUnit(k FrontendKey) unit {
	return unit{class: unitRemoteFrontend, kind: k.Kind, namespace: k.Namespace, name: k.Name, cluster: k.Cluster}
}

// output is what a unit yields. Fields that it does not own stay nil.
type output struct {
	gone     bool // the object itself is gone: forget the unit
	frontend *Frontend
	gateway  *Gateway
	imp      *Import
	backend  *Backend
	reports  []*ObjectReport
	runs     []*GatewayRuns
	travel   *Travel
	needs    needs
	facts    []fact
}

// compute is the whole of what a unit does: a function of its reader.
func (u unit) compute(r *reader) output {
	switch u.class {
	case unitClassObject:
		return classUnit(r, u.name)
	case unitImport:
		return importUnit(r, u.namespace, u.name)
	case unitRoute:
		return routeUnit(r, u.kind, u.namespace, u.name)
	case unitGateway:
		return gatewayUnit(r, u.namespace, u.name)
	case unitListenerSet:
		return listenerSetUnit(r, u.namespace, u.name)
	case unitVerdict:
		return verdictUnit(r, u.namespace, u.name)
	case unitPolicy:
		return policyUnit(r, u.namespace, u.name)
	case unitRuns:
		return runsUnit(r, u.namespace, u.name)
	case unitTravel:
		return travelUnit(r, u.namespace, u.name)
	case unitFrontend, unitRemoteFrontend:
		return frontendUnit(r, FrontendKey{Kind: u.kind, Namespace: u.namespace, Name: u.name, Cluster: u.cluster})
	}
	return backendUnit(r, u.backend)
}

// known is what is remembered of a unit between Updates.
type known struct {
	unit    unit
	keys    []federation.Key
	needs   needs
	reports []string
	runs    []string
	parts   []string         // ids, sorted
	facts   []federation.Key // sorted
}

// partial is a remembered piece of a unit's work.
type partial struct {
	keys  []federation.Key
	value any
}

// memo lets Update find what a change touches. Its trees are persistent: an old
// Result keeps its own.
type memo struct {
	units   *iradix.Tree[*known]   // by id
	parts   *iradix.Tree[*partial] // by id
	readers *iradix.Tree[unit]     // by Key + separator + id of the unit or part
	refs    *iradix.Tree[int]      // how many units need a unit, by id
	facts   *iradix.Tree[any]      // by Key + separator + id of the unit that found it
}

// readerSep ends a Key in memo.readers. No name contains it, so that the readers
// of one Key are a range of their own.
const readerSep = "\x01"

// Resolve computes a Result from scratch.
func Resolve(local cluster.ID, snap *federation.Snapshot) *Result {
	empty := &Result{Local: local,
		Frontends: iradix.New[*Frontend](), Remotes: iradix.New[*Frontend](), Gateways: iradix.New[*Gateway](), Imports: iradix.New[*Import](),
		Backends: iradix.New[*Backend](), Reports: iradix.New[*ObjectReport](), Runs: iradix.New[*GatewayRuns](), Travels: iradix.New[*Travel](),
		memo: &memo{units: iradix.New[*known](), parts: iradix.New[*partial](), readers: iradix.New[unit](), refs: iradix.New[int](), facts: iradix.New[any]()},
	}
	var seeds []unit
	for _, kind := range seedKinds {
		for _, o := range snap.OfKind(kind) {
			seeds = append(seeds, seedsOf(kind, o.Namespace, o.Name)...)
		}
	}
	out, _ := empty.update(snap, seeds)
	return out
}

// Update computes the Result for the next Snapshot; changed names at least
// every set that differs between the two. The outcome equals Resolve's; values
// that did not change are the same pointers as in r, and Delta names the others.
// r stays valid.
func (r *Result) Update(snap *federation.Snapshot, changed federation.ChangeSet) (*Result, Delta) {
	var dirty []unit
	for k := range changed {
		r.memo.readers.Root().WalkPrefix([]byte(string(k)+readerSep), func(_ []byte, u unit) bool {
			dirty = append(dirty, u)
			return false
		})
		if kind, ns, name, ok := parseNamed(k); ok {
			dirty = append(dirty, seedsOf(kind, ns, name)...)
		}
	}
	return r.update(snap, dirty)
}

// seedKinds are the kinds whose objects bring units into being.
var seedKinds = append([]cluster.Kind{cluster.KindService, cluster.KindServiceExport, cluster.KindGateway, cluster.KindGatewayClass, cluster.KindListenerSet, cluster.KindBackendTLSPolicy}, cluster.RouteKinds...)

func seedsOf(kind cluster.Kind, ns, name string) []unit {
	switch kind {
	case cluster.KindService:
		return []unit{{class: unitFrontend, kind: cluster.KindService, namespace: ns, name: name}}
	case cluster.KindServiceExport:
		return []unit{
			{class: unitImport, namespace: ns, name: name},
			{class: unitFrontend, kind: cluster.KindServiceImport, namespace: ns, name: name},
		}
	case cluster.KindHTTPRoute, cluster.KindGRPCRoute, cluster.KindTLSRoute, cluster.KindTCPRoute, cluster.KindUDPRoute:
		return []unit{{class: unitRoute, kind: kind, namespace: ns, name: name}}
	case cluster.KindGateway:
		return []unit{{class: unitGateway, namespace: ns, name: name}, {class: unitRuns, namespace: ns, name: name}, {class: unitTravel, namespace: ns, name: name}}
	case cluster.KindListenerSet:
		return []unit{{class: unitListenerSet, namespace: ns, name: name}}
	case cluster.KindBackendTLSPolicy:
		return []unit{{class: unitVerdict, namespace: ns, name: name}, {class: unitPolicy, namespace: ns, name: name}}
	case cluster.KindGatewayClass:
		return []unit{{class: unitClassObject, name: name}}
	}
	return nil
}

// parseNamed reads the Keys that federation.KeyNamed makes. It compares with
// what KeyNamed gives, so that it can't misread a Key of another shape.
func parseNamed(k federation.Key) (kind cluster.Kind, ns, name string, ok bool) {
	parts := strings.Split(string(k), "\x00")
	if len(parts) != 4 {
		return "", "", "", false
	}
	kind, ns, name = cluster.Kind(parts[0]), parts[1], parts[2]
	return kind, ns, name, federation.KeyNamed(kind, ns, name) == k
}

// run is one update under way.
type run struct {
	local     cluster.ID
	snap      *federation.Snapshot
	units     *iradix.Txn[*known]
	parts     *iradix.Txn[*partial]
	readers   *iradix.Txn[unit]
	refs      *iradix.Txn[int]
	facts     *iradix.Txn[any]
	frontends *iradix.Txn[*Frontend]
	remotes   *iradix.Txn[*Frontend]
	gateways  *iradix.Txn[*Gateway]
	imports   *iradix.Txn[*Import]
	backends  *iradix.Txn[*Backend]
	reports   *iradix.Txn[*ObjectReport]
	runs      *iradix.Txn[*GatewayRuns]
	travels   *iradix.Txn[*Travel]
	delta     Delta
	// queues of units by class; a unit only ever adds to classes after its own.
	queue map[unitClass]map[string]unit
	stale map[string]bool // parts that read what changed
}

func (r *Result) update(snap *federation.Snapshot, dirty []unit) (*Result, Delta) {
	u := &run{local: r.Local, snap: snap, queue: map[unitClass]map[string]unit{}, stale: map[string]bool{},
		units: r.memo.units.Txn(), parts: r.memo.parts.Txn(), readers: r.memo.readers.Txn(), refs: r.memo.refs.Txn(), facts: r.memo.facts.Txn(),
		frontends: r.Frontends.Txn(), remotes: r.Remotes.Txn(), gateways: r.Gateways.Txn(), imports: r.Imports.Txn(), backends: r.Backends.Txn(), reports: r.Reports.Txn(), runs: r.Runs.Txn(), travels: r.Travels.Txn()}
	for _, d := range dirty {
		u.touch(d)
	}
	for c := unitClassObject; c <= unitTravel; c++ {
		todo := make([]string, 0, len(u.queue[c]))
		for id := range u.queue[c] {
			todo = append(todo, id)
		}
		slices.Sort(todo)
		for _, id := range todo {
			u.do(u.queue[c][id], id)
		}
	}
	u.delta.sort()
	return &Result{Local: r.Local, Snapshot: snap,
		Frontends: u.frontends.Commit(), Remotes: u.remotes.Commit(), Gateways: u.gateways.Commit(), Imports: u.imports.Commit(), Backends: u.backends.Commit(), Reports: u.reports.Commit(), Runs: u.runs.Commit(), Travels: u.travels.Commit(),
		memo: &memo{units: u.units.Commit(), parts: u.parts.Commit(), readers: u.readers.Commit(), refs: u.refs.Commit(), facts: u.facts.Commit()},
	}, u.delta
}

// touch queues a unit that read what changed, or the unit whose part did.
func (u *run) touch(x unit) {
	if x.part != "" {
		u.stale[x.id()] = true
		x.part = ""
	}
	u.enqueue(x)
}

func (u *run) enqueue(x unit) {
	if u.queue[x.class] == nil {
		u.queue[x.class] = map[string]unit{}
	}
	u.queue[x.class][x.id()] = x
}

// do computes a unit and puts its output in the place of what was there.
func (u *run) do(x unit, id string) {
	old, had := u.units.Get([]byte(id))
	if !had {
		old = &known{unit: x}
	}
	var out output
	next := &known{unit: x}
	r := u.reader()
	r.sub = func(part string, compute func(*reader) any) any {
		y := x
		y.part = part
		pid := y.id()
		next.parts = append(next.parts, pid)
		return u.part(y, pid, compute)
	}
	if n, _ := u.refs.Get([]byte(id)); x.needed() && n == 0 {
		out.gone = true // nobody needs it any more
	} else {
		out = x.compute(r)
		out.gone = out.gone && !x.needed()
	}
	next.needs = out.needs
	if !out.gone {
		next.keys = r.sorted()
	}
	slices.Sort(next.parts)
	next.parts = slices.Compact(next.parts)
	eachDiff(old.parts, next.parts, u.forget, func(string) {})
	for _, rep := range out.reports {
		next.reports = append(next.reports, rep.Key())
	}
	for _, g := range out.runs {
		next.runs = append(next.runs, g.Key())
	}
	u.index(id, x, old.keys, next.keys)
	u.need(old.needs, next.needs)
	u.put(x, out)
	putAll(u.reports, old.reports, out.reports, (*ObjectReport).Key, &u.delta.Reports)
	putAll(u.runs, old.runs, out.runs, (*GatewayRuns).Key, &u.delta.Runs)
	next.facts = u.putFacts(x, id, old.facts, out.facts)
	if out.gone {
		u.units.Delete([]byte(id))
	} else {
		u.units.Insert([]byte(id), next)
	}
}

// part gives a remembered piece of a unit's work, computed anew if it read what
// changed. An equal outcome keeps its pointer.
func (u *run) part(y unit, pid string, compute func(*reader) any) any {
	old, had := u.parts.Get([]byte(pid))
	if had && !u.stale[pid] {
		return old.value
	}
	if !had {
		old = &partial{}
	}
	r := u.reader()
	next := &partial{value: compute(r)}
	if had && reflect.DeepEqual(old.value, next.value) {
		next.value = old.value
	}
	next.keys = r.sorted()
	u.index(pid, y, old.keys, next.keys)
	u.parts.Insert([]byte(pid), next)
	return next.value
}

func (u *run) forget(pid string) {
	if p, ok := u.parts.Get([]byte(pid)); ok {
		u.index(pid, unit{}, p.keys, nil)
		u.parts.Delete([]byte(pid))
	}
}

// index replaces the Keys under which a unit is found. Both lists are sorted.
func (u *run) index(id string, x unit, old, next []federation.Key) {
	eachDiff(old, next, func(k string) {
		u.readers.Delete([]byte(k + readerSep + id))
	}, func(k string) {
		u.readers.Insert([]byte(k+readerSep+id), x)
	})
}

// need counts references; what is needed newly or no more is queued.
func (u *run) need(old, next needs) {
	count := func(x unit, by int) {
		id := x.id()
		n, _ := u.refs.Get([]byte(id))
		if n+by > 0 {
			u.refs.Insert([]byte(id), n+by)
		} else {
			u.refs.Delete([]byte(id))
		}
		if n == 0 || n+by == 0 {
			u.enqueue(x)
		}
	}
	for x := range next {
		if _, ok := old[x]; !ok {
			count(x, 1)
		}
	}
	for x := range old {
		if _, ok := next[x]; !ok {
			count(x, -1)
		}
	}
}

func (u *run) put(x unit, out output) {
	key := FrontendKey{Kind: x.kind, Namespace: x.namespace, Name: x.name, Cluster: x.cluster}.String()
	switch x.class {
	case unitFrontend:
		place(u.frontends, key, out.frontend, &u.delta.Frontends)
	case unitRemoteFrontend:
		place(u.remotes, key, out.frontend, &u.delta.Remotes)
	case unitGateway:
		if old, ok := u.gateways.Get([]byte(x.namespace + "/" + x.name)); ok {
			keepTables(old, out.gateway)
		}
		place(u.gateways, x.namespace+"/"+x.name, out.gateway, &u.delta.Gateways)
	case unitImport:
		place(u.imports, x.namespace+"/"+x.name, out.imp, &u.delta.Imports)
	case unitTravel:
		place(u.travels, x.namespace+"/"+x.name, out.travel, &u.delta.Travels)
	case unitBackend:
		u.putBackend(x.backend.String(), out.backend)
	}
}

// keepTables puts old tables in the place of equal new ones, so that readers can
// tell by their pointers which hosts of a Gateway changed.
func keepTables(old, next *Gateway) {
	if next == nil {
		return
	}
	tables := map[[2]string]*RouteTable{}
	for _, l := range old.Listeners {
		for _, h := range l.Hosts {
			tables[[2]string{l.Key(), h.Hostname}] = h.Table
		}
	}
	for _, l := range next.Listeners {
		for i := range l.Hosts {
			h := &l.Hosts[i]
			if t := tables[[2]string{l.Key(), h.Hostname}]; t != nil && sameTable(t, h.Table) {
				h.Table = t
			}
		}
	}
}

func sameTable(a, b *RouteTable) bool {
	return slices.EqualFunc(a.Rules, b.Rules, func(x, y *Rule) bool { return x == y || reflect.DeepEqual(x, y) }) &&
		(a.Forward == b.Forward || reflect.DeepEqual(a.Forward, b.Forward))
}

func (u *run) putBackend(key string, b *Backend) {
	old, had := u.backends.Get([]byte(key))
	switch {
	case b == nil:
		if had {
			u.backends.Delete([]byte(key))
			u.delta.BackendConfigs = append(u.delta.BackendConfigs, key)
		}
	case !had || !reflect.DeepEqual(old.Config, b.Config):
		u.backends.Insert([]byte(key), b)
		u.delta.BackendConfigs = append(u.delta.BackendConfigs, key)
	case !sameGroups(old.Groups, b.Groups):
		u.backends.Insert([]byte(key), b)
		u.delta.BackendEndpoints = append(u.delta.BackendEndpoints, key)
	}
}

func sameGroups(a, b []EndpointGroup) bool {
	return slices.EqualFunc(a, b, func(x, y EndpointGroup) bool {
		return x.Cluster == y.Cluster && x.Region == y.Region && x.Zone == y.Zone && x.Priority == y.Priority && x.Crossing == y.Crossing && slices.Equal(x.Endpoints, y.Endpoints)
	})
}

// putAll puts what a unit yields in the place of what stood under its keys before.
func putAll[T any](t *iradix.Txn[*T], old []string, next []*T, key func(*T) string, delta *[]string) {
	for _, k := range old {
		if !slices.ContainsFunc(next, func(v *T) bool { return key(v) == k }) {
			place(t, k, nil, delta)
		}
	}
	for _, v := range next {
		place(t, key(v), v, delta)
	}
}

// place puts v under key, or takes away what is there if v is nil; a value equal
// to the old one leaves the old pointer.
func place[T any](t *iradix.Txn[*T], key string, v *T, delta *[]string) {
	old, had := t.Get([]byte(key))
	switch {
	case v == nil && had:
		t.Delete([]byte(key))
	case v != nil && (!had || !reflect.DeepEqual(old, v)):
		t.Insert([]byte(key), v)
	default:
		return
	}
	*delta = append(*delta, key)
}

// eachDiff walks two sorted lists and calls gone and come for what is in one alone.
func eachDiff[T ~string](old, next []T, gone, come func(string)) {
	i, j := 0, 0
	for i < len(old) || j < len(next) {
		switch {
		case j == len(next) || (i < len(old) && old[i] < next[j]):
			gone(string(old[i]))
			i++
		case i == len(old) || old[i] > next[j]:
			come(string(next[j]))
			j++
		default:
			i, j = i+1, j+1
		}
	}
}
