package translate

import (
	"slices"

	"github.com/causeway-mesh/causeway/federation/resolve"
)

// roleShared is that of the pseudo-proxy whose State a Shared is. It has no
// listeners with an address.
const roleShared Role = "shared"

// Shared is what the sidecars of an agent have in common, whatever their namespace
// and addresses: the routes that govern everybody's requests, and the backends that
// those go to. A sidecar's State adds its listeners and secrets, and the routes that
// govern its own namespace alone, with what those need; they stand before the shared
// ones of the same name. So a change of endpoints is one change, however many
// sidecars there are, and they hold one copy.
//
// A sidecar may thus be given a backend that only others' routes go to. Immutable;
// read it from any goroutine.
type Shared struct {
	state *State
	// token names this Shared, and before the one that it was updated from, nil for none,
	// with what differs and the keys of the units that rest on it, see unitsOf. Tokens
	// instead of pointers: a chain of all versions would stay.
	token, before *byte
	changes       Changes
	units         [][]byte
}

// NewShared translates everything. Of in, Result, Options and Cache matter.
func NewShared(in Input) *Shared { return (&Shared{state: emptyState()}).rebuild(in) }

// Update brings it up to date with in; s itself does not change. delta must name
// at least what differs between the two Results. The outcome equals NewShared(in),
// at a cost in proportion to delta.
func (s *Shared) Update(in Input, delta resolve.Delta) *Shared {
	in = sharedInput(in)
	if in.Options != s.state.in.Options {
		return s.rebuild(in)
	}
	b := s.state.edit(in)
	for _, name := range delta.Frontends {
		b.refresh(unitKey{kind: unitRoutes, name: name})
	}
	units := unitsOf(delta)
	b.refreshNeeded(units)
	state, changes := b.done()
	next := &Shared{state: state, token: new(byte), before: s.token, changes: changes}
	for _, k := range units {
		next.units = append(next.units, []byte(k.String()))
	}
	return next
}

func (s *Shared) rebuild(in Input) *Shared {
	state, _ := s.state.rebuild(sharedInput(in))
	return &Shared{state: state, token: new(byte)}
}

// sharedInput leaves out what differs between sidecars.
func sharedInput(in Input) Input {
	in.Proxy = Proxy{Cluster: in.Proxy.Cluster, Role: roleShared}
	in.Bindings, in.Identity, in.Bundles, in.Shared = nil, nil, nil, nil
	return in
}

// since adds the names that may differ from an older Shared, nil for none.
func (s *Shared) since(old *Shared, touched map[string]map[string]struct{}) {
	add := func(typeURL, name string) {
		if touched[typeURL] == nil {
			touched[typeURL] = map[string]struct{}{}
		}
		touched[typeURL][name] = struct{}{}
	}
	switch {
	case old != nil && old.token == s.token:
	case old != nil && old.token == s.before:
		for _, byType := range []map[string][]string{s.changes.Changed, s.changes.Removed} {
			for typeURL, names := range byType {
				for _, name := range names {
					add(typeURL, name)
				}
			}
		}
	default:
		for _, typeURL := range Types {
			for name, r := range s.state.Resources.All(typeURL) {
				if old == nil {
					add(typeURL, name)
				} else if was, _ := old.state.Resources.Get(typeURL, name); was != r {
					add(typeURL, name)
				}
			}
			if old == nil {
				continue
			}
			for name := range old.state.Resources.All(typeURL) {
				if _, ok := s.state.Resources.Get(typeURL, name); !ok {
					add(typeURL, name)
				}
			}
		}
	}
}

// problemsOf joins a sidecar's own problems with the shared ones.
func (s *Shared) problems(own []Problem) []Problem {
	if s == nil {
		return own
	}
	return slices.Concat(own, s.state.Problems())
}

// makeRoutes translates what governs everybody's requests to a frontend, and its
// plain delivery.
func (u *unit) makeRoutes(in Input) bool {
	f, ok := in.Result.Frontends.Get([]byte(u.key.name))
	if !ok {
		return false
	}
	if f.Headless {
		return true
	}
	for i := range f.Ports {
		p := &f.Ports[i]
		if _, ok := FrontendTransport(p); !ok {
			continue
		}
		u.take(wayTo(in, f, p, p.Producer, "", hopSidecar))
	}
	return true
}
