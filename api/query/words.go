package query

import (
	"fmt"
	"strings"

	"github.com/causeway-mesh/causeway/federation/resolve"
)

// condition words a match.
func condition(m resolve.Match) string {
	var parts []string
	switch g := m.GRPC; {
	case g != nil:
		verb := "is"
		if g.Regex {
			verb = "matches"
		}
		parts = append(parts, fmt.Sprintf("gRPC method %s %s/%s", verb, orAny(g.Service), orAny(g.Method)))
	case m.PathType == resolve.PathExact:
		parts = append(parts, "path is "+m.Path)
	case m.PathType == resolve.PathPrefix:
		parts = append(parts, "path prefix "+m.Path)
	case m.PathType == resolve.PathRegex:
		parts = append(parts, "path matches "+m.Path)
	}
	if m.Method != "" {
		parts = append(parts, "method "+m.Method)
	}
	values := func(what string, list []resolve.ValueMatch) {
		for _, x := range list {
			verb := "is"
			if x.Regex {
				verb = "matches"
			}
			parts = append(parts, fmt.Sprintf("%s %s %s %s", what, x.Name, verb, x.Value))
		}
	}
	values("header", m.Headers)
	values("query", m.Query)
	return strings.Join(parts, ", ")
}

// changes words what filters do.
func changes(f resolve.Filters) []string {
	var out []string
	mods := func(what string, m resolve.HeaderMods) {
		for _, n := range m.Remove {
			out = append(out, fmt.Sprintf("remove %s header %s", what, n))
		}
		for _, h := range m.Set {
			out = append(out, fmt.Sprintf("set %s header %s to %q", what, h.Name, h.Value))
		}
		for _, h := range m.Add {
			out = append(out, fmt.Sprintf("add %s header %s: %q", what, h.Name, h.Value))
		}
	}
	mods("request", f.Request)
	if w := f.Rewrite; w != nil {
		if w.Hostname != "" {
			out = append(out, "rewrite the host to "+w.Hostname)
		}
		if w.FullPath != nil {
			out = append(out, "rewrite the path to "+*w.FullPath)
		}
		if w.PrefixPath != nil {
			out = append(out, "rewrite the matched prefix to "+*w.PrefixPath)
		}
	}
	mods("response", f.Response)
	if c := f.CORS; c != nil {
		out = append(out, "answer preflight requests and mark responses for browsers of the origins "+strings.Join(c.AllowOrigins, ", "))
	}
	if a := f.Auth; a != nil {
		protocol := "HTTP"
		if a.GRPC {
			protocol = "gRPC"
		}
		out = append(out, fmt.Sprintf("ask %s over %s whether the request may go on", a.Backend, protocol))
	}
	return out
}

// ruleChanges words what a rule does to requests, responses and tries.
func ruleChanges(r *resolve.Rule) []string {
	out := changes(r.Filters)
	if s := r.Session; s != nil {
		kind := "cookie"
		if s.Header {
			kind = "header"
		}
		out = append(out, fmt.Sprintf("keep the client at one endpoint by the %s %s", kind, s.Name))
	}
	if t := r.Retry; t != nil {
		what := "connection errors"
		for _, c := range t.Codes {
			what += fmt.Sprintf(", %d", c)
		}
		out = append(out, fmt.Sprintf("repeat at most %d times, %s apart and more, after %s", t.Attempts, t.Backoff, what))
	}
	return out
}

func orAny(s string) string {
	if s == "" {
		return "*"
	}
	return s
}
