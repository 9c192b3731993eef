package translate

import (
	"fmt"
	"regexp"
	"strings"
	"unicode/utf8"

	routev3 "github.com/envoyproxy/go-control-plane/envoy/config/route/v3"
	matcherv3 "github.com/envoyproxy/go-control-plane/envoy/type/matcher/v3"

	"github.com/causeway-mesh/causeway/federation/resolve"
)

const (
	maxRegex        = 16384
	headerAuthority = ":authority"
)

// routeMatch translates a match. An error means that Envoy would refuse it.
func routeMatch(m *resolve.Match) (*routev3.RouteMatch, error) {
	out := &routev3.RouteMatch{}
	if m.PathType != resolve.PathRegex {
		if !strings.HasPrefix(m.Path, "/") || !visible(m.Path) || strings.ContainsAny(m.Path, "?#") {
			return nil, fmt.Errorf("path %q is not a path", clip(m.Path))
		}
	}
	switch m.PathType {
	case resolve.PathExact:
		out.PathSpecifier = &routev3.RouteMatch_Path{Path: m.Path}
	case resolve.PathPrefix:
		if p := prefixOf(m); p == "" {
			out.PathSpecifier = &routev3.RouteMatch_Prefix{Prefix: "/"}
		} else {
			out.PathSpecifier = &routev3.RouteMatch_PathSeparatedPrefix{PathSeparatedPrefix: p}
		}
	case resolve.PathRegex:
		r, err := regexMatcher(m.Path)
		if err != nil {
			return nil, fmt.Errorf("path: %w", err)
		}
		out.PathSpecifier = &routev3.RouteMatch_SafeRegex{SafeRegex: r}
	default:
		return nil, fmt.Errorf("path type %q is unknown", clip(string(m.PathType)))
	}
	if m.Method != "" {
		if !resolve.IsToken(m.Method) {
			return nil, fmt.Errorf("method %q is not a method", clip(m.Method))
		}
		out.Headers = append(out.Headers, headerMatcher(":method", exactly(m.Method)))
	}
	for _, h := range m.Headers {
		if !resolve.IsToken(h.Name) {
			return nil, fmt.Errorf("%q can't be the name of a header", clip(h.Name))
		}
		s, err := stringMatcher(h)
		if err != nil {
			return nil, fmt.Errorf("header %s: %w", h.Name, err)
		}
		name := strings.ToLower(h.Name)
		if name == headerHost {
			name = headerAuthority
		}
		out.Headers = append(out.Headers, headerMatcher(name, s))
	}
	for _, q := range m.Query {
		if q.Name == "" || len(q.Name) > maxRegex || !utf8.ValidString(q.Name) {
			return nil, fmt.Errorf("%q can't be the name of a query parameter", clip(q.Name))
		}
		s, err := stringMatcher(encoded(q))
		if err != nil {
			return nil, fmt.Errorf("query parameter %s: %w", q.Name, err)
		}
		out.QueryParameters = append(out.QueryParameters, &routev3.QueryParameterMatcher{
			Name:                         q.Name,
			QueryParameterMatchSpecifier: &routev3.QueryParameterMatcher_StringMatch{StringMatch: s},
		})
	}
	return out, nil
}

// prefixOf is a match's prefix without its trailing slashes, which mean nothing:
// empty for "/".
func prefixOf(m *resolve.Match) string { return strings.TrimRight(m.Path, "/") }

func headerMatcher(name string, s *matcherv3.StringMatcher) *routev3.HeaderMatcher {
	return &routev3.HeaderMatcher{Name: name, HeaderMatchSpecifier: &routev3.HeaderMatcher_StringMatch{StringMatch: s}}
}

func exactly(v string) *matcherv3.StringMatcher {
	return &matcherv3.StringMatcher{MatchPattern: &matcherv3.StringMatcher_Exact{Exact: v}}
}

func stringMatcher(v resolve.ValueMatch) (*matcherv3.StringMatcher, error) {
	if !v.Regex {
		if !utf8.ValidString(v.Value) {
			return nil, fmt.Errorf("the value %q is not UTF-8", clip(v.Value))
		}
		return exactly(v.Value), nil
	}
	r, err := regexMatcher(v.Value)
	if err != nil {
		return nil, err
	}
	return &matcherv3.StringMatcher{MatchPattern: &matcherv3.StringMatcher_SafeRegex{SafeRegex: r}}, nil
}

// encoded lets an exact value of a query parameter match however a client encodes
// it: Envoy compares parameters as they were sent.
func encoded(v resolve.ValueMatch) resolve.ValueMatch {
	var expr strings.Builder
	plain := true
	for i := range len(v.Value) {
		c := v.Value[i]
		if resolve.Unreserved(c) {
			expr.WriteString(regexp.QuoteMeta(string(c)))
			continue
		}
		plain = false
		fmt.Fprintf(&expr, "(?:(?i:%%%02X)", c)
		switch {
		case c == ' ':
			expr.WriteString(`| |\+`)
		case c < 0x80:
			expr.WriteString("|" + regexp.QuoteMeta(string(c)))
		}
		expr.WriteByte(')')
	}
	if v.Regex || plain {
		return v
	}
	return resolve.ValueMatch{Name: v.Name, Value: expr.String(), Regex: true}
}

// regexMatcher accepts what Envoy's RE2 is sure to compile. Envoy matches the
// whole value.
func regexMatcher(expr string) (*matcherv3.RegexMatcher, error) {
	if expr == "" || len(expr) > maxRegex || !utf8.ValidString(expr) {
		return nil, fmt.Errorf("regular expression %q: from 1 to %d bytes of UTF-8 are possible", clip(expr), maxRegex)
	}
	if err := resolve.CheckRE2(expr); err != nil {
		return nil, err
	}
	return &matcherv3.RegexMatcher{Regex: expr}, nil
}

// visible reports whether s is made of printable ASCII, as paths and hosts are.
func visible(s string) bool {
	for i := range len(s) {
		if s[i] <= ' ' || s[i] >= 0x7f {
			return false
		}
	}
	return len(s) <= 8192
}

// clip bounds what a message repeats of its input.
func clip(s string) string {
	s = valid(s)
	if len(s) > 100 {
		return strings.ToValidUTF8(s[:100], "") + "..."
	}
	return s
}

// valid makes a string fit for protobuf.
func valid(s string) string { return strings.ToValidUTF8(s, "?") }
