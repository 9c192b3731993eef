package resolve

import (
	"time"

	corev1 "k8s.io/api/core/v1"
	mcsv1beta1 "sigs.k8s.io/mcs-api/pkg/apis/v1beta1"

	"github.com/causeway-mesh/causeway/cluster"
)

// Import is a ServiceImport: the merge of all exports of one service (KEP-1645).
type Import struct {
	Namespace string
	Name      string
	Headless  bool
	Ports     []ImportPort // sorted by protocol, port
	Exporters []Exporter   // the senior first
	// Even spreads over all clusters by weight instead of nearest first.
	Even bool
	// ClientIP and AffinityTimeout are the senior export's sessionAffinity,
	// AffinityConfig its sessionAffinityConfig as it says it, nil if it doesn't.
	ClientIP        bool
	AffinityTimeout time.Duration
	AffinityConfig  *corev1.SessionAffinityConfig
	// InternalTrafficPolicy and TrafficDistribution are the senior export's; nil: it
	// says nothing. The latter is passed on to clients of the ServiceImport and takes no
	// part in how clusters are chosen.
	InternalTrafficPolicy *corev1.ServiceInternalTrafficPolicy
	TrafficDistribution   *string
	// IPFamilies are those that the exports have in common, in the order of the
	// senior export; empty if none says any.
	IPFamilies []corev1.IPFamily
	// Labels and Annotations are the senior export's exportedLabels and
	// exportedAnnotations. Nobody may change them.
	Labels, Annotations map[string]string
}

// StaysLocal tells whether requests stay in their client's cluster:
// internalTrafficPolicy is Local. The nearer endpoint that it asks for, on the
// client's node, is kube-proxy's to choose.
func (i *Import) StaysLocal() bool {
	return !i.Headless && deref(i.InternalTrafficPolicy, corev1.ServiceInternalTrafficPolicyCluster) == corev1.ServiceInternalTrafficPolicyLocal
}

// Type is the import's type in KEP-1645's words.
func (i *Import) Type() mcsv1beta1.ServiceImportType {
	if i.Headless {
		return mcsv1beta1.Headless
	}
	return mcsv1beta1.ClusterSetIP
}

// ImportPort is a merged port with the clusters that serve it.
type ImportPort struct {
	Name        string
	Port        int32
	Protocol    string
	AppProtocol AppProtocol
	Declared    string       // appProtocol as the senior export of the port says it, empty if it doesn't
	Clusters    []cluster.ID // sorted
}

// Exporter is one cluster's export.
type Exporter struct {
	Cluster   cluster.ID
	Weight    *uint32 // causeway.dev/weight
	Seniority cluster.Seniority
}

// portOf finds a port of an import by protocol and number.
func (i *Import) portOf(protocol string, port int32) *ImportPort {
	for k := range i.Ports {
		if p := &i.Ports[k]; p.Port == port && p.Protocol == protocol {
			return p
		}
	}
	return nil
}
