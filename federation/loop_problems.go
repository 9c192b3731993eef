package federation

import (
	"cmp"
	"errors"
	"fmt"
	"slices"

	"github.com/causeway-mesh/causeway/cluster"
	"github.com/causeway-mesh/causeway/federation/record"
)

// maxProblems bounds what is shown of one cluster's problems: no cluster may
// bury those of others.
const maxProblems = 200

// problems collects what is wrong, under a name each. It is the merger's.
type problems struct {
	local   cluster.ID
	found   map[string]cluster.Problem
	sourced []cluster.Problem // the local source's own list
	// stale says that settle has something to tell; before is what it told last.
	stale  bool
	before map[cluster.Problem]struct{}
}

func newProblems(local cluster.ID) problems {
	return problems{local: local, found: map[string]cluster.Problem{}, before: map[cluster.Problem]struct{}{}}
}

func (p *problems) set(name string, problem cluster.Problem) {
	if p.found[name] != problem {
		p.found[name] = problem
		p.stale = true
	}
}

func (p *problems) clear(name string) {
	if _, ok := p.found[name]; ok {
		delete(p.found, name)
		p.stale = true
	}
}

// failed notes why a record can't be used. The local cluster's own records are
// not read, so nothing is noted of them.
func (p *problems) failed(key string, err error) {
	var e *record.Error
	if !errors.As(err, &e) {
		e = &record.Error{Key: key, Err: err}
	}
	if p.local == "" || e.Cluster != p.local {
		p.set(key, e.Problem())
	}
}

func (p *problems) source(list []cluster.Problem) {
	p.sourced, p.stale = slices.Clone(list), true
}

// settle lists the problems, sorted, if they may have changed, and those among
// them that are new.
func (p *problems) settle() (all, news []cluster.Problem) {
	if !p.stale {
		return nil, nil
	}
	p.stale = false
	all = slices.Clone(p.sourced)
	for _, f := range p.found {
		all = append(all, f)
	}
	slices.SortFunc(all, func(a, b cluster.Problem) int {
		return cmp.Or(cmp.Compare(a.Cluster, b.Cluster), cmp.Compare(a.Where, b.Where), cmp.Compare(a.Object, b.Object), cmp.Compare(a.Message, b.Message))
	})
	all = bounded(all)
	next := make(map[cluster.Problem]struct{}, len(all))
	for _, f := range all {
		next[f] = struct{}{}
		if _, old := p.before[f]; !old && f.Cluster != p.local { // the source logs its own
			news = append(news, f)
		}
	}
	p.before = next
	return all, news
}

// bounded cuts each cluster's run in a sorted list.
func bounded(all []cluster.Problem) []cluster.Problem {
	out := all[:0:0]
	for len(all) > 0 {
		n := 1
		for n < len(all) && all[n].Cluster == all[0].Cluster {
			n++
		}
		out = append(out, all[:min(n, maxProblems)]...)
		if n > maxProblems {
			out = append(out, cluster.Problem{Cluster: all[0].Cluster, Message: fmt.Sprintf("and %d more problems", n-maxProblems)})
		}
		all = all[n:]
	}
	if out == nil {
		out = []cluster.Problem{}
	}
	return out
}
