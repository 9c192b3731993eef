package resolve

import (
	"fmt"
	"sort"
	"strconv"
	"strings"

	corev1 "k8s.io/api/core/v1"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
	mcsv1beta1 "sigs.k8s.io/mcs-api/pkg/apis/v1beta1"

	"github.com/causeway-mesh/causeway/cluster"
	"github.com/causeway-mesh/causeway/federation/record"
)

// maxWeight bounds causeway.dev/weight.
const maxWeight = 1_000_000

// export is one cluster's ServiceExport with the Service that it exports.
type export struct {
	obj     *cluster.Object
	spec    *mcsv1beta1.ServiceExport
	service *corev1.Service // nil: there is none
	refused string          // why the administrators' policy keeps it from other clusters
}

// usable tells whether the export contributes to the import.
func (e export) usable() bool { return e.valid() && e.refused == "" }

// valid tells whether there is something that can be exported.
func (e export) valid() bool {
	return e.service != nil && e.service.Spec.Type != corev1.ServiceTypeExternalName
}

// exports lists all clusters' exports of a service, the senior first.
func (r *reader) exports(ns, name string) []export {
	objs := r.named(cluster.KindServiceExport, ns, name)
	out := make([]export, 0, len(objs))
	for _, o := range objs {
		if x, ok := o.Value.(*mcsv1beta1.ServiceExport); ok {
			out = append(out, export{obj: o, spec: x, service: r.service(o.Cluster, ns, name), refused: r.refused(o)})
		}
	}
	sort.SliceStable(out, func(i, j int) bool { return cluster.Older(out[i].obj, out[j].obj) })
	return out
}

// exportedService gives a cluster's Service if that cluster exports it.
func (r *reader) exportedService(id cluster.ID, ns, name string) *corev1.Service {
	if o := r.get(id, cluster.KindServiceExport, ns, name); o == nil || r.refused(o) != "" {
		return nil
	}
	s := r.service(id, ns, name)
	if s == nil || s.Spec.Type == corev1.ServiceTypeExternalName {
		return nil
	}
	return s
}

// exportWeight reads causeway.dev/weight; nil where it is absent or unusable.
func exportWeight(x *mcsv1beta1.ServiceExport) *uint32 {
	s, ok := x.Annotations[cluster.AnnotationWeight]
	if !ok {
		return nil
	}
	n, err := strconv.ParseUint(s, 10, 32)
	if err != nil || n > maxWeight {
		return nil
	}
	w := uint32(n)
	return &w
}

// badAnnotations tells what is wrong with an export's annotations.
func badAnnotations(x *mcsv1beta1.ServiceExport) string {
	if s, ok := x.Annotations[cluster.AnnotationWeight]; ok && exportWeight(x) == nil {
		return fmt.Sprintf("annotation %s is %q, which is not a number from 0 to %d: it is ignored", cluster.AnnotationWeight, clip(s), maxWeight)
	}
	if s, ok := x.Annotations[cluster.AnnotationDistribution]; ok && s != cluster.DistributionEven {
		return fmt.Sprintf("annotation %s is %q, but only %q is known: it is ignored", cluster.AnnotationDistribution, clip(s), cluster.DistributionEven)
	}
	return ""
}

