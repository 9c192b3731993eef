package policy

import (
	"errors"
	"fmt"
	"regexp"
	"slices"

	"k8s.io/apimachinery/pkg/labels"
	"k8s.io/apimachinery/pkg/util/validation"
)

// Policy is one of the administrators' policies. A part that is nil says nothing.
type Policy struct {
	// Name is a DNS label.
	Name string
	// Clusters is whom it is about; nil: all.
	Clusters *Clusters
	// Export is about ServiceExports, Route about routes, Gateways and ListenerSets
	// that would reach other clusters. The namespace is the object's own.
	Export, Route *Namespaces
	// Quota bounds what a cluster's prefix in the store may hold.
	Quota *Quota
}

// Clusters selects clusters. Where both are given, both must hold.
type Clusters struct {
	// Names are names or patterns; empty: any.
	Names []string `json:"names,omitempty"`
	// Selector is a label selector over name, region, zone and network, as in the
	// annotation causeway.dev/clusters; empty: any. All but the name is what a
	// cluster says of itself.
	Selector string `json:"selector,omitempty"`
}

// Namespaces are lists of names or patterns, in which "*" stands for any characters.
type Namespaces struct {
	// Allow, if not nil, has all that is allowed, save what another policy allows.
	Allow []string `json:"allow,omitzero"`
	// Deny is refused, whoever allows it.
	Deny []string `json:"deny,omitempty"`
}

// Quota bounds what of a cluster is used, the oldest first. Nil: no bound.
type Quota struct {
	// Objects counts records of the store: an exported Service with its
	// ServiceExport is one, and so is each of its EndpointSlices.
	Objects *int64
	// Bytes counts their keys and values.
	Bytes *int64
}

// Bounds of a Policy.
const (
	// MaxPolicies is how many there may be.
	MaxPolicies = 1000
	maxItems    = 1000 // of a list
	maxSelector = 4096 // bytes
	maxQuota    = 1 << 50
)

var pattern = regexp.MustCompile(`^[a-z0-9*]([-a-z0-9*]{0,61}[a-z0-9*])?$`)

// Check tells why a Policy can't be used.
func (p *Policy) Check() error {
	if len(validation.IsDNS1123Label(p.Name)) > 0 {
		return fmt.Errorf("name %.80q is not a DNS label: use at most 63 lower-case letters, digits and '-'", p.Name)
	}
	if p.Export == nil && p.Route == nil && p.Quota == nil {
		return errors.New("says nothing: give export, route or quota")
	}
	if c := p.Clusters; c != nil {
		if len(c.Names) == 0 && c.Selector == "" {
			return errors.New("clusters: give names or a selector, or leave it out for all clusters")
		}
		if err := checkPatterns(c.Names); err != nil {
			return fmt.Errorf("clusters.names: %w", err)
		}
		if len(c.Selector) > maxSelector {
			return fmt.Errorf("clusters.selector has %d bytes, at most %d are possible", len(c.Selector), maxSelector)
		}
		sel, err := labels.Parse(c.Selector)
		if err != nil {
			return fmt.Errorf("clusters.selector: %w", err)
		}
		reqs, _ := sel.Requirements()
		for _, r := range reqs {
			if !slices.Contains(clusterLabels, r.Key()) {
				return fmt.Errorf("clusters.selector: clusters have no label %q; they have %q", r.Key(), clusterLabels)
			}
		}
	}
	for _, l := range []struct {
		field string
		n     *Namespaces
	}{{"export", p.Export}, {"route", p.Route}} {
		if l.n == nil {
			continue
		}
		if l.n.Allow == nil && len(l.n.Deny) == 0 {
			return fmt.Errorf("%s: give allow or deny; `allow: []` allows nothing", l.field)
		}
		if err := checkPatterns(l.n.Allow); err != nil {
			return fmt.Errorf("%s.allow: %w", l.field, err)
		}
		if err := checkPatterns(l.n.Deny); err != nil {
			return fmt.Errorf("%s.deny: %w", l.field, err)
		}
	}
	if q := p.Quota; q != nil {
		if q.Objects == nil && q.Bytes == nil {
			return errors.New("quota: give objects or bytes")
		}
		for _, l := range []struct {
			field string
			n     *int64
		}{{"objects", q.Objects}, {"bytes", q.Bytes}} {
			if l.n != nil && (*l.n < 0 || *l.n > maxQuota) {
				return fmt.Errorf("quota.%s is %d, not from 0 to %d", l.field, *l.n, int64(maxQuota))
			}
		}
	}
	return nil
}

// clusterLabels are the labels that Set.For is given.
var clusterLabels = []string{"name", "region", "zone", "network"}

func checkPatterns(list []string) error {
	if len(list) > maxItems {
		return fmt.Errorf("has %d items, at most %d are possible", len(list), maxItems)
	}
	for _, s := range list {
		if !pattern.MatchString(s) {
			return fmt.Errorf("%.80q is neither a name nor a pattern: use at most 63 lower-case letters, digits, '-' and '*', which stands for any characters", s)
		}
	}
	return nil
}
