package resolve

import (
	"regexp"
	"testing"

	gatewayv1 "sigs.k8s.io/gateway-api/apis/v1"
)

// TestGRPCPaths: the path that a match is turned into takes exactly the calls
// that the match names.
func TestGRPCPaths(t *testing.T) {
	regex := ptr(gatewayv1.GRPCMethodMatchRegularExpression)
	for _, c := range []struct {
		name    string
		in      gatewayv1.GRPCMethodMatch
		yes, no []string
	}{
		{"both", gatewayv1.GRPCMethodMatch{Service: ptr("p.S"), Method: ptr("M")}, []string{"/p.S/M"}, []string{"/p.S/MM", "/p.S/", "/xp.S/M", "/p/S/M"}},
		{"service", gatewayv1.GRPCMethodMatch{Service: ptr("p.S")}, []string{"/p.S/M", "/p.S/N"}, []string{"/p.SS/M", "/q.S/M", "/pxS/M"}},
		{"method", gatewayv1.GRPCMethodMatch{Method: ptr("M")}, []string{"/p.S/M", "/q/M"}, []string{"/p.S/N", "/p.S/MM", "/M", "//M"}},
		{"expressions", gatewayv1.GRPCMethodMatch{Type: regex, Service: ptr("a|b"), Method: ptr("M[0-9]")}, []string{"/a/M1", "/b/M2"}, []string{"/a", "/b/M", "/ab/M1", "/a/M12"}},
		{"anchors", gatewayv1.GRPCMethodMatch{Type: regex, Service: ptr("^p.S$"), Method: ptr("^M|^N$")}, []string{"/p.S/M", "/pxS/N"}, []string{"/p.S/MN", "/xp.S/M"}},
		{"escaped", gatewayv1.GRPCMethodMatch{Type: regex, Service: ptr(`p\.S`), Method: ptr(`M\$`)}, []string{"/p.S/M$"}, []string{"/pxS/M$", "/p.S/M"}},
		{"anchored and folded", gatewayv1.GRPCMethodMatch{Type: regex, Service: ptr(`^(?i)ab$`)}, []string{"/aB/M", "/ab/N"}, []string{"/abc/M", "/ab/"}},
	} {
		m, err := compileGRPCMatch(&gatewayv1.GRPCRouteMatch{Method: &c.in})
		if err != nil {
			t.Errorf("%s: %v", c.name, err)
			continue
		}
		matches := func(path string) bool {
			switch m.PathType {
			case PathExact:
				return path == m.Path
			case PathPrefix:
				return len(path) > len(m.Path) && path[:len(m.Path)+1] == m.Path+"/"
			}
			return regexp.MustCompile("^(?:" + m.Path + ")$").MatchString(path)
		}
		for _, p := range c.yes {
			if !matches(p) {
				t.Errorf("%s: %s %s does not match %s", c.name, m.PathType, m.Path, p)
			}
		}
		for _, p := range c.no {
			if matches(p) {
				t.Errorf("%s: %s %s matches %s", c.name, m.PathType, m.Path, p)
			}
		}
	}
}
