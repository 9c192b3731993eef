package provision

import (
	"cmp"
	"fmt"
	"net/netip"
	"slices"

	corev1 "k8s.io/api/core/v1"
	"k8s.io/apimachinery/pkg/api/equality"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
	"k8s.io/apimachinery/pkg/util/intstr"
	"k8s.io/apimachinery/pkg/util/validation"
	mcsv1beta1 "sigs.k8s.io/mcs-api/pkg/apis/v1beta1"

	"github.com/causeway-mesh/causeway/cluster/kubernetes"
)

func familyOf(a netip.Addr) corev1.IPFamily {
	if a.Unmap().Is4() {
		return corev1.IPv4Protocol
	}
	return corev1.IPv6Protocol
}

func familyOfText(ip string) corev1.IPFamily {
	a, err := netip.ParseAddr(ip)
	if err != nil {
		return ""
	}
	return familyOf(a)
}

// importObject is the ServiceImport as it should be.
func (p *planner) importObject(ips []string) *mcsv1beta1.ServiceImport {
	w := p.want
	labels, annotations := exportedLabels(w.Labels), exportedAnnotations(w.Annotations)
	sum := ""
	if len(labels)+len(annotations) > 0 {
		sum = hash(16, fmt.Sprint(labels), fmt.Sprint(annotations)) // fmt sorts maps
	}
	labels[LabelManagedBy] = Manager
	if sum != "" {
		annotations[AnnotationExported] = sum
	}
	o := &mcsv1beta1.ServiceImport{
		TypeMeta:   metav1.TypeMeta{APIVersion: mcsv1beta1.GroupName + "/" + p.version, Kind: mcsv1beta1.ServiceImportKindName},
		ObjectMeta: metav1.ObjectMeta{Namespace: p.name.Namespace, Name: p.name.Name, Labels: labels, Annotations: annotations},
		Spec: mcsv1beta1.ServiceImportSpec{
			Ports: []mcsv1beta1.ServicePort{}, IPs: ips, Type: mcsv1beta1.ClusterSetIP,
			SessionAffinity: corev1.ServiceAffinityNone, IPFamilies: w.IPFamilies,
			InternalTrafficPolicy: w.InternalTrafficPolicy, TrafficDistribution: w.TrafficDistribution,
		},
	}
	for _, x := range p.ports {
		o.Spec.Ports = append(o.Spec.Ports, mcsv1beta1.ServicePort{Name: x.Name, Protocol: x.Protocol, AppProtocol: appProtocol(x), Port: x.Number})
	}
	if w.Headless {
		o.Spec.Type, o.Spec.IPs = mcsv1beta1.Headless, nil
		return o
	}
	if len(ips) > 0 {
		o.Spec.IPFamilies = nil
		for _, ip := range ips {
			o.Spec.IPFamilies = append(o.Spec.IPFamilies, familyOfText(ip))
		}
	}
	o.Spec.SessionAffinity, o.Spec.SessionAffinityConfig = cmp.Or(w.SessionAffinity, corev1.ServiceAffinityNone), w.AffinityConfig
	return o
}

func appProtocol(p Port) *string {
	if p.AppProtocol == "" || len(validation.IsQualifiedName(p.AppProtocol)) > 0 {
		return nil
	}
	return &p.AppProtocol
}

// exportedLabels leaves out what the API server would refuse, and names of ours.
func exportedLabels(in map[string]string) map[string]string {
	out := map[string]string{}
	for k, v := range in {
		if k != LabelManagedBy && k != kubernetes.LabelDerived && len(validation.IsQualifiedName(k)) == 0 && len(validation.IsValidLabelValue(v)) == 0 {
			out[k] = v
		}
	}
	return out
}

func exportedAnnotations(in map[string]string) map[string]string {
	out := map[string]string{}
	for k, v := range in {
		if k != AnnotationExported && len(validation.IsQualifiedName(k)) == 0 {
			out[k] = v
		}
	}
	return out
}

// within reports whether all of a map stands in another.
func within(part, whole map[string]string) bool {
	for k, v := range part {
		if got, ok := whole[k]; !ok || got != v {
			return false
		}
	}
	return true
}

func sameImport(have, want *mcsv1beta1.ServiceImport) bool {
	return have != nil && equality.Semantic.DeepEqual(have.Spec, want.Spec) &&
		within(want.Labels, have.Labels) && within(want.Annotations, have.Annotations) &&
		have.Annotations[AnnotationExported] == want.Annotations[AnnotationExported]
}

