package resolve

import (
	"fmt"
	"reflect"
	"slices"
	"sort"
	"strconv"
	"strings"

	corev1 "k8s.io/api/core/v1"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
	mcsv1beta1 "sigs.k8s.io/mcs-api/pkg/apis/v1beta1"

	"github.com/causeway-mesh/causeway/cluster"
)

// maxWeight bounds causeway.dev/weight.
const maxWeight = 1_000_000

// export is one cluster's ServiceExport with the Service that it exports.
type export struct {
	obj     *cluster.Object
	spec    *mcsv1beta1.ServiceExport
	service *corev1.Service // nil: there is none
}

// usable tells whether the export contributes to the import.
func (e export) usable() bool {
	return e.service != nil && e.service.Spec.Type != corev1.ServiceTypeExternalName
}

// exports lists all clusters' exports of a service, the senior first.
func (r *reader) exports(ns, name string) []export {
	objs := r.named(cluster.KindServiceExport, ns, name)
	out := make([]export, 0, len(objs))
	for _, o := range objs {
		if x, ok := o.Value.(*mcsv1beta1.ServiceExport); ok {
			out = append(out, export{obj: o, spec: x, service: r.service(o.Cluster, ns, name)})
		}
	}
	sort.SliceStable(out, func(i, j int) bool { return cluster.Older(out[i].obj, out[j].obj) })
	return out
}

// exportedService gives a cluster's Service if that cluster exports it.
func (r *reader) exportedService(id cluster.ID, ns, name string) *corev1.Service {
	if r.get(id, cluster.KindServiceExport, ns, name) == nil {
		return nil
	}
	s := r.service(id, ns, name)
	if s == nil || s.Spec.Type == corev1.ServiceTypeExternalName {
		return nil
	}
	return s
}

// merged is an Import with what the merge found on the way.
type merged struct {
	imp       *Import // nil: nobody exports the service in a usable way
	all       []export
	conflicts []conflict
}

type conflict struct {
	reason  mcsv1beta1.ServiceExportConditionReason
	message string
}

// merge unites all exports of a service (KEP-1645): ports by name first, then
// by protocol and number; the senior export wins every clash.
func (r *reader) merge(ns, name string) merged {
	m := merged{all: r.exports(ns, name)}
	var use []export
	for _, e := range m.all {
		if e.usable() {
			use = append(use, e)
		}
	}
	if len(use) == 0 {
		return m
	}
	senior := use[0]
	imp := &Import{Namespace: ns, Name: name, Headless: headless(senior.service)}
	imp.ClientIP, imp.AffinityTimeout = affinity(senior.service)
	imp.Even = senior.spec.Annotations[cluster.AnnotationDistribution] == cluster.DistributionEven
	found := map[mcsv1beta1.ServiceExportConditionReason][]string{}
	clash := func(reason mcsv1beta1.ServiceExportConditionReason, format string, a ...any) {
		found[reason] = append(found[reason], fmt.Sprintf(format, a...))
	}
	for _, e := range use {
		imp.Exporters = append(imp.Exporters, Exporter{Cluster: e.obj.Cluster, Weight: exportWeight(e.spec), Seniority: e.obj.Seniority})
		mergePorts(imp, e, func(format string, a ...any) { clash(mcsv1beta1.ServiceExportReasonPortConflict, format, a...) })
		if e.obj != senior.obj {
			compareFields(senior, e, clash)
		}
	}
	sort.Slice(imp.Ports, func(i, j int) bool {
		a, b := imp.Ports[i], imp.Ports[j]
		if a.Protocol != b.Protocol {
			return a.Protocol < b.Protocol
		}
		return a.Port < b.Port
	})
	for i := range imp.Ports {
		slices.Sort(imp.Ports[i].Clusters)
	}
	for _, reason := range conflictReasons {
		if msgs := found[reason]; len(msgs) > 0 {
			m.conflicts = append(m.conflicts, conflict{reason, strings.Join(msgs, "; ")})
		}
	}
	m.imp = imp
	return m
}

// conflictReasons fixes the order in which reasons are joined.
var conflictReasons = []mcsv1beta1.ServiceExportConditionReason{
	mcsv1beta1.ServiceExportReasonPortConflict,
	mcsv1beta1.ServiceExportReasonTypeConflict,
	mcsv1beta1.ServiceExportReasonSessionAffinityConflict,
	mcsv1beta1.ServiceExportReasonSessionAffinityConfigConflict,
	mcsv1beta1.ServiceExportReasonAnnotationsConflict,
	mcsv1beta1.ServiceExportReasonLabelsConflict,
	mcsv1beta1.ServiceExportReasonInternalTrafficPolicyConflict,
	mcsv1beta1.ServiceExportReasonTrafficDistributionConflict,
	mcsv1beta1.ServiceExportReasonIPFamilyConflict,
}

