package mcs

import (
	"fmt"
	"testing"

	discoveryv1 "k8s.io/api/discovery/v1"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
	mcsv1beta1 "sigs.k8s.io/mcs-api/pkg/apis/v1beta1"

	"github.com/causeway-mesh/causeway/test/conformance/fleet"
	"github.com/causeway-mesh/causeway/test/lab"
)

func testImage(t *testing.T) string { return lab.TestImage(t, "causeway-test") }

var trafficCases = []testCase{
	{"A Service of another network is reached by HTTP at its ClusterSetIP", func(t *testing.T, s suite, ns string) {
		s.serve(t, ns, "web", httpPort, c1)
		s.namespace(t, ns, c2)
		s.export(t, ns, "web", "", c1)
		s.reaches(t, c2, []int{c1}, "http", "-n", "10", "http://"+name(ns, "web")+"/")
	}},
	{"A Service of another network is reached by TCP at its ClusterSetIP", func(t *testing.T, s suite, ns string) {
		s.serve(t, ns, "raw", tcpPort, c1)
		s.namespace(t, ns, c2)
		s.export(t, ns, "raw", "", c1)
		s.reaches(t, c2, []int{c1}, "http", "-n", "10", "http://"+name(ns, "raw")+"/")
	}},
	{"A Service of another network is reached by UDP at its ClusterSetIP", func(t *testing.T, s suite, ns string) {
		s.serve(t, ns, "dns", udpPort, c1)
		s.namespace(t, ns, c2)
		s.export(t, ns, "dns", "", c1)
		s.reaches(t, c2, []int{c1}, "udp", "-n", "5", name(ns, "dns")+":53")
	}},
	{"A Service of the same network is reached at its ClusterSetIP", func(t *testing.T, s suite, ns string) {
		s.serve(t, ns, "web", httpPort, c2)
		s.namespace(t, ns, c3)
		s.export(t, ns, "web", "", c2)
		s.reaches(t, c3, []int{c2}, "http", "-n", "10", "http://"+name(ns, "web")+"/")
	}},
	{"The exporting cluster itself reaches it too", func(t *testing.T, s suite, ns string) {
		s.serve(t, ns, "web", httpPort, c1)
		s.export(t, ns, "web", "", c1)
		s.reaches(t, c1, []int{c1}, "http", "-n", "10", "http://"+name(ns, "web")+"/")
	}},
	{"The name within the cluster stays in the cluster", func(t *testing.T, s suite, ns string) {
		s.serve(t, ns, "web", httpPort, c1, c2)
		s.export(t, ns, "web", "", c1, c2)
		s.hasIP(t, c2, ns, "web")
		s.reaches(t, c2, []int{c2}, "http", "-n", "10", "http://web."+ns+".svc.cluster.local/")
	}},
	{"When the pods of one cluster go, those of the others take over", func(t *testing.T, s suite, ns string) {
		s.serve(t, ns, "web", httpPort, c1, c2)
		s.export(t, ns, "web", "", c1, c2)
		url := "http://" + name(ns, "web") + "/"
		s.reaches(t, c2, []int{c2}, "http", "-n", "10", url)
		s.scale(t, c2, ns, "web", 0)
		s.reaches(t, c2, []int{c1}, "http", "-n", "10", url)
		s.scale(t, c2, ns, "web", 1)
		s.reaches(t, c2, []int{c2}, "http", "-n", "10", url)
	}},
	{"A port is reached only at clusters that export it", func(t *testing.T, s suite, ns string) {
		s.serve(t, ns, "web", "ports: [{name: a, port: 80, targetPort: 8080, appProtocol: http}]\n", c1)
		s.serve(t, ns, "web", "ports: [{name: b, port: 81, targetPort: 8081, appProtocol: http}]\n", c2)
		s.export(t, ns, "web", "", c1, c2)
		for _, c := range everywhere {
			s.namespace(t, ns, c)
			s.reaches(t, c, []int{c1}, "http", "-n", "5", "http://"+name(ns, "web")+":80/")
			s.reaches(t, c, []int{c2}, "http", "-n", "5", "http://"+name(ns, "web")+":81/")
		}
	}},
	{"EndpointSlices of an import name their service and one source cluster each", func(t *testing.T, s suite, ns string) {
		s.serve(t, ns, "web", httpPort, c2, c3)
		s.export(t, ns, "web", "", c2, c3)
		fleet.Eventually(t, "slices of c2 and c3", func() error {
			d, err := s.client(c2, endpoints, ns)
			if err != nil {
				return err
			}
			list, err := d.List(t.Context(), metav1.ListOptions{LabelSelector: mcsv1beta1.LabelServiceName + "=web"})
			if err != nil {
				return err
			}
			from := map[string]bool{}
			for _, x := range list.Items {
				if x.GetLabels()[discoveryv1.LabelManagedBy] == "" || x.GetLabels()[discoveryv1.LabelManagedBy] == "endpointslice-controller.k8s.io" {
					return fmt.Errorf("slice %s is managed by %q", x.GetName(), x.GetLabels()[discoveryv1.LabelManagedBy])
				}
				from[x.GetLabels()[mcsv1beta1.LabelSourceCluster]] = true
			}
			if len(from) != 2 || !from["c2"] || !from["c3"] {
				return fmt.Errorf("slices of %v", from)
			}
			return nil
		})
	}},
}

