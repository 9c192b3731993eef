package mcs

import (
	"fmt"
	"maps"
	"slices"
	"testing"

	corev1 "k8s.io/api/core/v1"
	mcsv1beta1 "sigs.k8s.io/mcs-api/pkg/apis/v1beta1"

	"github.com/causeway-mesh/causeway/test/conformance/fleet"
)

// senior exports from c1, and once that is known, from c2: the first is the older one.
func (s suite) senior(t *testing.T, ns, svc, first, second string) {
	t.Helper()
	s.service(t, ns, svc, first, c1)
	s.service(t, ns, svc, second, c2)
	s.export(t, ns, svc, "", c1)
	s.lists(t, c2, ns, svc, "c1")
	s.export(t, ns, svc, "", c2)
	s.lists(t, c1, ns, svc, "c1", "c2")
}

// conflicts waits until all constituent exports say so.
func (s suite) conflicts(t *testing.T, ns, svc string, reasons ...mcsv1beta1.ServiceExportConditionReason) {
	t.Helper()
	for _, c := range []int{c1, c2} {
		for _, r := range reasons {
			s.condition(t, c, ns, svc, conflict, yes, string(r))
		}
	}
}

// is waits until the import says so in both clusters.
func (s suite) is(t *testing.T, ns, svc, what string, holds func(*mcsv1beta1.ServiceImport) bool) {
	t.Helper()
	for _, c := range []int{c1, c2} {
		fleet.Eventually(t, fmt.Sprintf("ServiceImport %s/%s in %s: %s", ns, svc, s.Clusters[c].Name, what), func() error {
			i, err := s.imported(t.Context(), c, ns, svc)
			if err == nil && !holds(i) {
				err = fmt.Errorf("%+v, %v", i.Spec, i.Annotations)
			}
			return err
		})
	}
}

func portsOf(i *mcsv1beta1.ServiceImport) []int32 {
	var out []int32
	for _, p := range i.Spec.Ports {
		out = append(out, p.Port)
	}
	slices.Sort(out)
	return out
}

