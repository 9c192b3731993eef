package mcs

import (
	"fmt"
	"slices"
	"testing"

	"github.com/causeway-mesh/causeway/test/conformance/fleet"
)

// answers waits until a look-up answers as it should.
func (s suite) answers(t *testing.T, c int, kind, name, rcode string, right func([]string) bool) {
	t.Helper()
	fleet.Eventually(t, fmt.Sprintf("%s %s in %s", kind, name, s.Clusters[c].Name), func() error {
		a, err := s.look(t.Context(), c, kind, name)
		if err == nil && (a.RCode != rcode || !right(a.Records)) {
			err = fmt.Errorf("%s %v", a.RCode, a.Records)
		}
		return err
	})
}

func none(records []string) bool { return len(records) == 0 }

var nameCases = []testCase{
	{"The name of a ClusterSetIP import answers with its address", func(t *testing.T, s suite, ns string) {
		s.service(t, ns, "web", httpPort, c1)
		s.namespace(t, ns, c2)
		s.export(t, ns, "web", "", c1)
		for _, c := range []int{c1, c2} {
			ip := s.hasIP(t, c, ns, "web").Spec.IPs[0]
			s.answers(t, c, "A", name(ns, "web"), "NOERROR", func(r []string) bool { return slices.Equal(r, []string{ip}) })
		}
	}},
	{"A name that nobody exports does not exist", func(t *testing.T, s suite, ns string) {
		s.service(t, ns, "web", httpPort, c1)
		s.answers(t, c1, "A", name(ns, "web"), "NXDOMAIN", none)
	}},
	{"The ports of an import have SRV records", func(t *testing.T, s suite, ns string) {
		s.service(t, ns, "web", httpPort, c1)
		s.namespace(t, ns, c2)
		s.export(t, ns, "web", "", c1)
		s.answers(t, c2, "SRV", "_http._tcp."+name(ns, "web"), "NOERROR", func(r []string) bool { return len(r) == 1 })
	}},
	{"There is no name for one cluster of a ClusterSetIP import", func(t *testing.T, s suite, ns string) {
		s.serve(t, ns, "web", httpPort, c1)
		s.namespace(t, ns, c2)
		s.export(t, ns, "web", "", c1)
		s.hasIP(t, c2, ns, "web")
		s.answers(t, c2, "A", "c1."+name(ns, "web"), "NXDOMAIN", none)
	}},
	{"A headless import answers with the addresses of all ready pods", func(t *testing.T, s suite, ns string) {
		s.serve(t, ns, "db", "clusterIP: None\n"+tcpPort, c2, c3)
		s.export(t, ns, "db", "", c2, c3)
		s.answers(t, c2, "A", name(ns, "db"), "NOERROR", func(r []string) bool { return len(r) == 2 })
	}},
	{"A pod with a hostname of a headless import has a name with its cluster in it", func(t *testing.T, s suite, ns string) {
		for _, c := range []int{c2, c3} {
			s.apply(t, c, fmt.Sprintf(`
apiVersion: v1
kind: Namespace
metadata: {name: %[1]s}
---
apiVersion: v1
kind: Pod
metadata: {name: db-0, namespace: %[1]s, labels: {app: db}}
spec:
  hostname: db-0
  subdomain: db
  terminationGracePeriodSeconds: 1
  containers:
  - {name: echo, image: "%[2]s", args: [serve, -http, "8080"]}
`, ns, testImage(t)))
			s.service(t, ns, "db", "clusterIP: None\nselector: {app: db}\n"+tcpPort, c)
		}
		s.export(t, ns, "db", "", c2, c3)
		for _, cluster := range []string{"c2", "c3"} {
			s.answers(t, c2, "A", "db-0."+cluster+"."+name(ns, "db"), "NOERROR", func(r []string) bool { return len(r) == 1 })
		}
	}},
	{"The last export takes the name with it", func(t *testing.T, s suite, ns string) {
		s.service(t, ns, "web", httpPort, c1)
		s.namespace(t, ns, c2)
		s.export(t, ns, "web", "", c1)
		s.answers(t, c2, "A", name(ns, "web"), "NOERROR", func(r []string) bool { return len(r) == 1 })
		s.delete(t, c1, exports, ns, "web")
		s.answers(t, c2, "A", name(ns, "web"), "NXDOMAIN", none)
	}},
}
