package resolve

import (
	"sort"
	"strings"
)

// hostRank orders hostnames by how much they say: characters of an exact name,
// then characters of a wildcard name (HTTPRouteSpec.hostnames). The zero value
// says nothing.
type hostRank struct{ exact, length int }

func (a hostRank) before(b hostRank) bool {
	if a.exact != b.exact {
		return a.exact > b.exact
	}
	return a.length > b.length
}

func rankOf(host string) hostRank {
	switch {
	case host == "" || host == "*":
		return hostRank{}
	case strings.HasPrefix(host, "*."):
		return hostRank{length: len(host)}
	}
	return hostRank{exact: len(host), length: len(host)}
}

// covers reports whether every host that b names is one that a names. The empty
// name and "*" cover everything; "*.x" covers names with at least one more label.
func covers(a, b string) bool {
	if a == "" || a == "*" {
		return true
	}
	if b == "" || b == "*" {
		return false
	}
	if suffix, ok := strings.CutPrefix(a, "*"); ok {
		return strings.HasSuffix(strings.TrimPrefix(b, "*"), suffix) && (len(b) > len(suffix))
	}
	return a == b
}

// intersect gives the hosts that both name, as one name; false if there are none.
func intersect(a, b string) (string, bool) {
	switch {
	case covers(a, b):
		return hostOrAny(b), true
	case covers(b, a):
		return hostOrAny(a), true
	}
	return "", false
}

func hostOrAny(h string) string {
	if h == "" {
		return "*"
	}
	return h
}

// sortHosts puts the most specific first.
func sortHosts(hosts []string) {
	sort.Slice(hosts, func(i, j int) bool {
		a, b := rankOf(hosts[i]), rankOf(hosts[j])
		if a != b {
			return a.before(b)
		}
		return hosts[i] < hosts[j]
	})
}

// bestCovering finds the most specific of a route's hostnames that covers host;
// a route without hostnames covers everything.
func bestCovering(hostnames []string, host string) (hostRank, bool) {
	if len(hostnames) == 0 {
		return hostRank{}, true
	}
	best, ok := hostRank{}, false
	for _, h := range hostnames {
		if covers(h, host) {
			if k := rankOf(h); !ok || k.before(best) {
				best, ok = k, true
			}
		}
	}
	return best, ok
}
