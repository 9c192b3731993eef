package policy

import (
	"cmp"
	"fmt"
	"path"
	"slices"
	"strings"

	"k8s.io/apimachinery/pkg/labels"
)

// Verb is what a cluster does with a namespace.
type Verb string

// The verbs.
const (
	Export Verb = "export" // its Services to other clusters
	Route  Verb = "route"  // requests in other clusters
)

// Set is all policies together, ready to be asked. A nil Set has none.
type Set struct {
	policies []compiled // by name
}

type compiled struct {
	Policy
	selector labels.Selector
}

// Compile takes policies that Check lets pass. It keeps them, and they must not
// change any more.
func Compile(policies []Policy) (*Set, error) {
	s := &Set{}
	for _, p := range policies {
		c := compiled{Policy: p, selector: labels.Everything()}
		if p.Clusters != nil {
			var err error
			if c.selector, err = labels.Parse(p.Clusters.Selector); err != nil {
				return nil, fmt.Errorf("policy %q: clusters.selector: %w", p.Name, err)
			}
		}
		s.policies = append(s.policies, c)
	}
	slices.SortFunc(s.policies, func(a, b compiled) int { return cmp.Compare(a.Name, b.Name) })
	return s, nil
}

// Rules are what all policies say of one cluster. Equal ones are DeepEqual; nil
// ones restrict nothing.
type Rules struct {
	Cluster string
	// Objects and Bytes are the quotas that hold, nil for none.
	Objects, Bytes *Limit
	verbs          map[Verb]verbRules
}

// Limit is a quota, and the policy that sets it.
type Limit struct {
	Most   int64
	Policy string
}

type verbRules struct{ deny, allow []rule }

type rule struct {
	policy   string
	patterns []string
}

func (r rule) matches(namespace string) bool { return matchAny(r.patterns, namespace) }

// For gives what holds for a cluster with these labels, of which "name" is its name.
func (s *Set) For(cluster labels.Set) *Rules {
	if s == nil {
		return nil
	}
	r := &Rules{Cluster: cluster["name"], verbs: map[Verb]verbRules{}}
	said := false
	for _, p := range s.policies {
		if p.Clusters != nil && (len(p.Clusters.Names) > 0 && !matchAny(p.Clusters.Names, r.Cluster) || !p.selector.Matches(cluster)) {
			continue
		}
		said = true
		r.add(Export, p.Name, p.Export)
		r.add(Route, p.Name, p.Route)
		if p.Quota != nil {
			r.Objects = r.Objects.least(p.Quota.Objects, p.Name)
			r.Bytes = r.Bytes.least(p.Quota.Bytes, p.Name)
		}
	}
	if !said {
		return nil
	}
	return r
}

func (r *Rules) add(v Verb, name string, n *Namespaces) {
	if n == nil {
		return
	}
	x := r.verbs[v]
	if len(n.Deny) > 0 {
		x.deny = append(x.deny, rule{name, n.Deny})
	}
	if n.Allow != nil {
		x.allow = append(x.allow, rule{name, n.Allow})
	}
	r.verbs[v] = x
}

func (l *Limit) least(n *int64, policy string) *Limit {
	if n == nil || l != nil && l.Most <= *n {
		return l
	}
	return &Limit{*n, policy}
}

// Refuses tells why the cluster may not do that with a namespace, empty if it may.
func (r *Rules) Refuses(v Verb, namespace string) string {
	if r == nil {
		return ""
	}
	x := r.verbs[v]
	for _, d := range x.deny {
		if d.matches(namespace) {
			return fmt.Sprintf("policy %q does not let %s; %s", d.policy, v.what("cluster "+r.Cluster, "routes of cluster "+r.Cluster+", namespace", namespace), ask)
		}
	}
	if len(x.allow) == 0 || slices.ContainsFunc(x.allow, func(a rule) bool { return a.matches(namespace) }) {
		return ""
	}
	names := make([]string, 0, len(x.allow))
	for _, a := range x.allow {
		names = append(names, fmt.Sprintf("%q", a.policy))
	}
	return fmt.Sprintf("none of the policies for cluster %s (%s) lets %s; %s", r.Cluster, someOf(names), v.what("it", "its routes of namespace", namespace), ask)
}

// what says what a cluster, or routes, do with a namespace.
func (v Verb) what(cluster, routes, namespace string) string {
	if v == Export {
		return fmt.Sprintf("%s export Services of namespace %q", cluster, namespace)
	}
	return fmt.Sprintf("%s %q govern requests in other clusters", routes, namespace)
}

// Quota tells why an object is not used that does not fit any more.
func (r *Rules) Quota(objects bool) string {
	l, what := r.Bytes, "bytes"
	if objects {
		l, what = r.Objects, "objects"
	}
	return fmt.Sprintf("cluster %s has more than the %d %s that policy %q lets it have in the store, and what is older comes first; delete what is not needed, or %s", r.Cluster, l.Most, what, l.Policy, ask)
}

const ask = "ask the administrators of the clusterset"

// someOf lists some names, however many there are.
func someOf(names []string) string {
	const most = 5
	if len(names) > most {
		return fmt.Sprintf("%s and %d more", strings.Join(names[:most], ", "), len(names)-most)
	}
	return strings.Join(names, ", ")
}

// matchAny compares with patterns that Check lets pass: of what path.Match knows,
// they have "*" alone, and names have no "/".
func matchAny(patterns []string, name string) bool {
	return slices.ContainsFunc(patterns, func(p string) bool {
		ok, _ := path.Match(p, name)
		return ok
	})
}
