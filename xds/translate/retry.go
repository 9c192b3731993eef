package translate

import (
	"math"
	"time"

	routev3 "github.com/envoyproxy/go-control-plane/envoy/config/route/v3"
	hostsv3 "github.com/envoyproxy/go-control-plane/envoy/extensions/retry/host/previous_hosts/v3"
	prioritiesv3 "github.com/envoyproxy/go-control-plane/envoy/extensions/retry/priority/previous_priorities/v3"

	"github.com/causeway-mesh/causeway/federation/resolve"
)

const (
	retryConnect = "connect-failure"
	retrySafe    = retryConnect + ",refused-stream,reset-before-request"
)

// retryPolicy repeats what no backend can have seen: connections that failed and
// streams that were refused or reset before the request went out. That is safe
// for every method. The second repetition goes to other clusters, if there are.
func retryPolicy() *routev3.RetryPolicy {
	return &routev3.RetryPolicy{
		RetryOn:    retrySafe,
		NumRetries: u32(2),
		RetryHostPredicate: []*routev3.RetryPolicy_RetryHostPredicate{{
			Name:       "envoy.retry_host_predicates.previous_hosts",
			ConfigType: &routev3.RetryPolicy_RetryHostPredicate_TypedConfig{TypedConfig: pack(&hostsv3.PreviousHostsPredicate{})},
		}},
		RetryPriority: &routev3.RetryPolicy_RetryPriority{
			Name:       "envoy.retry_priorities.previous_priorities",
			ConfigType: &routev3.RetryPolicy_RetryPriority_TypedConfig{TypedConfig: pack(&prioritiesv3.PreviousPrioritiesConfig{UpdateFrequency: 2})},
		},
		HostSelectionRetryMaxAttempts: 3,
		RetryBackOff:                  backOff(10*time.Millisecond, 100*time.Millisecond),
	}
}

// tries is the retry policy of a route, nil for that of its virtual host. The
// first hop of a chain repeats nothing that the second one has seen, unless the
// rule asks for it; but while the internal listener is being made, it waits for it.
func tries(rule *resolve.Rule, chained bool) *routev3.RetryPolicy {
	if rule.BackendTimeout <= 0 && rule.Retry == nil && !chained {
		return nil
	}
	p := retryPolicy()
	if chained {
		p = &routev3.RetryPolicy{
			RetryOn:      retryConnect,
			NumRetries:   u32(5),
			RetryBackOff: backOff(25*time.Millisecond, 250*time.Millisecond),
		}
	}
	if rule.BackendTimeout > 0 {
		p.PerTryTimeout = dur(rule.BackendTimeout)
	}
	switch r := rule.Retry; {
	case r == nil:
	case r.Attempts <= 0:
		p.RetryOn, p.NumRetries = "", u32(0)
	default:
		// Resets are what happens to a try before there is an answer, a timeout
		// of its own included.
		p.RetryOn = retrySafe + ",reset"
		for _, c := range r.Codes {
			if c >= 100 && c < 600 {
				p.RetriableStatusCodes = append(p.RetriableStatusCodes, uint32(c))
			}
		}
		if len(p.RetriableStatusCodes) > 0 {
			p.RetryOn += ",retriable-status-codes"
		}
		p.NumRetries = u32(uint32(min(r.Attempts, math.MaxInt32)))
		if r.Backoff > 0 {
			// Envoy waits at random from nothing to the base, which doubles with each
			// repetition: so that the first wait is r.Backoff on average. It has no
			// least wait.
			p.RetryBackOff = backOff(2*r.Backoff, 10*r.Backoff)
		}
	}
	return p
}

func backOff(base, longest time.Duration) *routev3.RetryPolicy_RetryBackOff {
	return &routev3.RetryPolicy_RetryBackOff{BaseInterval: dur(base), MaxInterval: dur(longest)}
}
