package translate

import (
	"runtime"
	"sync"
	"weak"

	"github.com/causeway-mesh/causeway/federation/resolve"
)

// Cache lets the proxies of one agent share the work for the resources that they
// have in common: each is translated and marshalled once. It is a memo of pure
// functions, keyed by the pointers of the resolver's immutable values; it forgets
// a value when nobody else holds it any more. One Cache serves any number of
// goroutines, Results and Options. The zero value is ready.
type Cache struct {
	backends  memo[resolve.Backend]
	frontends memo[resolve.Frontend]
	gateways  memo[resolve.Gateway]
	tables    memo[resolve.RouteTable]
	results   memo[resolve.Result]
	// latest holds the newest shared resource of each type, name and variant, so
	// that a new value with the old meaning keeps the old pointer.
	latest sync.Map // sharedName -> weak.Pointer[Resource]
}

// NewCache makes an empty Cache.
func NewCache() *Cache { return &Cache{} }

// memo remembers what was made of values of one type.
type memo[P any] struct{ found sync.Map } // weak.Pointer[P] -> *sync.Map

// get gives what build makes of p for a purpose, which must be comparable and say
// everything else that the outcome depends on.
func get[P, V any](m *memo[P], p *P, purpose any, build func() V) V {
	key := weak.Make(p)
	at, ok := m.found.Load(key)
	if !ok {
		var loaded bool
		at, loaded = m.found.LoadOrStore(key, &sync.Map{})
		if !loaded {
			runtime.AddCleanup(p, func(key weak.Pointer[P]) { m.found.Delete(key) }, key)
		}
	}
	byPurpose := at.(*sync.Map)
	v, ok := byPurpose.Load(purpose)
	if !ok {
		v, _ = byPurpose.LoadOrStore(purpose, sync.OnceValue(build))
	}
	out := v.(func() V)()
	runtime.KeepAlive(p)
	return out
}

// sharedName tells resources apart. The variant does where proxies have several
// of one name: the consumer namespace of routes.
type sharedName struct{ typeURL, name, variant string }

// intern gives the resource that others with the same content have, if there is one.
func (c *Cache) intern(typeURL, variant string, r *Resource) *Resource {
	key := sharedName{typeURL, r.Name, variant}
	if at, ok := c.latest.Load(key); ok {
		if old := at.(weak.Pointer[Resource]).Value(); old != nil && old.same(r) {
			return old
		}
	}
	at := weak.Make(r)
	c.latest.Store(key, at)
	runtime.AddCleanup(r, func(key sharedName) { c.latest.CompareAndDelete(key, at) }, key)
	return r
}
