package kubernetes

import (
	"cmp"
	"maps"
	"reflect"
	"slices"
	"sync"
	"time"

	"github.com/causeway-mesh/causeway/cluster"
)

// state is all that is known of the cluster. Reflectors put in what they read;
// the one goroutine of Source.Run takes out what has changed.
type state struct {
	wake chan struct{} // 1 deep: something can be taken

	mu       sync.Mutex
	kinds    map[cluster.Kind]*kept
	pending  map[cluster.Ref]*cluster.Object // nil: gone
	since    time.Time                       // when pending became non-empty
	taken    bool                            // a batch is being delivered
	touched  map[cluster.Ref]struct{}        // their Live has changed
	problems map[string]cluster.Problem      // by what they concern
	reworded bool                            // problems have changed
	advanced chan struct{}                   // closed and replaced whenever anything arrives
	referred uint64                          // counts changes of what refers to Secrets and ConfigMaps
}

// writer is who may put things into a state, until it is shut: what a reflector
// has to say after it was told to stop counts no more.
type writer struct{ shut bool } // under state.mu

// kept is what is known of one kind.
type kept struct {
	exists  bool // the API server serves it
	synced  bool // a full set of it has arrived
	entries map[cluster.Ref]*entry
	// upTo is the newest resourceVersion of the kind that is included.
	upTo uint64
}

// entry is one object as it was last read.
type entry struct {
	object *cluster.Object // nil for hidden kinds
	live   *Live           // nil for kinds without a status that matters
	rv     uint64          // 0: from the copy on disk
}

func newState() *state {
	s := &state{wake: make(chan struct{}, 1), kinds: map[cluster.Kind]*kept{}, pending: map[cluster.Ref]*cluster.Object{}, touched: map[cluster.Ref]struct{}{},
		problems: map[string]cluster.Problem{}, advanced: make(chan struct{})}
	for _, r := range resources {
		s.kinds[r.kind] = &kept{exists: !r.custom, entries: map[cluster.Ref]*entry{}}
	}
	return s
}

// notify wakes who takes and who waits. s.mu is held.
func (s *state) notify() {
	select {
	case s.wake <- struct{}{}:
	default:
	}
	close(s.advanced)
	s.advanced = make(chan struct{})
}

// put takes an object as it is now. s.mu is held.
func (s *state) put(k *kept, ref cluster.Ref, it *item) {
	old := k.entries[ref]
	e := &entry{object: it.object, live: it.live, rv: it.rv}
	if old != nil && old.object != nil && e.object != nil && same(old.object, e.object) {
		e.object = old.object // pointers of what did not change stay the same
	} else if e.object != nil {
		s.pend(ref, e.object)
	}
	if e.live != nil || (old != nil && old.live != nil) {
		s.touched[ref] = struct{}{}
	}
	k.entries[ref] = e
	k.upTo = max(k.upTo, it.rv)
}

// drop forgets an object. s.mu is held.
func (s *state) drop(k *kept, ref cluster.Ref) {
	old := k.entries[ref]
	if old == nil {
		return
	}
	delete(k.entries, ref)
	if old.object != nil {
		s.pend(ref, nil)
	}
	if old.live != nil {
		s.touched[ref] = struct{}{}
	}
}

// touch says that what the status of all objects of a kind depends on has changed.
func (s *state) touch(kind cluster.Kind) {
	s.mu.Lock()
	defer s.mu.Unlock()
	for ref, e := range s.kinds[kind].entries {
		if e.live != nil {
			s.touched[ref] = struct{}{}
		}
	}
	s.notify()
}

func (s *state) pend(ref cluster.Ref, o *cluster.Object) {
	if len(s.pending) == 0 {
		s.since = time.Now()
	}
	s.pending[ref] = o
	if refers[ref.Kind] {
		s.referred++
	}
}

// same reports whether two states of an object mean the same to readers.
func same(a, b *cluster.Object) bool {
	return a.Seniority.Created.Equal(b.Seniority.Created) && reflect.DeepEqual(a.Value, b.Value)
}

// set puts one object.
func (s *state) set(w *writer, kind cluster.Kind, it *item) {
	s.mu.Lock()
	defer s.mu.Unlock()
	if w.shut {
		return
	}
	s.put(s.kinds[kind], refOf(kind, it), it)
	s.notify()
}

// remove drops one object; rv is the version of its deletion.
func (s *state) remove(w *writer, kind cluster.Kind, it *item) {
	s.mu.Lock()
	defer s.mu.Unlock()
	if w.shut {
		return
	}
	k := s.kinds[kind]
	s.drop(k, refOf(kind, it))
	k.upTo = max(k.upTo, it.rv)
	s.notify()
}

// replace makes items the whole of what covers reports, which is the kind, or one
// object of it.
func (s *state) replace(w *writer, kind cluster.Kind, items []*item, rv uint64, covers func(cluster.Ref) bool) {
	s.mu.Lock()
	defer s.mu.Unlock()
	if w.shut {
		return
	}
	k := s.kinds[kind]
	fresh := make(map[cluster.Ref]bool, len(items))
	for _, it := range items {
		ref := refOf(kind, it)
		fresh[ref] = true
		s.put(k, ref, it)
	}
	for ref := range k.entries {
		if !fresh[ref] && covers(ref) {
			s.drop(k, ref)
		}
	}
	k.upTo = max(k.upTo, rv)
	s.notify()
}

