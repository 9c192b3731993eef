package translate

import (
	"fmt"
	"regexp/syntax"
	"strings"
	"time"

	corev3 "github.com/envoyproxy/go-control-plane/envoy/config/core/v3"
	routev3 "github.com/envoyproxy/go-control-plane/envoy/config/route/v3"
	statefulv3 "github.com/envoyproxy/go-control-plane/envoy/extensions/filters/http/stateful_session/v3"
	cookiev3 "github.com/envoyproxy/go-control-plane/envoy/extensions/http/stateful_session/cookie/v3"
	headerv3 "github.com/envoyproxy/go-control-plane/envoy/extensions/http/stateful_session/header/v3"
	httpv3 "github.com/envoyproxy/go-control-plane/envoy/type/http/v3"
	"google.golang.org/protobuf/proto"

	"github.com/causeway-mesh/causeway/federation/resolve"
)

// persist keeps a client's requests at one endpoint (GEP-1619). The token, cookie
// or header, holds the endpoint's address: Envoys need not know of each other.
// Behind a crossing gateway that is the gateway's, so that the client stays with
// that cluster.
//
// When the endpoint is gone or not healthy, another takes its place, and the
// client gets a token for that one.
func persist(r *routev3.Route, x *resolve.Session, m *resolve.Match) error {
	if !token(x.Name) {
		return fmt.Errorf("session name %q can't be the name of a cookie or header", clip(x.Name))
	}
	var state proto.Message
	kind := "envoy.http.stateful_session.cookie"
	if x.Header {
		kind = "envoy.http.stateful_session.header"
		state = &headerv3.HeaderBasedSessionState{Name: strings.ToLower(x.Name)}
	} else {
		c := &httpv3.Cookie{Name: x.Name, Path: cookiePath(m), Attributes: []*httpv3.CookieAttribute{
			// Strict, which GEP-1619 suggests, would make a browser that follows a
			// link from elsewhere begin another session.
			{Name: "SameSite", Value: "Lax"},
		}}
		if x.AbsoluteTimeout > 0 {
			c.Ttl = dur(max(x.AbsoluteTimeout.Round(time.Second), time.Second))
		}
		state = &cookiev3.CookieBasedSessionState{Cookie: c}
	}
	configure(r, filterSession, &statefulv3.StatefulSessionPerRoute{Override: &statefulv3.StatefulSessionPerRoute_StatefulSession{
		StatefulSession: &statefulv3.StatefulSession{SessionState: &corev3.TypedExtensionConfig{Name: kind, TypedConfig: pack(state)}},
	}})
	return nil
}

// cookiePath is the path for which a client sends the cookie: that of the match,
// for two rules must not share a session; of a regular expression the elements
// before the first that is not literal.
func cookiePath(m *resolve.Match) string {
	path := m.Path
	if m.PathType == resolve.PathRegex {
		path = literalPrefix(m.Path)
		path = path[:strings.LastIndexByte(path, '/')+1]
	}
	path = strings.TrimRight(path, "/")
	// ';' would end the attribute.
	if i := strings.IndexByte(path, ';'); i >= 0 {
		path = path[:strings.LastIndexByte(path[:i], '/')+1]
		path = strings.TrimRight(path, "/")
	}
	if path == "" || !visible(path) {
		return "/"
	}
	return path
}

// literalPrefix is what everything that an expression matches begins with.
func literalPrefix(expr string) string {
	parsed, err := syntax.Parse(expr, syntax.Perl)
	if err != nil {
		return ""
	}
	var out strings.Builder
	for todo := []*syntax.Regexp{parsed.Simplify()}; len(todo) > 0; {
		x := todo[0]
		todo = todo[1:]
		switch x.Op {
		case syntax.OpLiteral:
			if x.Flags&syntax.FoldCase != 0 {
				return out.String()
			}
			out.WriteString(string(x.Rune))
		case syntax.OpConcat, syntax.OpCapture:
			todo = append(append([]*syntax.Regexp(nil), x.Sub...), todo...)
		case syntax.OpBeginText, syntax.OpBeginLine, syntax.OpEmptyMatch:
		default:
			return out.String()
		}
	}
	return out.String()
}
