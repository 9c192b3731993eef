package file

import "testing"

func TestNearField(t *testing.T) {
	t.Parallel()
	for _, c := range []struct{ plural, path, want string }{
		{"backendtlspolicies", "spec.targetRef", "targetRefs"},
		{"backendtlspolicies", "spec.validation.caCertificateRef", "caCertificateRefs"},
		{"httproutes", "spec.rules[0].matches[1].pth", "path"},
		{"httproutes", "spec.rules[0].backendrefs", "backendRefs"},
		{"httproutes", "spec.parentref", "parentRefs"},
		{"grpcroutes", "spec.rules[0].matches[0].path", ""},
		{"grpcroutes", "spec.rules[0].mathces", "matches"},
		{"tcproutes", "spec.hostnames", ""},
		{"listenersets", "spec.parentRefs", "parentRef"},
		{"listenersets", "spec.listeners[0].prot", "port"},
		{"gateways", "spec.infrastructure.labels.x.y", ""},
		{"gateways", "sepc", "spec"},
		{"gateways", "x", ""},
	} {
		s, err := shared.of(c.plural, "v1")
		if err != nil {
			t.Fatal(err)
		}
		if got := nearField(s.structural, c.path); got != c.want {
			t.Errorf("%s %s: %q, not %q", c.plural, c.path, got, c.want)
		}
	}
}
