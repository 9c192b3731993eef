package resolve

import (
	"cmp"
	"fmt"
	"maps"
	"slices"
	"strings"

	corev1 "k8s.io/api/core/v1"
	mcsv1beta1 "sigs.k8s.io/mcs-api/pkg/apis/v1beta1"

	"github.com/causeway-mesh/causeway/cluster"
)

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

// merge unites all exports of a service (KEP-1645). Ports are united, by name
// first, then by protocol and number; of everything else, and in every clash,
// the senior export's is taken.
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
	imp := &Import{
		Namespace: ns, Name: name, Headless: headless(senior.service),
		Even:                  senior.spec.Annotations[cluster.AnnotationDistribution] == cluster.DistributionEven,
		AffinityConfig:        senior.service.Spec.SessionAffinityConfig,
		InternalTrafficPolicy: senior.service.Spec.InternalTrafficPolicy,
		TrafficDistribution:   senior.service.Spec.TrafficDistribution,
		Labels:                senior.spec.Spec.ExportedLabels,
		Annotations:           senior.spec.Spec.ExportedAnnotations,
	}
	imp.ClientIP, imp.AffinityTimeout = affinity(senior.service)
	t := tally{senior: senior, use: use}
	for _, e := range use {
		imp.Exporters = append(imp.Exporters, Exporter{Cluster: e.obj.Cluster, Weight: exportWeight(e.spec), Seniority: e.obj.Seniority})
		t.ports = append(t.ports, mergePorts(imp, e)...)
	}
	slices.SortFunc(imp.Ports, func(a, b ImportPort) int {
		return cmp.Or(cmp.Compare(a.Protocol, b.Protocol), cmp.Compare(a.Port, b.Port))
	})
	for i := range imp.Ports {
		slices.Sort(imp.Ports[i].Clusters)
	}
	t.ports = append(t.ports, missingPorts(imp)...)
	m.conflicts = t.conflicts(imp)
	m.imp = imp
	return m
}

// portText shows a port as kubectl does.
func portText(port int32, protocol string) string { return fmt.Sprintf("%d/%s", port, protocol) }

// mergePorts adds an export's ports to the import and tells where they clash with
// what is there. An import has each name once, "no name" among them, and each
// number once per protocol, as a Service does.
func mergePorts(imp *Import, e export) (clashes []string) {
	id := e.obj.Cluster
	clash := func(format string, a ...any) { clashes = append(clashes, fmt.Sprintf(format, a...)) }
	for _, p := range e.service.Spec.Ports {
		proto, app, declared := protocolOf(p.Protocol), appProtocol(p), deref(p.AppProtocol, "")
		byName := slices.IndexFunc(imp.Ports, func(q ImportPort) bool { return q.Name == p.Name })
		byNumber := slices.IndexFunc(imp.Ports, func(q ImportPort) bool { return q.Protocol == proto && q.Port == p.Port })
		switch {
		case byName >= 0 && byName != byNumber:
			q := imp.Ports[byName]
			clash("port %q is %s in cluster %s, but %s in the senior export; it is not served from %s", p.Name, portText(p.Port, proto), id, portText(q.Port, q.Protocol), id)
		case byNumber >= 0:
			q := &imp.Ports[byNumber]
			if q.Name != p.Name {
				clash("port %s is called %q in cluster %s, but %q in the senior export", portText(p.Port, proto), p.Name, id, q.Name)
			}
			if !strings.EqualFold(q.Declared, declared) || q.AppProtocol != app { // RFC 6335 makes no difference of case
				clash("port %s has the appProtocol %q in cluster %s, but %q in the senior export", portText(p.Port, proto), spoken(declared, app), id, spoken(q.Declared, q.AppProtocol))
			}
			q.Clusters = append(q.Clusters, id)
		default:
			imp.Ports = append(imp.Ports, ImportPort{Name: p.Name, Port: p.Port, Protocol: proto, AppProtocol: app, Declared: declared, Clusters: []cluster.ID{id}})
		}
	}
	return clashes
}

// spoken is what a port says it speaks, or what its name was read as.
func spoken(declared string, app AppProtocol) string { return cmp.Or(declared, string(app)) }

// missingPorts tells which exporters do not serve all ports of the import: the
// union is what clients see, and each port leads to those that export it alone.
func missingPorts(imp *Import) (clashes []string) {
	for _, e := range imp.Exporters {
		var lacks []string
		for _, p := range imp.Ports {
			if !slices.Contains(p.Clusters, e.Cluster) {
				lacks = append(lacks, portText(p.Port, p.Protocol))
			}
		}
		if len(lacks) > 0 {
			clashes = append(clashes, fmt.Sprintf("cluster %s does not serve %s", e.Cluster, enumerate(lacks)))
		}
	}
	return clashes
}

// tally finds out where exports disagree.
type tally struct {
	senior export
	use    []export // all, the senior first
	ports  []string // what clashes among the ports
}

