package resolvetest

import (
	"cmp"
	"hash/fnv"
	"path/filepath"
	"reflect"
	"slices"
	"testing"

	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
	gatewayv1 "sigs.k8s.io/gateway-api/apis/v1"

	"github.com/causeway-mesh/causeway/cluster"
	"github.com/causeway-mesh/causeway/federation"
)

// Fuzzer makes worlds of bytes: one of the worlds in a folder, changed here and
// there as the bytes say. It changes any field of any kind, the more often to
// what other worlds have in such a field, else to something odd that no schema
// would let through. Equal bytes make equal worlds. Safe for concurrent use.
type Fuzzer struct {
	names   []string
	worlds  map[string]World
	objects []*cluster.Object // of all worlds
	known   map[reflect.Type][]reflect.Value
}

// NewFuzzer reads the worlds in a folder, one a folder in it.
func NewFuzzer(t testing.TB, dir string) *Fuzzer {
	t.Helper()
	f := &Fuzzer{worlds: map[string]World{}, known: map[reflect.Type][]reflect.Value{}}
	cases, err := filepath.Glob(filepath.Join(dir, "*", "meta.yaml"))
	if err != nil || len(cases) == 0 {
		t.Fatalf("%s holds no worlds: %v", dir, err)
	}
	seen := map[any]bool{}
	know := func(v reflect.Value) {
		if x := v.Interface(); !seen[x] {
			seen[x] = true
			f.known[v.Type()] = append(f.known[v.Type()], v)
		}
	}
	for _, x := range enumerations {
		know(reflect.ValueOf(x))
	}
	for _, path := range cases {
		name := filepath.Base(filepath.Dir(path))
		w := Read(t, readDir(t, filepath.Dir(path)))
		f.names, f.worlds[name] = append(f.names, name), w
		f.objects = append(f.objects, w.Objects...)
		for _, o := range w.Objects {
			eachString(reflect.ValueOf(o.Value), know)
		}
	}
	return f
}

// Names lists the worlds to begin with.
func (f *Fuzzer) Names() []string { return f.names }

// maxEdits bounds the edits of a History, whatever the bytes ask for: Go's fuzzing takes
// an input of ten seconds for one that hangs, and machines are slow at times.
const maxEdits = 60

// History is a world and what becomes of it.
type History struct {
	// World is the beginning. Its objects are shared: they never change.
	World World
	// Local is the cluster to look at.
	Local cluster.ID

	edits editor
	of    *Fuzzer
	count int
	now   []*cluster.Object
	homes []federation.Cluster
}

// History begins with the named world, or with another one if there is none of that name.
func (f *Fuzzer) History(world string, edits []byte) *History {
	w, ok := f.worlds[world]
	if !ok {
		h := fnv.New32()
		_, _ = h.Write([]byte(world))
		w = f.worlds[f.names[int(h.Sum32()%uint32(len(f.names)))]]
	}
	h := &History{World: w, of: f, edits: editor{choices: &choices{rest: edits}, known: f.known}, now: slices.Clone(w.Objects), homes: slices.Clone(w.Clusters)}
	h.Local = oneOf(h.edits.choices, w.Clusters).ID
	return h
}

// Next makes some edits and applies them. It is false once all are made.
func (h *History) Next(to *federation.Edit) bool {
	if h.edits.done() || h.count >= maxEdits {
		return false
	}
	for n := 1 + h.edits.below(4); n > 0 && h.count < maxEdits; n-- {
		h.count++
		h.step(to)
	}
	return true
}

// Objects lists what there is after the edits so far.
func (h *History) Objects() []*cluster.Object { return h.now }

// put applies o; what can't be held, by its name, is as if it never was.
func (h *History) put(to *federation.Edit, o *cluster.Object) {
	if !keyed(o) {
		return
	}
	if to.Apply(federation.Change{Cluster: o.Cluster, Ref: o.Ref, Object: o}) != nil {
		return
	}
	if i := h.find(o); i >= 0 {
		h.now[i] = o
	} else {
		h.now = append(h.now, o)
	}
}

// keyed tells whether no two items of a list have the same key. That is what an
// API server, the manifest reader and the store's decoder never let through, and
// what everything else may take for granted.
func keyed(o *cluster.Object) bool {
	seen := map[gatewayv1.SectionName]bool{}
	switch v := o.Value.(type) {
	case *gatewayv1.Gateway:
		for _, l := range v.Spec.Listeners {
			seen[l.Name] = true
		}
		return len(seen) == len(v.Spec.Listeners)
	case *gatewayv1.ListenerSet:
		for _, l := range v.Spec.Listeners {
			seen[l.Name] = true
		}
		return len(seen) == len(v.Spec.Listeners)
	}
	return true
}

func (h *History) find(o *cluster.Object) int {
	return slices.IndexFunc(h.now, func(x *cluster.Object) bool { return x.Ref == o.Ref && x.Cluster == o.Cluster })
}

func (h *History) step(to *federation.Edit) {
	e := &h.edits
	op := e.below(16)
	if op == 0 {
		h.cluster(to)
		return
	}
	from := h.now
	if op == 1 || len(from) == 0 {
		from = h.of.objects
	}
	o := oneOf(e.choices, from)
	switch op {
	case 1: // of another world
		o = copyOf(o)
		o.Cluster = oneOf(e.choices, h.homes).ID
	case 2:
		_ = to.Apply(federation.Change{Cluster: o.Cluster, Ref: o.Ref})
		if i := h.find(o); i >= 0 {
			h.now = slices.Delete(h.now, i, i+1)
		}
		return
	case 3: // one more of the kind, with another's name or in another cluster
		o = copyOf(o)
		other := oneOf(e.choices, from)
		o.Cluster = oneOf(e.choices, h.homes).ID
		o.Seniority.Revision = int64(e.below(8))
		if _, named := o.Value.(metav1.Object); named && o.Namespace != "" && other.Namespace != "" {
			o.Namespace, o.Name = other.Namespace, other.Name
		}
	default:
		o = copyOf(o)
		e.edit(reflect.ValueOf(o.Value))
	}
	if m, ok := o.Value.(metav1.Object); ok {
		m.SetNamespace(o.Namespace)
		m.SetName(o.Name)
	}
	h.put(to, o)
}

func copyOf(o *cluster.Object) *cluster.Object {
	out := *o
	out.Value = clone(reflect.ValueOf(o.Value)).Interface()
	return &out
}

func (h *History) cluster(to *federation.Edit) {
	e := &h.edits
	c := &h.homes[e.below(len(h.homes))]
	switch e.below(5) {
	case 0:
		c.Health.Liveness = oneOf(e.choices, []federation.Liveness{federation.Alive, federation.Suspect, federation.Dead, ""})
	case 1:
		c.Drained = oneOf(e.choices, []int{0, 1, 50, 99, 100})
	default:
		c.Meta.Crossing = slices.Clone(c.Meta.Crossing)
		e.edit(reflect.ValueOf(&c.Meta).Elem())
		slices.SortFunc(c.Meta.Crossing, cmp.Compare)
	}
	to.SetCluster(*c)
}
