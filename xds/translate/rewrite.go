package translate

import (
	"fmt"
	"regexp"
	"strings"

	routev3 "github.com/envoyproxy/go-control-plane/envoy/config/route/v3"
	matcherv3 "github.com/envoyproxy/go-control-plane/envoy/type/matcher/v3"

	"github.com/causeway-mesh/causeway/federation/resolve"
)

// pathChange is a change of a path in one of Envoy's two forms: the prefix that
// matched is replaced, or a regular expression. The zero value changes nothing.
type pathChange struct {
	prefix string
	regex  *matcherv3.RegexMatchAndSubstitute
}

// changePath works out what becomes of the path of requests that m matches
// (HTTPPathModifier). At most one of full and prefix is set.
func changePath(m *resolve.Match, full, prefix *string) (pathChange, error) {
	switch {
	case full != nil:
		if !visible(*full) || strings.Contains(*full, "#") {
			return pathChange{}, fmt.Errorf("path %q is not a path", clip(*full))
		}
		// All of the path, whatever it is; the query stays.
		return pathChange{regex: substitute("^.*$", absolute(*full))}, nil
	case prefix == nil:
		return pathChange{}, nil
	case m.PathType != resolve.PathPrefix:
		return pathChange{}, fmt.Errorf("a prefix can only be replaced where a prefix was matched")
	case !visible(*prefix) || strings.ContainsAny(*prefix, "?#"):
		return pathChange{}, fmt.Errorf("path prefix %q is not a path", clip(*prefix))
	}
	from, to := prefixOf(m), strings.TrimRight(*prefix, "/")
	if to != "" {
		to = absolute(to)
	}
	switch {
	case from == to:
		return pathChange{}, nil
	case from == "":
		// Envoy matches the slash too, so it is given back.
		return pathChange{prefix: to + "/"}, nil
	case to == "":
		// "/from", "/from/" and "/from/x" become "/", "/" and "/x".
		return pathChange{regex: substitute("^"+regexp.QuoteMeta(from)+"/?(.*)$", `/\1`)}, nil
	}
	return pathChange{prefix: to}, nil
}

func absolute(path string) string {
	if !strings.HasPrefix(path, "/") {
		return "/" + path
	}
	return path
}

// substitute replaces what a pattern matches. A literal backslash in to would be
// a reference to a group: only \1 is meant as one.
func substitute(pattern, to string) *matcherv3.RegexMatchAndSubstitute {
	if to != `/\1` {
		to = strings.ReplaceAll(to, `\`, `\\`)
	}
	return &matcherv3.RegexMatchAndSubstitute{Pattern: &matcherv3.RegexMatcher{Regex: pattern}, Substitution: to}
}

var redirectCodes = map[int]routev3.RedirectAction_RedirectResponseCode{
	301: routev3.RedirectAction_MOVED_PERMANENTLY,
	302: routev3.RedirectAction_FOUND,
	303: routev3.RedirectAction_SEE_OTHER,
	307: routev3.RedirectAction_TEMPORARY_REDIRECT,
	308: routev3.RedirectAction_PERMANENT_REDIRECT,
}

// redirectAction translates a redirect. host is the one name that the route is
// reached by, or empty: with it, a port that the client wrote into Host does not
// come back where the Location is to name none; Envoy would keep it.
func redirectAction(m *resolve.Match, r *resolve.Redirect, host string) (*routev3.RedirectAction, error) {
	code, ok := redirectCodes[r.StatusCode]
	if !ok {
		return nil, fmt.Errorf("redirects with status %d are not supported", r.StatusCode)
	}
	if r.Port < 0 || r.Port > 65535 {
		return nil, fmt.Errorf("port %d of the redirect is none", r.Port)
	}
	out := &routev3.RedirectAction{ResponseCode: code, PortRedirect: uint32(r.Port), HostRedirect: r.Hostname}
	if out.HostRedirect == "" && r.Port == 0 {
		out.HostRedirect = host
	}
	if out.HostRedirect != "" && !hostname(out.HostRedirect) {
		return nil, fmt.Errorf("hostname %q of the redirect is none", clip(r.Hostname))
	}
	switch r.Scheme {
	case "":
	case "http", "https":
		out.SchemeRewriteSpecifier = &routev3.RedirectAction_SchemeRedirect{SchemeRedirect: r.Scheme}
	default:
		return nil, fmt.Errorf("scheme %q of the redirect is unknown", clip(r.Scheme))
	}
	if r.FullPath != nil {
		// Unlike a rewrite, Envoy's path_redirect keeps the query by itself.
		if !visible(*r.FullPath) {
			return nil, fmt.Errorf("path %q is not a path", clip(*r.FullPath))
		}
		out.PathRewriteSpecifier = &routev3.RedirectAction_PathRedirect{PathRedirect: absolute(*r.FullPath)}
		return out, nil
	}
	c, err := changePath(m, nil, r.PrefixPath)
	switch {
	case err != nil:
		return nil, err
	case c.regex != nil:
		out.PathRewriteSpecifier = &routev3.RedirectAction_RegexRewrite{RegexRewrite: c.regex}
	case c.prefix != "":
		out.PathRewriteSpecifier = &routev3.RedirectAction_PrefixRewrite{PrefixRewrite: c.prefix}
	}
	return out, nil
}

// hostname reports whether s can stand in a Host header, without a port.
func hostname(s string) bool {
	if s == "" || len(s) > 253 {
		return false
	}
	for i := range len(s) {
		c := s[i]
		if (c < 'a' || c > 'z') && (c < 'A' || c > 'Z') && (c < '0' || c > '9') && c != '.' && c != '-' && c != '_' {
			return false
		}
	}
	return true
}
