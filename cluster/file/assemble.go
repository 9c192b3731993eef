package file

import (
	"cmp"
	"fmt"
	"maps"
	"path"
	"slices"
	"strings"
	"time"

	appsv1 "k8s.io/api/apps/v1"
	corev1 "k8s.io/api/core/v1"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"

	"github.com/causeway-mesh/causeway/cluster"
	"github.com/causeway-mesh/causeway/cluster/workload"
)

// maxProblems bounds the list that is delivered.
const maxProblems = 1000

// claim is an object with the file that it is taken from.
type claim struct {
	*parsed
	path string
}

// assembly is what the folder says as a whole.
type assembly struct {
	claims   []claim // in the order of files and documents
	problems []placed
	meta     cluster.Meta
}

// assemble merges the files. Of two objects with one name the first by path and
// place in the file wins, except that objects which are only kept, or whose
// file is about to change, yield without a word: they are the remains of an
// edit that moves them. It is pure.
func assemble(byPath map[string]*tracked, maxObjects int) assembly {
	var a assembly
	first := map[cluster.Ref]claim{}
	full := false
	take := func(name string, o *parsed, quiet bool) {
		if before, twice := first[o.ref]; twice {
			if !quiet {
				a.problems = append(a.problems, placed{name, problem{o.line, o.ref.String(), fmt.Sprintf(
					"given twice: the one at %s:%d is used, this one is left out", before.path, before.line)}})
			}
			return
		}
		if len(first) >= maxObjects {
			if !full {
				full = true
				a.problems = append(a.problems, placed{name, problem{o.line, o.ref.String(), fmt.Sprintf(
					"the folder has more than %d objects: this one and those after it are left out", maxObjects)}})
			}
			return
		}
		c := claim{o, name}
		first[o.ref] = c
		a.claims = append(a.claims, c)
	}
	names := slices.Sorted(maps.Keys(byPath))
	for _, name := range names {
		t := byPath[name]
		for _, p := range t.problems {
			a.problems = append(a.problems, placed{name, p})
		}
		if t.meta != nil {
			a.meta = *t.meta
		}
		if !t.held {
			for _, o := range t.objects {
				take(name, o, false)
			}
		}
	}
	for _, name := range names {
		t := byPath[name]
		if t.held {
			for _, o := range t.objects {
				take(name, o, true)
			}
		}
		for _, o := range t.kept {
			take(name, o, true)
		}
	}
	return a
}

// ages gives objects without a creationTimestamp one: those found at start in
// the order of files, later ones in the order in which they were seen.
type ages struct {
	byRef map[cluster.Ref]time.Time
	last  time.Time
}

// firstAge is when the first object of a folder counts as created. A time in
// the past keeps all that is found at start senior to all that is added later,
// the same at each start.
var firstAge = time.Date(2020, time.January, 1, 0, 0, 0, 0, time.UTC)

func (g *ages) assign(claims []claim, now time.Time) map[cluster.Ref]time.Time {
	step, next := time.Second, firstAge
	if g.byRef != nil {
		step, next = time.Microsecond, now.UTC().Truncate(time.Microsecond)
		if !next.After(g.last) {
			next = g.last.Add(step)
		}
	}
	out := make(map[cluster.Ref]time.Time, len(claims))
	for _, c := range claims {
		if !c.created.IsZero() {
			out[c.ref] = c.created
			continue
		}
		if t, ok := g.byRef[c.ref]; ok {
			out[c.ref] = t
			continue
		}
		out[c.ref], g.last = next, next
		next = next.Add(step)
	}
	g.byRef = out
	return out
}