var mergeCases = []testCase{
	{"Ports of all exports are united", func(t *testing.T, s suite, ns string) {
		s.senior(t, ns, "web", "ports: [{name: a, port: 80}]\n", "ports: [{name: b, port: 81}]\n")
		s.is(t, ns, "web", "has both ports", func(i *mcsv1beta1.ServiceImport) bool { return slices.Equal(portsOf(i), []int32{80, 81}) })
	}},
	{"Of conflicting ports the oldest export wins, and all exports say so", func(t *testing.T, s suite, ns string) {
		s.senior(t, ns, "web", "ports: [{name: http, port: 80}]\n", "ports: [{name: http, port: 8080}]\n")
		s.is(t, ns, "web", "has the senior's port alone", func(i *mcsv1beta1.ServiceImport) bool { return slices.Equal(portsOf(i), []int32{80}) })
		s.conflicts(t, ns, "web", mcsv1beta1.ServiceExportReasonPortConflict)
	}},
	{"Of conflicting types the oldest export wins", func(t *testing.T, s suite, ns string) {
		s.senior(t, ns, "web", httpPort, "clusterIP: None\n"+httpPort)
		s.is(t, ns, "web", "is ClusterSetIP", func(i *mcsv1beta1.ServiceImport) bool { return i.Spec.Type == mcsv1beta1.ClusterSetIP })
		s.conflicts(t, ns, "web", mcsv1beta1.ServiceExportReasonTypeConflict)
	}},
	{"Of conflicting session affinities the oldest export wins", func(t *testing.T, s suite, ns string) {
		s.senior(t, ns, "web", "sessionAffinity: ClientIP\n"+httpPort, httpPort)
		s.is(t, ns, "web", "has the senior's affinity", func(i *mcsv1beta1.ServiceImport) bool {
			return i.Spec.SessionAffinity == corev1.ServiceAffinityClientIP
		})
		s.conflicts(t, ns, "web", mcsv1beta1.ServiceExportReasonSessionAffinityConflict)
	}},
	{"Of conflicting session affinity configurations the oldest export wins", func(t *testing.T, s suite, ns string) {
		affinity := "sessionAffinity: ClientIP\nsessionAffinityConfig: {clientIP: {timeoutSeconds: %d}}\n"
		s.senior(t, ns, "web", fmt.Sprintf(affinity, 60)+httpPort, fmt.Sprintf(affinity, 90)+httpPort)
		s.is(t, ns, "web", "has the senior's time", func(i *mcsv1beta1.ServiceImport) bool {
			c := i.Spec.SessionAffinityConfig
			return c != nil && c.ClientIP != nil && *c.ClientIP.TimeoutSeconds == 60
		})
		s.conflicts(t, ns, "web", mcsv1beta1.ServiceExportReasonSessionAffinityConfigConflict)
	}},
	{"Of conflicting internal traffic policies the oldest export wins", func(t *testing.T, s suite, ns string) {
		s.senior(t, ns, "web", "internalTrafficPolicy: Local\n"+httpPort, httpPort)
		s.is(t, ns, "web", "has the senior's policy", func(i *mcsv1beta1.ServiceImport) bool {
			p := i.Spec.InternalTrafficPolicy
			return p != nil && *p == corev1.ServiceInternalTrafficPolicyLocal
		})
		s.conflicts(t, ns, "web", mcsv1beta1.ServiceExportReasonInternalTrafficPolicyConflict)
	}},
	{"Of conflicting traffic distributions the oldest export wins", func(t *testing.T, s suite, ns string) {
		s.senior(t, ns, "web", "trafficDistribution: PreferClose\n"+httpPort, httpPort)
		s.is(t, ns, "web", "has the senior's distribution", func(i *mcsv1beta1.ServiceImport) bool {
			d := i.Spec.TrafficDistribution
			return d != nil && *d == corev1.ServiceTrafficDistributionPreferClose
		})
		s.conflicts(t, ns, "web", mcsv1beta1.ServiceExportReasonTrafficDistributionConflict)
	}},
	{"Several conflicts are named together", func(t *testing.T, s suite, ns string) {
		s.senior(t, ns, "web", "sessionAffinity: ClientIP\nports: [{name: http, port: 80}]\n", "ports: [{name: http, port: 8080}]\n")
		s.conflicts(t, ns, "web", mcsv1beta1.ServiceExportReasonPortConflict, mcsv1beta1.ServiceExportReasonSessionAffinityConflict)
	}},
	{"A conflict that is mended is none any more", func(t *testing.T, s suite, ns string) {
		s.senior(t, ns, "web", httpPort, "sessionAffinity: ClientIP\n"+httpPort)
		s.conflicts(t, ns, "web", mcsv1beta1.ServiceExportReasonSessionAffinityConflict)
		s.service(t, ns, "web", "sessionAffinity: None\n"+httpPort, c2)
		for _, c := range []int{c1, c2} {
			s.condition(t, c, ns, "web", conflict, no, string(mcsv1beta1.ServiceExportReasonNoConflicts))
		}
	}},
	{"Exported labels and annotations are those of the import", func(t *testing.T, s suite, ns string) {
		s.service(t, ns, "web", httpPort, c1)
		s.namespace(t, ns, c2)
		s.export(t, ns, "web", "exportedLabels: {team: blue}\nexportedAnnotations: {example.com/tier: gold}\n", c1)
		s.is(t, ns, "web", "has them", func(i *mcsv1beta1.ServiceImport) bool {
			return i.Labels["team"] == "blue" && i.Annotations["example.com/tier"] == "gold"
		})
	}},
	{"Of conflicting exported labels and annotations the oldest export's are taken", func(t *testing.T, s suite, ns string) {
		s.service(t, ns, "web", httpPort, c1, c2)
		s.export(t, ns, "web", "exportedLabels: {team: blue}\nexportedAnnotations: {example.com/tier: gold}\n", c1)
		s.lists(t, c2, ns, "web", "c1")
		s.export(t, ns, "web", "exportedLabels: {team: red}\nexportedAnnotations: {example.com/tier: tin}\n", c2)
		s.conflicts(t, ns, "web", mcsv1beta1.ServiceExportReasonLabelsConflict, mcsv1beta1.ServiceExportReasonAnnotationsConflict)
		s.is(t, ns, "web", "has the senior's", func(i *mcsv1beta1.ServiceImport) bool {
			return i.Labels["team"] == "blue" && i.Annotations["example.com/tier"] == "gold"
		})
	}},
	{"The application protocol of a port travels", func(t *testing.T, s suite, ns string) {
		s.service(t, ns, "web", "ports: [{name: grpc, port: 80, appProtocol: kubernetes.io/h2c}]\n", c1)
		s.namespace(t, ns, c2)
		s.export(t, ns, "web", "", c1)
		s.is(t, ns, "web", "has it", func(i *mcsv1beta1.ServiceImport) bool {
			return len(i.Spec.Ports) == 1 && i.Spec.Ports[0].AppProtocol != nil && *i.Spec.Ports[0].AppProtocol == "kubernetes.io/h2c"
		})
	}},
	{"A dual-stack Service has addresses of both families everywhere", func(t *testing.T, s suite, ns string) {
		s.service(t, ns, "web", "ipFamilyPolicy: RequireDualStack\n"+httpPort, c1)
		s.namespace(t, ns, c2)
		s.export(t, ns, "web", "", c1)
		s.is(t, ns, "web", "has both", func(i *mcsv1beta1.ServiceImport) bool {
			families := map[corev1.IPFamily]bool{}
			for _, f := range i.Spec.IPFamilies {
				families[f] = true
			}
			return len(i.Spec.IPs) == 2 && maps.Equal(families, map[corev1.IPFamily]bool{corev1.IPv4Protocol: true, corev1.IPv6Protocol: true})
		})
	}},
}