func mergePorts(imp *Import, e export, clash func(string, ...any)) {
	id := e.obj.Cluster
	for _, p := range e.service.Spec.Ports {
		proto := protocolOf(p.Protocol)
		app := appProtocol(p)
		byName, byNumber := -1, -1
		for i, q := range imp.Ports {
			if q.Name == p.Name && byName < 0 {
				byName = i
			}
			if q.Protocol == proto && q.Port == p.Port {
				byNumber = i
			}
		}
		switch {
		case byName >= 0 && byName != byNumber && p.Name != "":
			q := imp.Ports[byName]
			clash("port %q is %s/%d in cluster %s, but %s/%d in the senior export; it is not served from %s", p.Name, proto, p.Port, id, q.Protocol, q.Port, id)
		case byNumber >= 0:
			q := &imp.Ports[byNumber]
			if q.Name != p.Name {
				clash("port %s/%d is called %q in cluster %s, but %q in the senior export", proto, p.Port, p.Name, id, q.Name)
			}
			if q.AppProtocol != app {
				clash("port %s/%d speaks %q in cluster %s, but %q in the senior export", proto, p.Port, app, id, q.AppProtocol)
			}
			if !slices.Contains(q.Clusters, id) {
				q.Clusters = append(q.Clusters, id)
			}
		case byName >= 0:
			// Unnamed ports are single ports: two different ones can't both be
			// the unnamed port of the import.
			q := imp.Ports[byName]
			clash("the unnamed port is %s/%d in cluster %s, but %s/%d in the senior export; it is not served from %s", proto, p.Port, id, q.Protocol, q.Port, id)
		default:
			imp.Ports = append(imp.Ports, ImportPort{Name: p.Name, Port: p.Port, Protocol: proto, AppProtocol: app, Clusters: []cluster.ID{id}})
		}
	}
}

func compareFields(senior, e export, clash func(mcsv1beta1.ServiceExportConditionReason, string, ...any)) {
	a, b := senior.service.Spec, e.service.Spec
	sid, id := senior.obj.Cluster, e.obj.Cluster
	differ := func(reason mcsv1beta1.ServiceExportConditionReason, what string, x, y any) {
		if !reflect.DeepEqual(x, y) {
			clash(reason, "%s of cluster %s differs from the senior export's of %s", what, id, sid)
		}
	}
	differ(mcsv1beta1.ServiceExportReasonTypeConflict, "the type (headless or not)", headless(senior.service), headless(e.service))
	differ(mcsv1beta1.ServiceExportReasonSessionAffinityConflict, "sessionAffinity", orDefault(a.SessionAffinity, corev1.ServiceAffinityNone), orDefault(b.SessionAffinity, corev1.ServiceAffinityNone))
	differ(mcsv1beta1.ServiceExportReasonSessionAffinityConfigConflict, "sessionAffinityConfig", a.SessionAffinityConfig, b.SessionAffinityConfig)
	differ(mcsv1beta1.ServiceExportReasonAnnotationsConflict, "exportedAnnotations", orEmpty(senior.spec.Spec.ExportedAnnotations), orEmpty(e.spec.Spec.ExportedAnnotations))
	differ(mcsv1beta1.ServiceExportReasonLabelsConflict, "exportedLabels", orEmpty(senior.spec.Spec.ExportedLabels), orEmpty(e.spec.Spec.ExportedLabels))
	differ(mcsv1beta1.ServiceExportReasonInternalTrafficPolicyConflict, "internalTrafficPolicy", deref(a.InternalTrafficPolicy, corev1.ServiceInternalTrafficPolicyCluster), deref(b.InternalTrafficPolicy, corev1.ServiceInternalTrafficPolicyCluster))
	differ(mcsv1beta1.ServiceExportReasonTrafficDistributionConflict, "trafficDistribution", deref(a.TrafficDistribution, ""), deref(b.TrafficDistribution, ""))
	differ(mcsv1beta1.ServiceExportReasonIPFamilyConflict, "ipFamilies", families(a.IPFamilies), families(b.IPFamilies))
}

// families ignores the order, which is a preference and no conflict. Manifests
// that leave the field to the API server's default say nothing.
func families(in []corev1.IPFamily) []corev1.IPFamily {
	if len(in) == 0 {
		return []corev1.IPFamily{corev1.IPv4Protocol}
	}
	out := slices.Clone(in)
	slices.Sort(out)
	return out
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
		case !e.usable():
			add(mcsv1beta1.ServiceExportConditionValid, false, mcsv1beta1.ServiceExportReasonInvalidServiceType, "a Service of type ExternalName can't be exported")
		default:
			add(mcsv1beta1.ServiceExportConditionValid, true, mcsv1beta1.ServiceExportReasonValid, badAnnotations(e.spec))
		}
		switch {
		case !e.usable():
			add(mcsv1beta1.ServiceExportConditionReady, false, mcsv1beta1.ServiceExportReasonPending, "the export is not valid")
		case e.obj.Seniority.Revision == 0:
			add(mcsv1beta1.ServiceExportConditionReady, false, mcsv1beta1.ServiceExportReasonPending, "the export is not yet in the global store")
		default:
			add(mcsv1beta1.ServiceExportConditionReady, true, mcsv1beta1.ServiceExportReasonExported, "")
		}
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

func orDefault[T ~string](v, d T) T {
	if v == "" {
		return d
	}
	return v
}

func orEmpty(m map[string]string) map[string]string {
	if m == nil {
		return map[string]string{}
	}
	return m
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
