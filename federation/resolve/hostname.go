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

// MoreSpecific reports whether one hostname says more than another: an exact name
// than wildcards, a longer name than a shorter one (HTTPRouteSpec.hostnames).
func MoreSpecific(a, b string) bool { return rankOf(a).before(rankOf(b)) }

// HostCovers reports whether every host that b names is one that a names. The empty
// name and "*" cover everything; "*.x" covers names with at least one more label. Both
// are in lower case.
func HostCovers(a, b string) bool {
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
	case HostCovers(a, b):
		return HostOrAny(b), true
	case HostCovers(b, a):
		return HostOrAny(a), true
	}
	return "", false
}

// HostOrAny is "*" for a hostname that is not given, which means all of them.
func HostOrAny(h string) string {
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

// coveringNames lists the hostnames that cover a host, the most specific first:
// itself, "*" for each of its leading labels, and "*".
func coveringNames(host string) []string {
	if host == "*" {
		return []string{"*"}
	}
	out := []string{host}
	rest := strings.TrimPrefix(host, "*.")
	if rest != host {
		// "*.a.b" is covered by "*.b", as "x.a.b" is.
		rest = "x." + rest
		out = nil
	}
	for {
		_, parent, ok := strings.Cut(rest, ".")
		if !ok {
			break
		}
		out = append(out, "*."+parent)
		rest = parent
	}
	return append(out, "*")
}
