package resolve

import (
	"net/http"
	"slices"

	"github.com/causeway-mesh/causeway/cluster"
)

// FailureStatus is the status of requests that a route can't serve. GRPCRoute asks
// for UNAVAILABLE, which is what 503 is to a gRPC client, HTTPRoute for 500.
func (id RouteID) FailureStatus() int {
	if id.Kind == cluster.KindGRPCRoute {
		return http.StatusServiceUnavailable
	}
	return http.StatusInternalServerError
}

// Live lists the shares that get requests, with the sum of their weights; none if
// all of them are invalid: then the rule as a whole can't be served.
func (r *Rule) Live() (live []*WeightedBackend, sum uint64) {
	usable := false
	for i := range r.Backends {
		if b := &r.Backends[i]; b.Weight > 0 {
			live = append(live, b)
			sum += uint64(b.Weight)
			usable = usable || b.Invalid == ""
		}
	}
	if !usable {
		return nil, 0
	}
	return live, sum
}

// Pinned lists the shares with which sessions stay, whatever their weights become,
// zero included; none where the rule keeps no sessions, or has one such share alone.
func (r *Rule) Pinned() (out []*WeightedBackend) {
	if r.Session == nil {
		return nil
	}
	seen := map[BackendKey]bool{}
	for i := range r.Backends {
		if b := &r.Backends[i]; b.Invalid == "" && b.Redirect == nil && !seen[b.Backend] {
			seen[b.Backend] = true
			out = append(out, b)
		}
	}
	if len(out) < 2 {
		return nil
	}
	return out
}

// Divided reports whether each share of a rule is treated by itself, as if it were
// a rule of its own: because a share has filters beyond header modifiers, or because
// clients stay with their share. What answers requests without a backend then
// answers for each share.
func (r *Rule) Divided() bool {
	return len(r.Pinned()) > 0 || slices.ContainsFunc(r.Backends, func(b WeightedBackend) bool {
		f, w := &b.Filters, r.Filters.Rewrite
		return b.Weight > 0 && (b.Redirect != nil || f.CORS != nil || f.Auth != nil || len(f.Mirrors) > 0 ||
			f.Rewrite != nil && (f.Rewrite.ChangesPath() || w != nil && w.ChangesPath()))
	})
}

// Then gives a rule's filters with those of a share: what can be there once is the
// share's, if it has one, and mirrors add up. Header modifiers are not joined: they
// apply one after the other.
func (f Filters) Then(share Filters) Filters {
	if share.Rewrite != nil {
		f.Rewrite = share.Rewrite
	}
	if share.CORS != nil {
		f.CORS = share.CORS
	}
	if share.Auth != nil {
		f.Auth = share.Auth
	}
	f.Mirrors = slices.Concat(f.Mirrors, share.Mirrors)
	return f
}
