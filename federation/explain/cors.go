package explain

import (
	"net/http"

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
	case c.Allows(origin):
		return http.StatusOK, "the preflight's origin is allowed"
	}
	return http.StatusForbidden, "the preflight's origin is not among those of the CORS filter"
}
