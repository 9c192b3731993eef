package mcs

import (
	"testing"

	apierrors "k8s.io/apimachinery/pkg/api/errors"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
	mcsv1beta1 "sigs.k8s.io/mcs-api/pkg/apis/v1beta1"

	"github.com/causeway-mesh/causeway/test/conformance/fleet"
)

const (
	valid    = mcsv1beta1.ServiceExportConditionValid
	ready    = mcsv1beta1.ServiceExportConditionReady
	conflict = mcsv1beta1.ServiceExportConditionConflict
	yes      = metav1.ConditionTrue
	no       = metav1.ConditionFalse
)

var exportCases = []testCase{
	{"A Service that is exported is Valid and Ready", func(t *testing.T, s suite, ns string) {
		s.service(t, ns, "web", httpPort, c1)
		s.export(t, ns, "web", "", c1)
		s.condition(t, c1, ns, "web", valid, yes, string(mcsv1beta1.ServiceExportReasonValid))
		s.condition(t, c1, ns, "web", ready, yes, "")
		s.condition(t, c1, ns, "web", conflict, no, string(mcsv1beta1.ServiceExportReasonNoConflicts))
	}},
	{"A ServiceExport without its Service is not Valid until there is one", func(t *testing.T, s suite, ns string) {
		s.namespace(t, ns, c1)
		s.export(t, ns, "late", "", c1)
		s.condition(t, c1, ns, "late", valid, no, string(mcsv1beta1.ServiceExportReasonNoService))
		s.service(t, ns, "late", httpPort, c1)
		s.condition(t, c1, ns, "late", valid, yes, "")
	}},
	{"A Service of type ExternalName can not be exported", func(t *testing.T, s suite, ns string) {
		s.service(t, ns, "outside", "type: ExternalName\nexternalName: example.com\n", c1)
		s.namespace(t, ns, c2)
		s.export(t, ns, "outside", "", c1)
		s.condition(t, c1, ns, "outside", valid, no, string(mcsv1beta1.ServiceExportReasonInvalidServiceType))
		fleet.Stays(t, "no import of it", func() error {
			if _, err := s.imported(t.Context(), c2, ns, "outside"); !apierrors.IsNotFound(err) {
				return errOf("it is there", err)
			}
			return nil
		})
	}},
	{"Services of type NodePort and LoadBalancer are exported as ClusterSetIP", func(t *testing.T, s suite, ns string) {
		s.service(t, ns, "node", "type: NodePort\n"+httpPort, c1)
		s.service(t, ns, "balanced", "type: LoadBalancer\n"+httpPort, c1)
		s.namespace(t, ns, c2)
		for _, svc := range []string{"node", "balanced"} {
			s.export(t, ns, svc, "", c1)
			if got := s.hasIP(t, c2, ns, svc); got.Spec.Type != mcsv1beta1.ClusterSetIP {
				t.Errorf("%s is of type %s", svc, got.Spec.Type)
			}
		}
	}},
	{"An import exists in every cluster that has the namespace, and in no other", func(t *testing.T, s suite, ns string) {
		s.service(t, ns, "web", httpPort, c1)
		s.namespace(t, ns, c2)
		s.export(t, ns, "web", "", c1)
		s.hasIP(t, c1, ns, "web")
		s.hasIP(t, c2, ns, "web")
		fleet.Stays(t, "no import where the namespace is not", func() error {
			if _, err := s.imported(t.Context(), c3, ns, "web"); !apierrors.IsNotFound(err) {
				return errOf("it is there", err)
			}
			return nil
		})
		s.namespace(t, ns, c3)
		s.hasIP(t, c3, ns, "web")
	}},
	{"An import lists the clusters that export it", func(t *testing.T, s suite, ns string) {
		s.service(t, ns, "web", httpPort, c1, c2)
		s.export(t, ns, "web", "", c1, c2)
		for _, c := range []int{c1, c2} {
			s.lists(t, c, ns, "web", "c1", "c2")
		}
	}},
	{"A ServiceExport that another controller owns the status of keeps foreign conditions", func(t *testing.T, s suite, ns string) {
		s.service(t, ns, "web", httpPort, c1)
		s.export(t, ns, "web", "", c1)
		s.condition(t, c1, ns, "web", valid, yes, "")
		s.addCondition(t, c1, ns, "web", "example.com/Audited")
		s.condition(t, c1, ns, "web", "example.com/Audited", yes, "ByHand")
		// Something of ours changes after that.
		s.delete(t, c1, services, ns, "web")
		s.condition(t, c1, ns, "web", valid, no, "")
		s.condition(t, c1, ns, "web", "example.com/Audited", yes, "ByHand")
	}},
}
