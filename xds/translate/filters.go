package translate

import (
	xdscorev3 "github.com/cncf/xds/go/xds/core/v3"
	xdsmatcherv3 "github.com/cncf/xds/go/xds/type/matcher/v3"
	corev3 "github.com/envoyproxy/go-control-plane/envoy/config/core/v3"
	routev3 "github.com/envoyproxy/go-control-plane/envoy/config/route/v3"
	matchingv3 "github.com/envoyproxy/go-control-plane/envoy/extensions/common/matching/v3"
	compositev3 "github.com/envoyproxy/go-control-plane/envoy/extensions/filters/http/composite/v3"
	corsv3 "github.com/envoyproxy/go-control-plane/envoy/extensions/filters/http/cors/v3"
	routerv3 "github.com/envoyproxy/go-control-plane/envoy/extensions/filters/http/router/v3"
	statefulv3 "github.com/envoyproxy/go-control-plane/envoy/extensions/filters/http/stateful_session/v3"
	hcmv3 "github.com/envoyproxy/go-control-plane/envoy/extensions/filters/network/http_connection_manager/v3"
	"google.golang.org/protobuf/proto"
	"google.golang.org/protobuf/types/known/anypb"
)

// The HTTP filters of every connection manager, in the order in which they see
// requests. None but the router, and in a second hop the session's, does anything by
// itself: routes say what they do,
// in their typed_per_filter_config under these names. So a listener stays as it
// is whatever its routes come to need.
const (
	filterCORS    = "cors"
	filterRoute   = "route" // what Envoy can't be told otherwise by a route: a composite
	filterSession = "session"
	filterRouter  = "envoy.filters.http.router"
)

func httpFilters(h hop) []*hcmv3.HttpFilter {
	session := &statefulv3.StatefulSession{}
	if h == hopChain {
		session = pinState() // for the sessions of the first hop
	}

	return []*hcmv3.HttpFilter{
		httpFilter(filterCORS, &corsv3.Cors{}),
		httpFilter(filterRoute, &matchingv3.ExtensionWithMatcher{ExtensionConfig: namedConfig("composite", &compositev3.Composite{})}),
		httpFilter(filterSession, session),
		routerFilter(),
	}
}

func routerFilter() *hcmv3.HttpFilter {
	return httpFilter(filterRouter, &routerv3.Router{
		// Envoy's own headers would tell backends and clients how requests
		// travelled; and twice, where they chain.
		SuppressEnvoyHeaders: true,
	})
}

func httpFilter(name string, config proto.Message) *hcmv3.HttpFilter {
	return &hcmv3.HttpFilter{Name: name, ConfigType: &hcmv3.HttpFilter_TypedConfig{TypedConfig: pack(config)}}
}

// configure says what a filter does for a route.
func configure(r *routev3.Route, filter string, config proto.Message) {
	if r.TypedPerFilterConfig == nil {
		r.TypedPerFilterConfig = map[string]*anypb.Any{}
	}
	r.TypedPerFilterConfig[filter] = pack(config)
}

// runFilters makes whole filters run for a route, in the place of filterRoute.
// Unlike what filters let routes change of their own configuration, everything
// can be said that way. Only the last of several may make a request wait.
func runFilters(r *routev3.Route, list []*corev3.TypedExtensionConfig) {
	run := &compositev3.ExecuteFilterAction{}
	switch len(list) {
	case 0:
		return
	case 1:
		run.TypedConfig = list[0]
	default:
		run.FilterChain = &compositev3.FilterChainConfiguration{TypedConfig: list}
	}
	configure(r, filterRoute, &matchingv3.ExtensionWithMatcherPerRoute{XdsMatcher: &xdsmatcherv3.Matcher{
		OnNoMatch: &xdsmatcherv3.Matcher_OnMatch{OnMatch: &xdsmatcherv3.Matcher_OnMatch_Action{
			Action: &xdscorev3.TypedExtensionConfig{Name: "run", TypedConfig: pack(run)},
		}},
	}})
}

func namedConfig(name string, config proto.Message) *corev3.TypedExtensionConfig {
	return &corev3.TypedExtensionConfig{Name: name, TypedConfig: pack(config)}
}