var lifeCases = []testCase{
	{"An import is kept while one exporter remains, and goes with the last", func(t *testing.T, s suite, ns string) {
		s.serve(t, ns, "web", httpPort, c1, c2)
		s.export(t, ns, "web", "", c1, c2)
		s.lists(t, c1, ns, "web", "c1", "c2")
		ip := s.hasIP(t, c1, ns, "web").Spec.IPs[0]
		s.delete(t, c2, exports, ns, "web")
		s.lists(t, c1, ns, "web", "c1")
		if got := s.hasIP(t, c1, ns, "web").Spec.IPs[0]; got != ip {
			t.Errorf("its address became %s, was %s", got, ip)
		}
		s.reaches(t, c2, []int{c1}, "http", "-n", "5", "http://"+name(ns, "web")+"/")
		s.delete(t, c1, exports, ns, "web")
		for _, c := range []int{c1, c2} {
			s.gone(t, c, ns, "web")
		}
	}},
	{"Deleting the Service is withdrawing it", func(t *testing.T, s suite, ns string) {
		s.service(t, ns, "web", httpPort, c1)
		s.namespace(t, ns, c2)
		s.export(t, ns, "web", "", c1)
		s.hasIP(t, c2, ns, "web")
		s.delete(t, c1, services, ns, "web")
		s.gone(t, c2, ns, "web")
		s.condition(t, c1, ns, "web", valid, no, string(mcsv1beta1.ServiceExportReasonNoService))
	}},
	{"A ServiceImport that somebody else made is left alone", func(t *testing.T, s suite, ns string) {
		s.namespace(t, ns, c2)
		s.apply(t, c2, fmt.Sprintf("apiVersion: multicluster.x-k8s.io/v1beta1\nkind: ServiceImport\nmetadata: {name: web, namespace: %s}\nspec: {type: Headless, ports: [{port: 7}]}\n", ns))
		s.service(t, ns, "web", httpPort, c1)
		s.export(t, ns, "web", "", c1)
		s.hasIP(t, c1, ns, "web")
		fleet.Stays(t, "it is as it was", func() error {
			i, err := s.imported(t.Context(), c2, ns, "web")
			if err == nil && (i.Spec.Type != mcsv1beta1.Headless || len(i.Spec.Ports) != 1 || i.Spec.Ports[0].Port != 7) {
				err = fmt.Errorf("%+v", i.Spec)
			}
			return err
		})
	}},
}
