package explain

import (
	"net/http"
	"strings"

	"github.com/causeway-mesh/causeway/federation/resolve"
)

// preflight gives the origin of a browser's question whether it may send a request
// (Fetch standard, "CORS-preflight fetch"), ok only if the request is one.
func (r *Request) preflight() (origin string, ok bool) {
	asked, origins := r.values("access-control-request-method"), r.values("origin")
	if r.Method != http.MethodOptions || len(asked) == 0 || len(origins) == 0 {
		return "", false
	}
	return origins[0], true
}

// answerPreflight is what the Envoy answers to a preflight: it never reaches the
// backend. Status 0 if the request is none.
func answerPreflight(c *resolve.CORS, r *Request) (status int, reason string) {
	origin, ok := r.preflight()
	switch {
	case c == nil || !ok:
		return 0, ""
	case originAllowed(c.AllowOrigins, origin):
		return http.StatusOK, "the preflight's origin is allowed"
	}
	return http.StatusForbidden, "the preflight's origin is not among those of the CORS filter"
}

func originAllowed(list []string, origin string) bool {
	scheme, rest, _ := strings.Cut(strings.ToLower(origin), "://")
	host, port, _ := strings.Cut(rest, ":")
	if port == "" {
		port = ownPort(scheme)
	}
	for _, o := range list {
		if o == "*" {
			return true
		}
		s, rest, _ := strings.Cut(strings.ToLower(o), "://")
		h, p, _ := strings.Cut(rest, ":")
		if p == "" {
			p = ownPort(s)
		}
		suffix, any := strings.CutPrefix(h, "*")
		fits := h == host || any && strings.HasSuffix(host, suffix) && len(host) > len(suffix)
		if s == scheme && p == port && fits {
			return true
		}
	}
	return false
}

func ownPort(scheme string) string {
	switch scheme {
	case "http":
		return "80"
	case "https":
		return "443"
	}
	return ""
}
