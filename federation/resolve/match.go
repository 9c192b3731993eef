package resolve

import (
	"errors"
	"fmt"
	"regexp"
	"slices"
	"sort"
	"strconv"
	"strings"
	"unicode/utf8"

	gatewayv1 "sigs.k8s.io/gateway-api/apis/v1"
)

// compileMatch reads a match of an HTTPRoute. Where it gives a Match beside an
// error, the Match takes exactly what was asked for.
func compileMatch(in *gatewayv1.HTTPRouteMatch) (*Match, error) {
	m := &Match{PathType: PathPrefix, Path: "/"}
	if in.Path != nil {
		m.PathType = PathType(deref(in.Path.Type, gatewayv1.PathMatchPathPrefix))
		m.Path = deref(in.Path.Value, "/")
	}
	var late error
	switch m.PathType {
	case PathExact, PathPrefix:
		m.Path = Unescape(m.Path)
		if !strings.HasPrefix(m.Path, "/") {
			return nil, fmt.Errorf("path %q does not begin with '/'", clip(m.Path))
		}
		if err := checkPath(m.Path); err != nil {
			return nil, fmt.Errorf("path %q: %w", clip(m.Path), err)
		}
		if m.PathType == PathPrefix {
			// "/a" and "/a/" are the same prefix: it is compared by path elements.
			if m.Path = strings.TrimRight(m.Path, "/"); m.Path == "" {
				m.Path = "/"
			}
		}
	case PathRegex:
		if err := checkRegex(m.Path); err != nil {
			return nil, fmt.Errorf("path: %w", err)
		}
	default:
		return nil, fmt.Errorf("path type %q is unknown", clip(string(m.PathType)))
	}
	if m.Method = string(deref(in.Method, "")); in.Method != nil && !slices.Contains(methods, m.Method) {
		if late = fmt.Errorf("method %q is unknown: use one of %s", clip(m.Method), strings.Join(methods, ", ")); !IsToken(m.Method) {
			return nil, late
		}
	}
	for _, h := range in.Headers {
		v, err := headerMatch(string(h.Name), string(deref(h.Type, gatewayv1.HeaderMatchExact)), h.Value)
		if err != nil {
			return nil, err
		}
		m.Headers = addMatch(m.Headers, v)
	}
	for _, q := range in.QueryParams {
		if !IsToken(string(q.Name)) {
			return nil, fmt.Errorf("%q can't be the name of a query parameter", clip(string(q.Name)))
		}
		v, err := valueMatch(string(q.Name), string(deref(q.Type, gatewayv1.QueryParamMatchExact)), q.Value)
		if err != nil {
			return nil, fmt.Errorf("query parameter %q: %w", clip(string(q.Name)), err)
		}
		m.Query = addMatch(m.Query, v)
	}
	return m, late
}

// methods are those that Gateway API lets HTTPRoutes match on (HTTPMethod).
var methods = []string{"GET", "HEAD", "POST", "PUT", "DELETE", "CONNECT", "OPTIONS", "TRACE", "PATCH"}

// pathChars are what HTTPPathMatch lets a path be made of.
var pathChars = regexp.MustCompile(`^(?:[-A-Za-z0-9/._~!$&'()*+,;=:@]|%[0-9a-fA-F]{2})*$`)

const maxPath = 1024

// checkPath judges a path as HTTPPathMatch does for Exact and PathPrefix: what a
// proxy may normalise away before it compares is refused.
func checkPath(p string) error {
	switch {
	case len(p) > maxPath:
		return fmt.Errorf("it is longer than %d bytes", maxPath)
	case !pathChars.MatchString(p):
		return errors.New("it has characters that paths can't have: encode them as %XX")
	}
	for _, bad := range []string{"//", "/./", "/../", "%2f", "%2F"} {
		if strings.Contains(p, bad) {
			return fmt.Errorf("it must not contain %q", bad)
		}
	}
	for _, bad := range []string{"/.", "/.."} {
		if strings.HasSuffix(p, bad) {
			return fmt.Errorf("it must not end with %q", bad)
		}
	}
	return nil
}

// Unescape undoes the escapes of characters that need none, as proxies do with the paths
// of requests before they compare them (RFC 3986, section 6.2.2.2).
func Unescape(p string) string {
	if !strings.Contains(p, "%") {
		return p
	}
	return escape.ReplaceAllStringFunc(p, func(e string) string {
		c, err := strconv.ParseUint(e[1:], 16, 8)
		if err != nil || !Unreserved(byte(c)) {
			return e
		}
		return string(rune(c))
	})
}

var escape = regexp.MustCompile(`%[0-9a-fA-F]{2}`)

// Unreserved tells whether a character needs no escape in any part of a URI (RFC 3986,
// section 2.3).
func Unreserved(c byte) bool {
	return c >= 'a' && c <= 'z' || c >= 'A' && c <= 'Z' || c >= '0' && c <= '9' || strings.IndexByte("-._~", c) >= 0
}

// headerMatch reads a match of a header's value.
func headerMatch(name, typ, value string) (ValueMatch, error) {
	if !IsToken(name) {
		return ValueMatch{}, fmt.Errorf("%q can't be the name of a header", clip(name))
	}
	v, err := valueMatch(strings.ToLower(name), typ, value)
	if err == nil && !v.Regex && !IsFieldValue(value) {
		err = fmt.Errorf("%q can't be the value of a header", clip(value))
	}
	if err != nil {
		return v, fmt.Errorf("header %q: %w", clip(name), err)
	}
	return v, nil
}

// addMatch keeps the first of several entries of one name, as Gateway API says,
// and the list sorted by name.
func addMatch(list []ValueMatch, v ValueMatch) []ValueMatch {
	i := sort.Search(len(list), func(i int) bool { return list[i].Name >= v.Name })
	if i < len(list) && list[i].Name == v.Name {
		return list
	}
	return slices.Insert(list, i, v)
}

const maxValue = 4096

func valueMatch(name, typ, value string) (ValueMatch, error) {
	v := ValueMatch{Name: name, Value: value}
	switch typ {
	case string(gatewayv1.HeaderMatchExact):
		if value == "" || len(value) > maxValue {
			return v, fmt.Errorf("the value %q is not of 1 to %d bytes", clip(value), maxValue)
		}
		return v, nil
	case string(gatewayv1.HeaderMatchRegularExpression):
		v.Regex = true
		return v, checkRegex(value)
	}
	return v, fmt.Errorf("match type %q is unknown", clip(typ))
}

// IsToken judges names of headers, cookies and query parameters (HeaderName).
func IsToken(s string) bool {
	if s == "" || len(s) > 256 {
		return false
	}
	for i := range len(s) {
		c := s[i]
		if (c < 'a' || c > 'z') && (c < 'A' || c > 'Z') && (c < '0' || c > '9') && strings.IndexByte("!#$%&'*+-.^_`|~", c) < 0 {
			return false
		}
	}
	return true
}

// IsFieldValue judges values of headers: nothing that could end a line.
func IsFieldValue(s string) bool {
	if len(s) > maxValue || !utf8.ValidString(s) {
		return false
	}
	for i := range len(s) {
		if c := s[i]; c < ' ' && c != '\t' || c == 0x7f {
			return false
		}
	}
	return true
}
