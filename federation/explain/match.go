package explain

import (
	"fmt"
	"net/url"
	"regexp"
	"strings"

	"github.com/causeway-mesh/causeway/federation/resolve"
)

// mismatch tells the first clause of m that the request fails, in Envoy's sense;
// empty if it matches.
func mismatch(m *resolve.Match, r *Request) string {
	switch m.PathType {
	case resolve.PathExact:
		if r.Path != m.Path {
			return fmt.Sprintf("the path is not %s", m.Path)
		}
	case resolve.PathPrefix:
		if m.Path != "/" && r.Path != m.Path && !strings.HasPrefix(r.Path, m.Path+"/") {
			return fmt.Sprintf("the path does not begin with %s", m.Path)
		}
	case resolve.PathRegex:
		if !fullMatch(m.Path, r.Path) {
			return fmt.Sprintf("the path does not match the expression %s", m.Path)
		}
	}
	if m.Method != "" && m.Method != r.Method {
		return fmt.Sprintf("the method is not %s", m.Method)
	}
	for _, h := range m.Headers {
		v, ok := r.header(h.Name)
		if s := valueMismatch("header", h, v, ok); s != "" {
			return s
		}
	}
	if len(m.Query) > 0 {
		q, _ := url.ParseQuery(r.Query)
		for _, h := range m.Query {
			v, ok := "", false
			if vs := q[h.Name]; len(vs) > 0 {
				v, ok = vs[0], true
			}
			if s := valueMismatch("query parameter", h, v, ok); s != "" {
				return s
			}
		}
	}
	return ""
}

func valueMismatch(what string, m resolve.ValueMatch, v string, there bool) string {
	switch {
	case !there:
		return fmt.Sprintf("%s %s is missing", what, m.Name)
	case m.Regex && !fullMatch(m.Value, v):
		return fmt.Sprintf("%s %s does not match the expression %s", what, m.Name, m.Value)
	case !m.Regex && v != m.Value:
		return fmt.Sprintf("%s %s is not %s", what, m.Name, m.Value)
	}
	return ""
}

// fullMatch: Envoy's regular expressions match whole values.
func fullMatch(expr, s string) bool {
	re, err := regexp.Compile("^(?:" + expr + ")$")
	return err == nil && re.MatchString(s)
}

// hostMatches tells whether a virtual host's name covers a host.
func hostMatches(pattern, host string) bool {
	switch {
	case pattern == "*":
		return true
	case strings.HasPrefix(pattern, "*."):
		return strings.HasSuffix(host, pattern[1:]) && len(host) > len(pattern)-1
	}
	return pattern == host
}
