package resolve

import (
	"strings"
	"testing"

	corev1 "k8s.io/api/core/v1"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
	mcsv1beta1 "sigs.k8s.io/mcs-api/pkg/apis/v1beta1"

	"github.com/causeway-mesh/causeway/cluster"
	"github.com/causeway-mesh/causeway/federation"
)

// exporting is a world of clusters that export app/a or not, edited step by step.
type exporting struct {
	t       *testing.T
	builder *federation.Builder
	res     *Result
}

func newExporting(t *testing.T, ids ...cluster.ID) *exporting {
	t.Helper()
	x := &exporting{t: t, builder: federation.NewBuilder()}
	e := x.builder.Edit()
	for _, id := range ids {
		e.SetCluster(federation.Cluster{ID: id, Meta: cluster.Meta{Network: "n"}, Health: federation.Health{Liveness: federation.Alive}})
	}
	snap, _ := e.Commit()
	x.res = Resolve(ids[0], snap)
	return x
}

// put sets an object of a cluster, published at a revision, 0 for not yet; value nil
// removes it.
func (x *exporting) put(id cluster.ID, kind cluster.Kind, revision int64, value any) {
	x.t.Helper()
	ref := cluster.Ref{Kind: kind, Namespace: "app", Name: "a"}
	c := federation.Change{Cluster: id, Ref: ref}
	if value != nil {
		c.Object = &cluster.Object{Ref: ref, Cluster: id, Value: value, Seniority: cluster.Seniority{Revision: revision}}
	}
	e := x.builder.Edit()
	if err := e.Apply(c); err != nil {
		x.t.Fatal(err)
	}
	snap, changed := e.Commit()
	x.res, _ = x.res.Update(snap, changed)
}

func exportA() *mcsv1beta1.ServiceExport {
	return &mcsv1beta1.ServiceExport{ObjectMeta: metav1.ObjectMeta{Namespace: "app", Name: "a"}}
}

func serviceA(port int32, typ corev1.ServiceType) *corev1.Service {
	return &corev1.Service{ObjectMeta: metav1.ObjectMeta{Namespace: "app", Name: "a"}, Spec: corev1.ServiceSpec{
		Type: typ, Ports: []corev1.ServicePort{{Port: port, Protocol: corev1.ProtocolTCP}},
	}}
}

func (x *exporting) exporters() string {
	imp, ok := x.res.Imports.Get([]byte("app/a"))
	if !ok {
		return ""
	}
	var out []string
	for _, e := range imp.Exporters {
		out = append(out, string(e.Cluster))
	}
	return strings.Join(out, " ")
}

// condition gives "Status Reason" of a condition of a cluster's export.
func (x *exporting) condition(id cluster.ID, typ mcsv1beta1.ServiceExportConditionType) string {
	x.t.Helper()
	rep, ok := x.res.Report(cluster.Ref{Kind: cluster.KindServiceExport, Namespace: "app", Name: "a"}, id)
	if !ok {
		return ""
	}
	for _, c := range rep.Conditions {
		if c.Type == string(typ) {
			return string(c.Status) + " " + c.Reason
		}
	}
	return ""
}

// TestImportLastsAsLongAsAnExport: "If all ServiceExport instances are deleted, each
// ServiceImport will also be deleted from all clusters", and not before.
func TestImportLastsAsLongAsAnExport(t *testing.T) {
	x := newExporting(t, "north", "east", "west") // seen by north, which exports nothing
	step := func(want string) {
		t.Helper()
		if got := x.exporters(); got != want {
			t.Fatalf("exported by %q, want %q", got, want)
		}
		_, frontend := x.res.Frontend(FrontendKey{Kind: cluster.KindServiceImport, Namespace: "app", Name: "a"})
		if frontend != (want != "") {
			t.Fatalf("exported by %q: a frontend is there: %v", want, frontend)
		}
	}
	step("")
	x.put("east", cluster.KindServiceExport, 2, exportA())
	step("") // no Service yet
	x.put("east", cluster.KindService, 3, serviceA(80, corev1.ServiceTypeClusterIP))
	step("east")
	x.put("west", cluster.KindService, 4, serviceA(81, corev1.ServiceTypeLoadBalancer))
	step("east")
	x.put("west", cluster.KindServiceExport, 5, exportA())
	step("east west")
	for _, id := range []cluster.ID{"east", "west"} {
		if got := x.condition(id, mcsv1beta1.ServiceExportConditionConflict); got != "True PortConflict" {
			t.Errorf("%s: Conflict is %q", id, got)
		}
	}
	x.put("east", cluster.KindServiceExport, 0, nil)
	step("west")
	if got := x.condition("west", mcsv1beta1.ServiceExportConditionConflict); got != "False NoConflicts" {
		t.Errorf("alone, and Conflict is %q", got)
	}
	if got := x.condition("east", mcsv1beta1.ServiceExportConditionValid); got != "" {
		t.Errorf("the export is gone, and Valid is %q", got)
	}
	x.put("west", cluster.KindService, 6, serviceA(81, corev1.ServiceTypeExternalName))
	step("")
	x.put("west", cluster.KindService, 7, serviceA(81, corev1.ServiceTypeNodePort))
	step("west")
	x.put("west", cluster.KindServiceExport, 0, nil)
	step("")
}

// TestExportReady: an export is Ready once it is in the store, Pending until then, and
// Failed if it can't be put there.
func TestExportReady(t *testing.T) {
	x := newExporting(t, "east", "west")
	x.put("east", cluster.KindServiceExport, 0, exportA())
	steps := []struct {
		service      *corev1.Service
		export       *mcsv1beta1.ServiceExport
		revision     int64
		valid, ready string
	}{
		{nil, exportA(), 0, "False NoService", "False Pending"},
		{serviceA(80, corev1.ServiceTypeExternalName), exportA(), 0, "False InvalidServiceType", "False Pending"},
		{serviceA(80, corev1.ServiceTypeClusterIP), exportA(), 0, "True Valid", "False Pending"},
		{serviceA(80, corev1.ServiceTypeClusterIP), exportA(), 9, "True Valid", "True Exported"},
		{serviceA(80, corev1.ServiceTypeClusterIP), func() *mcsv1beta1.ServiceExport {
			e := exportA()
			e.Spec.ExportedAnnotations = map[string]string{"note": strings.Repeat("x", 1<<20)}
			return e
		}(), 9, "True Valid", "False Failed"},
	}
	for _, s := range steps {
		if s.service != nil {
			x.put("east", cluster.KindService, s.revision, s.service)
		}
		x.put("east", cluster.KindServiceExport, s.revision, s.export)
		if got := x.condition("east", mcsv1beta1.ServiceExportConditionValid); got != s.valid {
			t.Errorf("Valid is %q, want %q", got, s.valid)
		}
		if got := x.condition("east", mcsv1beta1.ServiceExportConditionReady); got != s.ready {
			t.Errorf("Ready is %q, want %q", got, s.ready)
		}
	}
}
