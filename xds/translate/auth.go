package translate

import (
	"fmt"
	"net/http"
	"slices"
	"strings"
	"time"

	mutationv3 "github.com/envoyproxy/go-control-plane/envoy/config/common/mutation_rules/v3"
	corev3 "github.com/envoyproxy/go-control-plane/envoy/config/core/v3"
	authzv3 "github.com/envoyproxy/go-control-plane/envoy/extensions/filters/http/ext_authz/v3"
	matcherv3 "github.com/envoyproxy/go-control-plane/envoy/type/matcher/v3"
	typev3 "github.com/envoyproxy/go-control-plane/envoy/type/v3"

	"github.com/causeway-mesh/causeway/federation/resolve"
)

const (
	filterAuth = "envoy.filters.http.ext_authz"
	// authTimeout bounds what asking costs a request: Gateway API says nothing.
	authTimeout = 5 * time.Second
	// notCopied are headers of an answer that speak of the answer itself: copied
	// into the request, they would change what its body is taken for.
	notCopied = `host|connection|keep-alive|transfer-encoding|upgrade|te|trailer|date|content-.*`
)

// authorize asks a service about the requests of a route (GEP-1494). What the
// service refuses, the client gets as the service says it; when it does not
// answer, or fails, the client gets 503 and the backend nothing.
func (s *routeSet) authorize(a *resolve.ExternalAuth) (*corev3.TypedExtensionConfig, error) {
	out := &authzv3.ExtAuthz{
		TransportApiVersion: corev3.ApiVersion_V3,
		StatusOnError:       &typev3.HttpStatus{Code: typev3.StatusCode(http.StatusServiceUnavailable)},
		ValidateMutations:   true,
	}
	if len(a.RequestHeaders) > 0 {
		list, err := headerNames(a.RequestHeaders)
		if err != nil {
			return nil, err
		}
		out.AllowedHeaders = list
	}
	if a.MaxBody > 0 {
		out.WithRequestBody = &authzv3.BufferSettings{MaxRequestBytes: a.MaxBody}
	}
	name := s.clusterOf(a.Backend)
	if a.GRPC {
		out.Services = &authzv3.ExtAuthz_GrpcService{GrpcService: &corev3.GrpcService{
			TargetSpecifier: &corev3.GrpcService_EnvoyGrpc_{EnvoyGrpc: &corev3.GrpcService_EnvoyGrpc{ClusterName: name, Authority: authority(a.Backend)}},
			Timeout:         dur(authTimeout),
		}}
		return namedConfig(filterAuth, out), nil
	}
	prefix := strings.TrimRight(a.Path, "/")
	if prefix != "" {
		prefix = absolute(prefix)
	}
	if !visible(prefix) || strings.ContainsAny(prefix, "?#") {
		return nil, fmt.Errorf("path %q of the external authorization is not a path", clip(a.Path))
	}
	copied := &matcherv3.ListStringMatcher{Patterns: []*matcherv3.StringMatcher{matching(`[^:].*`)}}
	if len(a.ResponseHeaders) > 0 {
		list, err := headerNames(a.ResponseHeaders)
		if err != nil {
			return nil, err
		}
		copied = list
	} else {
		out.DecoderHeaderMutationRules = &mutationv3.HeaderMutationRules{
			DisallowSystem:     yes(),
			DisallowExpression: &matcherv3.RegexMatcher{Regex: notCopied},
		}
	}
	out.Services = &authzv3.ExtAuthz_HttpService{HttpService: &authzv3.HttpService{
		ServerUri: &corev3.HttpUri{
			Uri:              "http://" + authority(a.Backend),
			HttpUpstreamType: &corev3.HttpUri_Cluster{Cluster: name},
			Timeout:          dur(authTimeout),
		},
		PathPrefix:            prefix,
		AuthorizationResponse: &authzv3.AuthorizationResponse{AllowedUpstreamHeaders: copied},
	}}
	return namedConfig(filterAuth, out), nil
}

// authority is the name by which a backend is asked.
func authority(b resolve.BackendKey) string {
	n := b.Name + "." + b.Namespace
	if !hostname(n) {
		return "backend"
	}
	return n
}

func headerNames(list []string) (*matcherv3.ListStringMatcher, error) {
	out := &matcherv3.ListStringMatcher{}
	for _, n := range list {
		n = strings.ToLower(n)
		if !resolve.IsToken(n) {
			return nil, fmt.Errorf("%q can't be the name of a header", clip(n))
		}
		out.Patterns = append(out.Patterns, exactly(n))
	}
	slices.SortFunc(out.Patterns, func(a, b *matcherv3.StringMatcher) int { return strings.Compare(a.GetExact(), b.GetExact()) })
	return out, nil
}

// matching matches a regular expression that is known to be one.
func matching(expr string) *matcherv3.StringMatcher {
	return &matcherv3.StringMatcher{MatchPattern: &matcherv3.StringMatcher_SafeRegex{SafeRegex: &matcherv3.RegexMatcher{Regex: expr}}}
}
