package translate

import (
	"crypto/sha256"
	_ "embed" // the script
	"encoding/hex"
	"fmt"
	"regexp"
	"regexp/syntax"
	"strings"
	"time"

	corev3 "github.com/envoyproxy/go-control-plane/envoy/config/core/v3"
	routev3 "github.com/envoyproxy/go-control-plane/envoy/config/route/v3"
	luav3 "github.com/envoyproxy/go-control-plane/envoy/extensions/filters/http/lua/v3"
	statefulv3 "github.com/envoyproxy/go-control-plane/envoy/extensions/filters/http/stateful_session/v3"
	headerv3 "github.com/envoyproxy/go-control-plane/envoy/extensions/http/stateful_session/header/v3"

	"github.com/causeway-mesh/causeway/federation/resolve"
)

// headerPin is the header by which Envoy's filter knows the endpoint of a session.
// Neither clients nor backends see it.
const headerPin = "x-causeway-endpoint"

func pinState() *statefulv3.StatefulSession {
	return &statefulv3.StatefulSession{SessionState: namedConfig("envoy.http.stateful_session.header", &headerv3.HeaderBasedSessionState{Name: headerPin})}
}

// persist keeps a client's requests at one endpoint (GEP-1619). The token, a cookie
// or header, says all that there is to know, so that Envoys need not know of each
// other: "<address>.<share>.<end>", the endpoint's address as Envoy's filter
// writes it, the mark of the rule's share that it belongs to, and when the session
// ends (milliseconds since 1970, 0 for never). The filter knows of the first alone,
// in a header of its own: the script that persist gives, which must run, translates.
// Where the rule's backend is chained through, the filter of the second hop does
// the work, and the header goes over both.
//
// A session stays with its share whatever the weights become, zero included
// (pinnedLegs). Behind a crossing gateway the address is the gateway's: the client
// stays with that cluster. When the endpoint is gone or not healthy, or the session
// has ended, another takes its place, and the client gets a token for that one.
func persist(r *routev3.Route, rule *resolve.Rule, l *leg) (*corev3.TypedExtensionConfig, error) {
	x := rule.Session
	if !resolve.IsToken(x.Name) {
		return nil, fmt.Errorf("session name %q can't be the name of a cookie or header", clip(x.Name))
	}
	if !l.chained() {
		configure(r, filterSession, &statefulv3.StatefulSessionPerRoute{Override: &statefulv3.StatefulSessionPerRoute_StatefulSession{StatefulSession: pinState()}})
		r.RequestHeadersToRemove = append(r.RequestHeadersToRemove, headerPin)
	}
	name, cookie := strings.ToLower(x.Name), "nil"
	if !x.Header {
		name, cookie = x.Name, "; Path="+cookiePath(&rule.Match)
		if x.Permanent && x.AbsoluteTimeout > 0 {
			cookie += fmt.Sprintf("; Max-Age=%d", max(1, int64(x.AbsoluteTimeout.Round(time.Second)/time.Second)))
		}
		// Strict, which GEP-1619 suggests, would make a browser that follows a link
		// from elsewhere begin another session.
		cookie = luaString(cookie + "; SameSite=Lax; HttpOnly")
	}
	head := fmt.Sprintf("local pin, name, cookie, share, life = %s, %s, %s, %s, %d\n", luaString(headerPin), luaString(name), cookie, luaString(shareMark(l.shares[0])), max(x.AbsoluteTimeout, 0).Milliseconds())
	return namedConfig("envoy.filters.http.lua", &luav3.Lua{
		DefaultSourceCode: &corev3.DataSource{Specifier: &corev3.DataSource_InlineString{InlineString: head + sessionScript}},
		// The token chose the route, and does not any more once it is taken away.
		ClearRouteCache: no(),
	}), nil
}

//go:embed session.lua
var sessionScript string

// luaString quotes a string of printable ASCII.
func luaString(s string) string {
	return `"` + strings.NewReplacer(`\`, `\\`, `"`, `\"`).Replace(s) + `"`
}

// pinnedLegs are those that keep sessions with their shares, where a rule has
// several.
func pinnedLegs(rule *resolve.Rule) []*leg {
	if rule.Session == nil || !resolve.IsToken(rule.Session.Name) {
		return nil
	}
	var out []*leg
	for _, b := range rule.Pinned() {
		out = append(out, &leg{shares: []*resolve.WeightedBackend{b}, sum: 1, filters: rule.Filters.Then(b.Filters), pinned: true})
	}
	return out
}

// shareMark tells a share from the others of its rule.
func shareMark(b *resolve.WeightedBackend) string {
	sum := sha256.Sum256([]byte(b.Backend.String()))
	return hex.EncodeToString(sum[:4])
}

// sessionMatcher matches requests whose token bears a mark.
func sessionMatcher(x *resolve.Session, mark string) *routev3.HeaderMatcher {
	if x.Header {
		return headerMatcher(strings.ToLower(x.Name), matching(`[^.]*\.`+mark+`\.[0-9]+`))
	}
	return headerMatcher("cookie", matching(`(?:.*;)? *`+regexp.QuoteMeta(x.Name)+`="?[^.;"]*\.`+mark+`\.[0-9]+"? *(?:;.*)?`))
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