// serviceObject is the derived Service as it should be. Its targetPorts, which mean
// nothing to anybody else since there is no selector, record the entry ports.
func (p *planner) serviceObject() (*corev1.Service, error) {
	prefer := corev1.IPFamilyPolicyPreferDualStack
	s := &corev1.Service{
		TypeMeta: metav1.TypeMeta{APIVersion: "v1", Kind: "Service"},
		ObjectMeta: metav1.ObjectMeta{Namespace: p.name.Namespace, Name: ServiceName(p.name), OwnerReferences: p.owner(),
			Labels: map[string]string{LabelManagedBy: Manager, kubernetes.LabelDerived: derived, mcsv1beta1.LabelServiceName: p.name.Name}},
		Spec: corev1.ServiceSpec{
			Type: corev1.ServiceTypeClusterIP, IPFamilyPolicy: &prefer,
			SessionAffinity:       cmp.Or(p.want.SessionAffinity, corev1.ServiceAffinityNone),
			SessionAffinityConfig: p.want.AffinityConfig,
			TrafficDistribution:   distribution(p.want.TrafficDistribution),
		},
	}
	if s.Spec.SessionAffinity == corev1.ServiceAffinityNone {
		s.Spec.SessionAffinityConfig = nil
	}
	// A gateway on the client's node is not what Local asks for: behind gateways it
	// means this cluster, which they see to. It comes once their slices have gone.
	if l := p.want.InternalTrafficPolicy; l != nil && *l == corev1.ServiceInternalTrafficPolicyLocal && !p.want.Gateways && !p.gatewaysStand() {
		s.Spec.InternalTrafficPolicy = l
	}
	chosen := map[socket]bool{}
	for _, x := range p.ports {
		target := intstr.FromInt32(x.Number)
		if plainPort(x) {
			n, err := p.entries.choose(entryKey{p.name, x.Protocol, x.Number}, chosen)
			if err != nil {
				return nil, err
			}
			chosen[socket{x.Protocol, n}] = true
			target = intstr.FromInt32(int32(n))
		}
		s.Spec.Ports = append(s.Spec.Ports, corev1.ServicePort{Name: x.Name, Protocol: x.Protocol, AppProtocol: appProtocol(x), Port: x.Number, TargetPort: target})
	}
	return s, nil
}

// distribution is a trafficDistribution that the API server takes, nil for others.
func distribution(d *string) *string {
	if d != nil && slices.Contains([]string{corev1.ServiceTrafficDistributionPreferClose, corev1.ServiceTrafficDistributionPreferSameZone, corev1.ServiceTrafficDistributionPreferSameNode}, *d) {
		return d
	}
	return nil
}

// sameService compares what is ours of it; the rest is the API server's.
func sameService(have, want *corev1.Service) bool {
	if have == nil {
		return false
	}
	ports := slices.EqualFunc(have.Spec.Ports, want.Spec.Ports, func(a, b corev1.ServicePort) bool {
		return a.Name == b.Name && a.Protocol == b.Protocol && a.Port == b.Port && a.TargetPort == b.TargetPort && equality.Semantic.DeepEqual(a.AppProtocol, b.AppProtocol)
	})
	config := want.Spec.SessionAffinityConfig
	return ports && within(want.Labels, have.Labels) && owned(have, want) &&
		have.Spec.Type == want.Spec.Type && have.Spec.SessionAffinity == want.Spec.SessionAffinity &&
		(config == nil || equality.Semantic.DeepEqual(have.Spec.SessionAffinityConfig, config)) &&
		equality.Semantic.DeepEqual(have.Spec.TrafficDistribution, want.Spec.TrafficDistribution) &&
		nodesOnly(have) == nodesOnly(want)
}

// nodesOnly: kube-proxy uses endpoints of the client's node alone.
func nodesOnly(s *corev1.Service) bool {
	return s.Spec.InternalTrafficPolicy != nil && *s.Spec.InternalTrafficPolicy == corev1.ServiceInternalTrafficPolicyLocal
}

// owned reports whether an object has the owners that it should have.
func owned(have, want metav1.Object) bool {
	for _, o := range want.GetOwnerReferences() {
		if !slices.ContainsFunc(have.GetOwnerReferences(), func(x metav1.OwnerReference) bool { return x.UID == o.UID && x.Name == o.Name }) {
			return false
		}
	}
	return true
}

func sameSlice(have, want SliceObject) bool {
	return have.AddressType == want.AddressType && within(want.Labels, have.Labels) && owned(have, want) &&
		equality.Semantic.DeepEqual(have.Ports, want.Ports) && equality.Semantic.DeepEqual(have.Endpoints, want.Endpoints)
}