// importUnit gives the Import and the reports of all its exports.
func importUnit(r *reader, ns, name string) output {
	m := r.merge(ns, name)
	out := output{gone: len(m.all) == 0, imp: m.imp}
	for _, e := range m.all {
		rep := &ObjectReport{Ref: e.obj.Ref, Cluster: e.obj.Cluster}
		add := func(t mcsv1beta1.ServiceExportConditionType, ok bool, reason mcsv1beta1.ServiceExportConditionReason, msg string) {
			rep.Conditions = append(rep.Conditions, condition(string(t), ok, string(reason), msg))
		}
		switch {
		case e.service == nil:
			add(mcsv1beta1.ServiceExportConditionValid, false, mcsv1beta1.ServiceExportReasonNoService, fmt.Sprintf("there is no Service %s/%s in cluster %s", ns, name, e.obj.Cluster))
		case !e.valid():
			add(mcsv1beta1.ServiceExportConditionValid, false, mcsv1beta1.ServiceExportReasonInvalidServiceType, "a Service of type ExternalName can't be exported")
		default:
			add(mcsv1beta1.ServiceExportConditionValid, true, mcsv1beta1.ServiceExportReasonValid, badAnnotations(e.spec))
		}
		ready, reason, why := r.exportReady(e)
		add(mcsv1beta1.ServiceExportConditionReady, ready, reason, why)
		if e.usable() {
			if len(m.conflicts) == 0 {
				add(mcsv1beta1.ServiceExportConditionConflict, false, mcsv1beta1.ServiceExportReasonNoConflicts, "")
			} else {
				var reasons, msgs []string
				for _, c := range m.conflicts {
					reasons, msgs = append(reasons, string(c.reason)), append(msgs, c.message)
				}
				add(mcsv1beta1.ServiceExportConditionConflict, true, mcsv1beta1.ServiceExportConditionReason(strings.Join(reasons, ",")), strings.Join(msgs, "; "))
			}
		}
		sortConditions(rep.Conditions)
		out.reports = append(out.reports, rep)
	}
	return out
}

// exportReady tells whether an export is in the global store, or why not.
func (r *reader) exportReady(e export) (ready bool, reason mcsv1beta1.ServiceExportConditionReason, why string) {
	if !e.valid() {
		return false, mcsv1beta1.ServiceExportReasonPending, "the export is not valid"
	}
	if e.refused != "" {
		return false, mcsv1beta1.ServiceExportReasonFailed, e.refused
	}
	if e.obj.Cluster == r.local {
		// What this cluster's agent can't publish, it never will.
		if _, err := record.EncodeService(r.get(r.local, cluster.KindService, e.obj.Namespace, e.obj.Name), e.obj); err != nil {
			return false, mcsv1beta1.ServiceExportReasonFailed, err.Error()
		}
	}
	if e.obj.Seniority.Revision == 0 {
		return false, mcsv1beta1.ServiceExportReasonPending, "the export is not yet in the global store"
	}
	return true, mcsv1beta1.ServiceExportReasonExported, ""
}

func headless(s *corev1.Service) bool { return s.Spec.ClusterIP == corev1.ClusterIPNone }

func protocolOf(p corev1.Protocol) string {
	if p == "" {
		return string(corev1.ProtocolTCP)
	}
	return string(p)
}

// appProtocol reads what a port speaks (KEP-3726): appProtocol if it is there, else the
// port's name up to the first '-'.
func appProtocol(p corev1.ServicePort) AppProtocol {
	var said string
	if p.AppProtocol != nil {
		said = strings.ToLower(*p.AppProtocol)
		switch said {
		case "https", "kubernetes.io/wss", "wss":
			return AppHTTPS
		case "ws", "kubernetes.io/ws":
			return AppWS
		case "kubernetes.io/h2c":
			return AppH2C
		}
		if strings.HasPrefix(said, "kubernetes.io/") {
			return AppReserved
		}
	} else {
		said, _, _ = strings.Cut(strings.ToLower(p.Name), "-")
		if strings.HasPrefix(strings.ToLower(p.Name), "grpc-web") {
			said = "http"
		}
	}
	switch said {
	case "http", "ws", "grpc-web":
		return AppHTTP
	case "http2", "h2c", "grpc":
		return AppH2C
	}
	return AppTCP
}

func condition(typ string, ok bool, reason, msg string) metav1.Condition {
	status := metav1.ConditionFalse
	if ok {
		status = metav1.ConditionTrue
	}
	return metav1.Condition{Type: typ, Status: status, Reason: reason, Message: clipMessage(msg)}
}

func sortConditions(c []metav1.Condition) {
	sort.Slice(c, func(i, j int) bool { return c[i].Type < c[j].Type })
}

func deref[T any](p *T, d T) T {
	if p == nil {
		return d
	}
	return *p
}

// clip bounds what a message repeats of a user's input.
func clip(s string) string {
	if len(s) > 80 {
		return strings.ToValidUTF8(s[:80], "") + "..."
	}
	return s
}

// clipMessage keeps conditions within the API's limit (32768 bytes), with room to spare.
func clipMessage(s string) string {
	const limit = 4096
	if len(s) > limit {
		return strings.ToValidUTF8(s[:limit], "") + "..."
	}
	return s
}
