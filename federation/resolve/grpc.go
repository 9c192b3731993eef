package resolve

import (
	"errors"
	"fmt"
	"regexp/syntax"
	"strings"

	gatewayv1 "sigs.k8s.io/gateway-api/apis/v1"
)

func grpcRule(in *gatewayv1.GRPCRouteRule) ruleSpec {
	out := ruleSpec{name: string(deref(in.Name, "")), filters: grpcFilters(in.Filters), session: in.SessionPersistence}
	for i := range in.Matches {
		m, err := compileGRPCMatch(&in.Matches[i])
		out.matches = append(out.matches, matchSpec{m, err})
	}
	if len(out.matches) == 0 {
		out.matches = []matchSpec{{match: &Match{PathType: PathPrefix, Path: "/"}}}
	}
	for _, b := range in.BackendRefs {
		out.backends = append(out.backends, gatewayv1.HTTPBackendRef{BackendRef: b.BackendRef, Filters: grpcFilters(b.Filters)})
	}
	return out
}

func grpcFilters(in []gatewayv1.GRPCRouteFilter) []gatewayv1.HTTPRouteFilter {
	var out []gatewayv1.HTTPRouteFilter
	for _, f := range in {
		out = append(out, gatewayv1.HTTPRouteFilter{
			Type:                   gatewayv1.HTTPRouteFilterType(f.Type),
			RequestHeaderModifier:  f.RequestHeaderModifier,
			ResponseHeaderModifier: f.ResponseHeaderModifier,
			RequestMirror:          f.RequestMirror,
			ExtensionRef:           f.ExtensionRef,
		})
	}
	return out
}

// compileGRPCMatch reads a match of a GRPCRoute: gRPC's path is
// /package.Service/Method.
func compileGRPCMatch(in *gatewayv1.GRPCRouteMatch) (*Match, error) {
	m := &Match{PathType: PathPrefix, Path: "/"}
	if in.Method != nil {
		if err := compileGRPCMethod(m, in.Method); err != nil {
			return nil, fmt.Errorf("method: %w", err)
		}
	}
	for _, h := range in.Headers {
		v, err := headerMatch(string(h.Name), string(deref(h.Type, gatewayv1.GRPCHeaderMatchExact)), h.Value)
		if err != nil {
			return nil, err
		}
		m.Headers = addMatch(m.Headers, v)
	}
	return m, nil
}

func compileGRPCMethod(m *Match, in *gatewayv1.GRPCMethodMatch) error {
	g := &GRPCMethod{Service: deref(in.Service, ""), Method: deref(in.Method, "")}
	if g.Service == "" && g.Method == "" {
		return errors.New("at least one of service and method must be there")
	}
	switch t := deref(in.Type, gatewayv1.GRPCMethodMatchExact); t {
	case gatewayv1.GRPCMethodMatchExact:
		// A leading dot, which the API allows, is how protobuf writes full names.
		g.Service = strings.TrimPrefix(g.Service, ".")
		if g.Service != "" && !isProtoName(g.Service, true) || len(g.Service) > maxPath {
			return fmt.Errorf("%q can't be the name of a service", clip(g.Service))
		}
		if g.Method != "" && !isProtoName(g.Method, false) || len(g.Method) > maxPath {
			return fmt.Errorf("%q can't be the name of a method", clip(g.Method))
		}
		switch {
		case g.Method == "":
			m.PathType, m.Path = PathPrefix, "/"+g.Service
		case g.Service == "":
			m.PathType, m.Path = PathRegex, "/[^/]+/"+g.Method
		default:
			m.PathType, m.Path = PathExact, "/"+g.Service+"/"+g.Method
		}
	case gatewayv1.GRPCMethodMatchRegularExpression:
		g.Regex = true
		m.PathType, m.Path = PathRegex, ""
		for _, expr := range []string{g.Service, g.Method} {
			part := "[^/]+"
			if expr != "" {
				if err := checkRegex(expr); err != nil {
					return err
				}
				part = "(?:" + unanchored(expr) + ")"
			}
			m.Path += "/" + part
		}
		if err := CheckRE2(m.Path); err != nil {
			return err
		}
	default:
		return fmt.Errorf("match type %q is unknown", clip(string(t)))
	}
	m.GRPC = g
	return nil
}

// isProtoName judges names of protobuf: of services, with packages, or of methods.
func isProtoName(s string, dots bool) bool {
	start := true
	for i := range len(s) {
		c := s[i]
		switch {
		case c >= 'a' && c <= 'z' || c >= 'A' && c <= 'Z' || c == '_', !start && c >= '0' && c <= '9':
			start = false
		case dots && c == '.' && !start:
			start = true
		default:
			return false
		}
	}
	return !start
}

// unanchored takes '^' and '$' out of an expression: it is matched as a whole
// anyway, but as a part of a path, within which they would match nothing.
func unanchored(expr string) string {
	out := strings.TrimPrefix(expr, "^")
	if rest, ok := strings.CutSuffix(out, "$"); ok && (len(rest)-len(strings.TrimRight(rest, `\`)))%2 == 0 {
		out = rest
	}
	re, err := syntax.Parse(out, syntax.Perl)
	if err == nil && !stripAnchors(re) {
		return out
	}
	// There are more of them inside, as in "^a|^b".
	if re, err = syntax.Parse(expr, syntax.Perl); err != nil || !stripAnchors(re) {
		return expr
	}
	return re.String()
}

// stripAnchors reports whether there were any.
func stripAnchors(re *syntax.Regexp) (changed bool) {
	switch re.Op {
	case syntax.OpBeginLine, syntax.OpEndLine, syntax.OpBeginText, syntax.OpEndText:
		re.Op, re.Flags = syntax.OpEmptyMatch, 0
		return true
	}
	for _, sub := range re.Sub {
		changed = stripAnchors(sub) || changed
	}
	return changed
}