// objects turns claims into what is delivered, with the namespaces that are
// used but not declared, and into the input of the workload manager.
func (s *Source) objects(a assembly, now time.Time) (map[cluster.Ref]*cluster.Object, workload.Input) {
	created := s.ages.assign(a.claims, now)
	out := make(map[cluster.Ref]*cluster.Object, len(a.claims))
	in := workload.Input{Taken: map[cluster.Ref]bool{}, Secrets: map[string]*corev1.Secret{}}
	used := map[string]bool{metav1.NamespaceDefault: true}
	for _, c := range a.claims {
		used[c.ref.Namespace] = true
		origin := s.where(c.path, c.line)
		switch v := c.value.(type) {
		case *appsv1.Deployment:
			in.Deployments = append(in.Deployments, workload.Deployment{Deployment: v, Origin: origin})
			continue
		case *corev1.Service:
			in.Services = append(in.Services, workload.Service{Service: v, Origin: origin})
		case *corev1.Secret:
			if v.Type == corev1.SecretTypeTLS {
				in.Secrets[v.Namespace+"/"+v.Name] = v
			}
		case *cluster.EndpointSlice:
			in.Taken[c.ref] = true
		}
		out[c.ref] = &cluster.Object{Ref: c.ref, Cluster: s.cfg.Cluster, Seniority: cluster.Seniority{Created: created[c.ref]}, Value: c.value, Origin: origin}
	}
	delete(used, "")
	for name := range used {
		ref := cluster.Ref{Kind: cluster.KindNamespace, Name: name}
		if out[ref] == nil {
			out[ref] = &cluster.Object{Ref: ref, Cluster: s.cfg.Cluster, Seniority: cluster.Seniority{Created: firstAge}, Value: &corev1.Namespace{
				TypeMeta:   metav1.TypeMeta{APIVersion: "v1", Kind: string(cluster.KindNamespace)},
				ObjectMeta: metav1.ObjectMeta{Name: name, Labels: withName(nil, name)},
			}}
		}
	}
	return out, in
}

// where names a place in a file as people look for it.
func (s *Source) where(name string, line int) string {
	name = path.Join(s.cfg.Prefix, name)
	if line <= 0 {
		return name
	}
	return fmt.Sprintf("%s:%d", name, line)
}

// fileOf takes the line off an origin.
func fileOf(origin string) string {
	if i := strings.LastIndexByte(origin, ':'); i >= 0 {
		return origin[:i]
	}
	return origin
}

// report turns problems into the list that is delivered.
func (s *Source) report(found []placed, more []cluster.Problem) []cluster.Problem {
	slices.SortFunc(found, func(a, b placed) int {
		return cmp.Or(cmp.Compare(a.path, b.path), cmp.Compare(a.line, b.line), cmp.Compare(a.object, b.object), cmp.Compare(a.message, b.message))
	})
	out := make([]cluster.Problem, 0, len(found)+len(more))
	for _, p := range found {
		out = append(out, cluster.Problem{Cluster: s.cfg.Cluster, Where: s.where(p.path, p.line), Object: p.object, Message: p.message})
	}
	out = append(out, more...)
	if n := len(out) - maxProblems; n > 0 {
		out = append(out[:maxProblems:maxProblems], cluster.Problem{Cluster: s.cfg.Cluster, Message: fmt.Sprintf("and %d more problems", n)})
	}
	return out
}

// changes lists how the delivered objects must change, in the order of
// cluster.Kinds, namespace and name. An object that is the same keeps its old
// value, so that what readers compare by pointer stays equal.
func changes(old, want map[cluster.Ref]*cluster.Object, same func(a, b *cluster.Object) bool) (events []cluster.Event) {
	for ref, o := range want {
		if before := old[ref]; before != nil && same(before, o) {
			want[ref] = before
			continue
		}
		events = append(events, cluster.Event{Ref: ref, Object: o})
	}
	for ref := range old {
		if want[ref] == nil {
			events = append(events, cluster.Event{Ref: ref})
		}
	}
	slices.SortFunc(events, func(a, b cluster.Event) int {
		return cmp.Or(cmp.Compare(slices.Index(cluster.Kinds, a.Ref.Kind), slices.Index(cluster.Kinds, b.Ref.Kind)),
			cmp.Compare(a.Ref.Namespace, b.Ref.Namespace), cmp.Compare(a.Ref.Name, b.Ref.Name))
	})
	return events
}