// shut ends a writer.
func (s *state) shut(w *writer) {
	s.mu.Lock()
	defer s.mu.Unlock()
	w.shut = true
}

// arrived says that a kind has been read in full.
func (s *state) arrived(w *writer, kind cluster.Kind) {
	s.mu.Lock()
	defer s.mu.Unlock()
	if w.shut {
		return
	}
	s.kinds[kind].synced = true
	s.notify()
}

// exist says whether a kind is served. One that isn't is empty, and complete.
func (s *state) exist(kind cluster.Kind, exists bool) {
	s.mu.Lock()
	defer s.mu.Unlock()
	k := s.kinds[kind]
	if k.exists == exists && (exists || len(k.entries) == 0) {
		return
	}
	k.exists = exists
	if !exists {
		k.synced, k.upTo = false, 0
		for ref := range k.entries {
			s.drop(k, ref)
		}
	}
	s.notify()
}

// missing lists the kinds that are served and have not been read in full.
func (s *state) missing() []cluster.Kind {
	s.mu.Lock()
	defer s.mu.Unlock()
	var out []cluster.Kind
	for _, r := range resources {
		if k := s.kinds[r.kind]; k.exists && !k.synced && !r.single {
			out = append(out, r.kind)
		}
	}
	return out
}

// changes is what take gives.
type changes struct {
	events   []cluster.Event
	problems *[]cluster.Problem
	touched  []cluster.Ref
	oldest   time.Time // when the first of the events arrived
	objects  map[cluster.Kind]int
}

// take gives all that has changed since the last time, events in the order of
// cluster.Kinds, namespace and name.
func (s *state) take() changes {
	s.mu.Lock()
	defer s.mu.Unlock()
	c := changes{oldest: s.since, objects: map[cluster.Kind]int{}}
	for ref, o := range s.pending {
		c.events = append(c.events, cluster.Event{Ref: ref, Object: o})
	}
	s.pending, s.taken = map[cluster.Ref]*cluster.Object{}, true
	slices.SortFunc(c.events, func(a, b cluster.Event) int {
		return cmp.Or(cmp.Compare(slices.Index(cluster.Kinds, a.Ref.Kind), slices.Index(cluster.Kinds, b.Ref.Kind)),
			cmp.Compare(a.Ref.Namespace, b.Ref.Namespace), cmp.Compare(a.Ref.Name, b.Ref.Name))
	})
	if s.reworded {
		s.reworded = false
		list := s.problemList()
		c.problems = &list
	}
	for ref := range s.touched {
		c.touched = append(c.touched, ref)
	}
	clear(s.touched)
	for kind, k := range s.kinds {
		c.objects[kind] = len(k.entries)
	}
	return c
}

// takeProblems gives the problems alone, if they have changed.
func (s *state) takeProblems() changes {
	s.mu.Lock()
	defer s.mu.Unlock()
	if !s.reworded {
		return changes{}
	}
	s.reworded = false
	list := s.problemList()
	return changes{problems: &list}
}

// sent says that what was taken has been delivered.
func (s *state) sent() {
	s.mu.Lock()
	defer s.mu.Unlock()
	s.taken = false
	close(s.advanced)
	s.advanced = make(chan struct{})
}

// again puts back what could not be delivered.
func (s *state) again(c changes) {
	s.mu.Lock()
	defer s.mu.Unlock()
	for _, e := range c.events {
		if _, newer := s.pending[e.Ref]; !newer {
			s.pend(e.Ref, e.Object)
		}
	}
	s.reworded = s.reworded || c.problems != nil
	for _, ref := range c.touched {
		s.touched[ref] = struct{}{}
	}
}

// problem notes what a person has to mend, or that it is mended.
func (s *state) problem(about string, p *cluster.Problem) {
	s.mu.Lock()
	defer s.mu.Unlock()
	old, had := s.problems[about]
	switch {
	case p == nil && !had, p != nil && had && old == *p:
		return
	case p == nil:
		delete(s.problems, about)
	default:
		s.problems[about] = *p
	}
	s.reworded = true
	s.notify()
}

func (s *state) problemList() []cluster.Problem {
	out := make([]cluster.Problem, 0, len(s.problems))
	for _, about := range slices.Sorted(maps.Keys(s.problems)) {
		out = append(out, s.problems[about])
	}
	return out
}

// all lists the objects of a kind, in no order. s.mu is not held.
func (s *state) all(kind cluster.Kind) []*cluster.Object {
	s.mu.Lock()
	defer s.mu.Unlock()
	out := make([]*cluster.Object, 0, len(s.kinds[kind].entries))
	for _, e := range s.kinds[kind].entries {
		if e.object != nil {
			out = append(out, e.object)
		}
	}
	return out
}

// live finds what the API server said of an object.
func (s *state) live(ref cluster.Ref) (*Live, bool) {
	s.mu.Lock()
	defer s.mu.Unlock()
	k := s.kinds[ref.Kind]
	if k == nil || k.entries[ref] == nil || k.entries[ref].live == nil {
		return nil, false
	}
	return k.entries[ref].live, true
}

func refOf(kind cluster.Kind, it *item) cluster.Ref {
	return cluster.Ref{Kind: kind, Namespace: it.Namespace, Name: it.Name}
}
