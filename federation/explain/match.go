package explain

import (
	"fmt"
	"net/url"
	"regexp"
	"slices"
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
		if s := valueMismatch("header", h, r.values(h.Name)); s != "" {
			return s
		}
	}
	if len(m.Query) > 0 {
		q, _ := url.ParseQuery(r.Query)
		for _, h := range m.Query {
			vs := q[h.Name]
			if s := valueMismatch("query parameter", h, vs[:min(len(vs), 1)]); s != "" {
				return s
			}
		}
	}
	return ""
}

// valueMismatch tells why none of the values is what m asks for; empty if one is.
func valueMismatch(what string, m resolve.ValueMatch, values []string) string {
	fits := func(v string) bool { return v == m.Value }
	if m.Regex {
		fits = func(v string) bool { return fullMatch(m.Value, v) }
	}
	switch {
	case len(values) == 0:
		return fmt.Sprintf("%s %s is missing", what, m.Name)
	case slices.ContainsFunc(values, fits):
		return ""
	case m.Regex:
		return fmt.Sprintf("%s %s does not match the expression %s", what, m.Name, m.Value)
	}
	return fmt.Sprintf("%s %s is not %s", what, m.Name, m.Value)
}

// fullMatch: Envoy's regular expressions match whole values.
func fullMatch(expr, s string) bool {
	re, err := regexp.Compile("^(?:" + expr + ")$")
	return err == nil && re.MatchString(s)
}
