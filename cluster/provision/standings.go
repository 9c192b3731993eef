package provision

import (
	"maps"
	"slices"
	"sync"

	"github.com/prometheus/client_golang/prometheus"

	"github.com/causeway-mesh/causeway/cluster"
)

// standings keeps how what is provided for stands, by name, and what is wrong with it. Any
// goroutine may use it.
type standings[S any] struct {
	local cluster.ID
	kind  cluster.Kind
	equal func(a, b S) bool
	// changed is told of names that stand differently.
	changed func([]Name)
	// warn is told of a problem that was not there before.
	warn  func(n Name, problem string)
	count prometheus.Gauge // of problems

	mu       sync.Mutex
	standing map[Name]S
	problems map[Name]string
}

// of tells how a name stands; false if nothing is known of it.
func (x *standings[S]) of(n Name) (S, bool) {
	x.mu.Lock()
	defer x.mu.Unlock()
	s, ok := x.standing[n]
	return s, ok
}

// stuck reports whether something was wrong with a name the last time.
func (x *standings[S]) stuck(n Name) bool {
	x.mu.Lock()
	defer x.mu.Unlock()
	return x.problems[n] != ""
}

// list gives what a person has to mend, sorted.
func (x *standings[S]) list() []cluster.Problem {
	x.mu.Lock()
	defer x.mu.Unlock()
	var out []cluster.Problem
	for _, n := range slices.SortedFunc(maps.Keys(x.problems), compareNames) {
		object := n.Ref(x.kind).String()
		out = append(out, cluster.Problem{Cluster: x.local, Where: object, Object: object, Message: x.problems[n]})
	}
	return out
}

// tell publishes how a name stands, nil for not at all, and what is wrong with it.
func (x *standings[S]) tell(n Name, s *S, problem string) {
	x.mu.Lock()
	if x.standing == nil {
		x.standing, x.problems = map[Name]S{}, map[Name]string{}
	}
	old, had := x.standing[n]
	differs := had != (s != nil)
	if s == nil {
		delete(x.standing, n)
	} else {
		differs = differs || !x.equal(old, *s)
		x.standing[n] = *s
	}
	fresh := problem != "" && x.problems[n] != problem
	if problem == "" {
		delete(x.problems, n)
	} else {
		x.problems[n] = problem
	}
	x.count.Set(float64(len(x.problems)))
	x.mu.Unlock()
	if fresh {
		x.warn(n, problem)
	}
	if differs {
		x.changed([]Name{n})
	}
}
