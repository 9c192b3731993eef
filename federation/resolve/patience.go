package resolve

import (
	"crypto/sha256"
	"encoding/hex"
	"fmt"
	"regexp"
	"slices"
	"strings"
	"time"

	gatewayv1 "sigs.k8s.io/gateway-api/apis/v1"
)

// durationForm is GEP-2257's.
var durationForm = regexp.MustCompile(`^([0-9]{1,5}(h|m|s|ms)){1,4}$`)

// maxDuration bounds durations, whose multiples must not overflow: it is what one number
// and unit can say.
const maxDuration = 99999 * time.Hour

// parseDuration reads a duration of the Gateway API.
func parseDuration(what string, d *gatewayv1.Duration, fail failFunc) time.Duration {
	if d == nil {
		return 0
	}
	v, err := time.ParseDuration(string(*d))
	if err != nil || !durationForm.MatchString(string(*d)) {
		fail(gatewayv1.RouteReasonUnsupportedValue, "%s: %q is not a duration such as 500ms or 10s", what, clip(string(*d)))
		return 0
	}
	if v > maxDuration {
		fail(gatewayv1.RouteReasonUnsupportedValue, "%s: %s is longer than %dh", what, clip(string(*d)), maxDuration/time.Hour)
		return 0
	}
	return v
}

func compileTimeouts(rule *Rule, in *gatewayv1.HTTPRouteTimeouts, fail failFunc) {
	if in == nil {
		return
	}
	rule.RequestTimeout = parseDuration("timeouts.request", in.Request, fail)
	rule.BackendTimeout = parseDuration("timeouts.backendRequest", in.BackendRequest, fail)
	if rule.RequestTimeout > 0 && rule.BackendTimeout > rule.RequestTimeout {
		fail(gatewayv1.RouteReasonUnsupportedValue, "timeouts.backendRequest must not be longer than timeouts.request")
	}
}

// What a route that asks for retries does not say.
const (
	defaultAttempts = 1 // Gateway API v1.7's
	defaultBackoff  = 25 * time.Millisecond
)

// maxAttempts bounds retry.attempts, which the API leaves without a bound.
const maxAttempts = 1000

func compileRetry(in *gatewayv1.HTTPRouteRetry, fail failFunc) *Retry {
	if in == nil {
		return nil
	}
	out := &Retry{Attempts: deref(in.Attempts, defaultAttempts), Backoff: parseDuration("retry.backoff", in.Backoff, fail)}
	if out.Attempts < 0 || out.Attempts > maxAttempts {
		fail(gatewayv1.RouteReasonUnsupportedValue, "retry.attempts %d is not from 0 to %d", out.Attempts, maxAttempts)
		out.Attempts = 0
	}
	if out.Backoff == 0 {
		out.Backoff = defaultBackoff
	}
	for _, code := range in.Codes {
		if code < 400 || code > 599 {
			fail(gatewayv1.RouteReasonUnsupportedValue, "retry.codes: %d is not from 400 to 599", code)
			continue
		}
		out.Codes = append(out.Codes, int(code))
	}
	slices.Sort(out.Codes)
	out.Codes = slices.Compact(out.Codes)
	return out
}

func compileSession(route RouteID, index int, ruleName string, in *gatewayv1.SessionPersistence, fail failFunc) *Session {
	if in == nil {
		return nil
	}
	bad := func(format string, a ...any) {
		fail(gatewayv1.RouteReasonUnsupportedValue, "sessionPersistence: "+format, a...)
	}
	out := &Session{Name: deref(in.SessionName, ""), AbsoluteTimeout: parseDuration("sessionPersistence.absoluteTimeout", in.AbsoluteTimeout, fail)}
	switch t := deref(in.Type, gatewayv1.CookieBasedSessionPersistence); t {
	case gatewayv1.CookieBasedSessionPersistence:
	case gatewayv1.HeaderBasedSessionPersistence:
		out.Header = true
		if in.CookieConfig != nil {
			bad("cookieConfig does not go with type Header")
		}
	default:
		bad("type %q is unknown", clip(string(t)))
	}
	if c := in.CookieConfig; c != nil {
		switch l := deref(c.LifetimeType, gatewayv1.SessionCookieLifetimeType); l {
		case gatewayv1.SessionCookieLifetimeType:
		case gatewayv1.PermanentCookieLifetimeType:
			if out.Permanent = true; out.AbsoluteTimeout == 0 {
				bad("a Permanent cookie needs an absoluteTimeout")
			}
		default:
			bad("cookieConfig.lifetimeType %q is unknown", clip(string(l)))
		}
	}
	switch {
	case out.Name == "":
		out.Name = sessionName(route, index, ruleName)
	case len(out.Name) > 128 || !IsToken(out.Name):
		bad("sessionName %q can't be the name of a cookie or header", clip(out.Name))
		out.Name = sessionName(route, index, ruleName)
	}
	if out.Header {
		out.Name = strings.ToLower(out.Name)
	}
	return out
}

// sessionName makes a name that is the same in all clusters and stays the same
// as long as the route's and rule's do; rules without a name go by their index.
func sessionName(route RouteID, index int, ruleName string) string {
	rule := "/" + ruleName // no name contains a slash, so this is no number
	if ruleName == "" {
		rule = fmt.Sprint(index)
	}
	sum := sha256.Sum256([]byte(string(route.Kind) + "/" + route.Namespace + "/" + route.Name + "/" + rule))
	return "causeway-session-" + hex.EncodeToString(sum[:6])
}