// conflicts lists the clashes by reason, in the order in which reasons are joined.
func (t *tally) conflicts(imp *Import) []conflict {
	var out []conflict
	if len(t.ports) > 0 {
		out = append(out, conflict{mcsv1beta1.ServiceExportReasonPortConflict, "ports: the union is used: " + strings.Join(t.ports, "; ")})
	}
	differ := func(reason mcsv1beta1.ServiceExportConditionReason, what string, same func(a, b export) bool) {
		var others []string
		for _, e := range t.use[1:] {
			if !same(t.senior, e) {
				others = append(others, string(e.obj.Cluster))
			}
		}
		if len(others) > 0 {
			out = append(out, conflict{reason, fmt.Sprintf("%s of cluster %s, the senior export, wins; different in %d of %d clusters: %s", what, t.senior.obj.Cluster, len(others), len(t.use), enumerate(others))})
		}
	}
	// What only the address of a service does means nothing where there is none.
	addressed := func(same func(a, b *corev1.ServiceSpec) bool) func(a, b export) bool {
		return func(a, b export) bool {
			return headless(a.service) || headless(b.service) || same(&a.service.Spec, &b.service.Spec)
		}
	}
	s := &t.senior.service.Spec
	differ(mcsv1beta1.ServiceExportReasonTypeConflict, "type "+string(imp.Type()), func(a, b export) bool { return headless(a.service) == headless(b.service) })
	differ(mcsv1beta1.ServiceExportReasonSessionAffinityConflict, "sessionAffinity "+string(sessionAffinity(s)), addressed(func(a, b *corev1.ServiceSpec) bool {
		return sessionAffinity(a) == sessionAffinity(b)
	}))
	differ(mcsv1beta1.ServiceExportReasonSessionAffinityConfigConflict, "sessionAffinityConfig ("+imp.AffinityTimeout.String()+")", func(a, b export) bool {
		aIs, aFor := affinity(a.service)
		bIs, bFor := affinity(b.service)
		return headless(a.service) || headless(b.service) || !aIs || !bIs || aFor == bFor
	})
	differ(mcsv1beta1.ServiceExportReasonAnnotationsConflict, "exportedAnnotations", func(a, b export) bool {
		return maps.Equal(a.spec.Spec.ExportedAnnotations, b.spec.Spec.ExportedAnnotations)
	})
	differ(mcsv1beta1.ServiceExportReasonLabelsConflict, "exportedLabels", func(a, b export) bool {
		return maps.Equal(a.spec.Spec.ExportedLabels, b.spec.Spec.ExportedLabels)
	})
	differ(mcsv1beta1.ServiceExportReasonInternalTrafficPolicyConflict, "internalTrafficPolicy "+string(internalPolicy(s)), addressed(func(a, b *corev1.ServiceSpec) bool {
		return internalPolicy(a) == internalPolicy(b)
	}))
	differ(mcsv1beta1.ServiceExportReasonTrafficDistributionConflict, fmt.Sprintf("trafficDistribution %q", deref(s.TrafficDistribution, "")), addressed(func(a, b *corev1.ServiceSpec) bool {
		return distribution(a) == distribution(b)
	}))
	if c := t.families(imp); c != nil {
		out = append(out, *c)
	}
	return out
}

// families settles the import's IP families: those that all exports have, in the
// order of the senior, so that every endpoint can be reached by each of them. An
// export that has none of these is left out of the reckoning, and in conflict: by
// one family clients reach only a part of the endpoints. For a headless service,
// whose clients look for the endpoints themselves, every difference is that.
// Services that leave the families to the API server's default say nothing.
func (t *tally) families(imp *Import) *conflict {
	var settled []corev1.IPFamily
	var others []string
	said := 0
	for _, e := range t.use {
		list := e.service.Spec.IPFamilies
		if len(list) == 0 {
			continue
		}
		said++
		if said == 1 {
			settled = slices.Clone(list)
			continue
		}
		common := slices.DeleteFunc(slices.Clone(settled), func(f corev1.IPFamily) bool { return !slices.Contains(list, f) })
		if len(common) == 0 || imp.Headless && (len(common) != len(settled) || len(common) != len(list)) {
			others = append(others, string(e.obj.Cluster))
		}
		if len(common) > 0 {
			settled = common
		}
	}
	imp.IPFamilies = settled
	if len(others) == 0 {
		return nil
	}
	return &conflict{mcsv1beta1.ServiceExportReasonIPFamilyConflict, fmt.Sprintf("ipFamilies %v of the senior exports win; different in %d of %d clusters: %s", settled, len(others), len(t.use), enumerate(others))}
}

func sessionAffinity(s *corev1.ServiceSpec) corev1.ServiceAffinity {
	return cmp.Or(s.SessionAffinity, corev1.ServiceAffinityNone)
}

func internalPolicy(s *corev1.ServiceSpec) corev1.ServiceInternalTrafficPolicy {
	return deref(s.InternalTrafficPolicy, corev1.ServiceInternalTrafficPolicyCluster)
}

// distribution is a Service's trafficDistribution; PreferClose is the former name
// of PreferSameZone (KEP-3015).
func distribution(s *corev1.ServiceSpec) string {
	if d := deref(s.TrafficDistribution, ""); d != corev1.ServiceTrafficDistributionPreferClose {
		return d
	}
	return corev1.ServiceTrafficDistributionPreferSameZone
}

// enumerate lists the first of some names; the others are counted.
func enumerate(list []string) string {
	const most = 5
	if n := len(list); n > most {
		return fmt.Sprintf("%s and %d more", strings.Join(list[:most], ", "), n-most)
	}
	return strings.Join(list, ", ")
}
