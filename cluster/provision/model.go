package provision

import (
	"net/netip"
	"slices"

	corev1 "k8s.io/api/core/v1"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
	mcsv1beta1 "sigs.k8s.io/mcs-api/pkg/apis/v1beta1"

	"github.com/causeway-mesh/causeway/cluster"
)

// Name names an import, and what is made for it.
type Name struct{ Namespace, Name string }

// String gives namespace/name.
func (n Name) String() string { return n.Namespace + "/" + n.Name }

// Ref names the object of a kind that has the name.
func (n Name) Ref(kind cluster.Kind) cluster.Ref {
	return cluster.Ref{Kind: kind, Namespace: n.Namespace, Name: n.Name}
}

// Import is what became of all exports of one service, as far as this cluster's
// objects show it. Nobody changes it once it is handed over.
type Import struct {
	Name
	Headless              bool
	Ports                 []Port // sorted by protocol, then number
	SessionAffinity       corev1.ServiceAffinity
	AffinityConfig        *corev1.SessionAffinityConfig
	InternalTrafficPolicy *corev1.ServiceInternalTrafficPolicy
	TrafficDistribution   *string
	// IPFamilies are those that the exports have in common, empty if they say none.
	IPFamilies []corev1.IPFamily
	// Labels and Annotations are the exported ones.
	Labels, Annotations map[string]string
	Sources             []Source // the exporting clusters, sorted
	// Gateways says that clients of the ClusterSetIP go through the crossing gateways.
	// Without it all Sources with endpoints are Direct.
	Gateways bool
}

// Port is a port of an import.
type Port struct {
	Name        string
	Number      int32
	Protocol    corev1.Protocol
	AppProtocol string // empty: not said
}

// Source is an exporting cluster.
type Source struct {
	Cluster cluster.ID
	Own     bool // this cluster
	// Direct says that this cluster's pods reach the Source's by their addresses.
	Direct bool
	// Used says that the cluster takes requests now: no nearer one takes them all.
	Used bool
	// Slices are the cluster's EndpointSlices of the Service; none unless Direct.
	Slices []Slice
}

// Slice is an EndpointSlice of an exporting cluster. Ports bear the names of the
// import's.
type Slice struct {
	Name      string
	Ports     []cluster.EndpointPort
	Endpoints []cluster.Endpoint
}

// Crossing is a crossing gateway of this cluster: one of its endpoints.
type Crossing struct {
	Addr                        netip.Addr
	Zone                        string
	Ready, Serving, Terminating bool
}

// Have is what the API server has of one import.
type Have struct {
	// Namespace says that the namespace is there.
	Namespace bool
	// Import is the ServiceImport of the name, whoever made it.
	Import *mcsv1beta1.ServiceImport
	// Service has the derived Service's name, and Slices are those that say they are
	// derived from the import, whoever made them.
	Service *corev1.Service
	Slices  []SliceObject
}

// Standing is how an import stands in this cluster, for its status.
type Standing struct {
	Ready          metav1.Condition // without time and generation
	Clusters       []cluster.ID     // the exporters, sorted
	EndpointSlices mcsv1beta1.EndpointSliceObjectsStatus
}

func (s Standing) equal(o Standing) bool {
	return s.Ready == o.Ready && s.EndpointSlices == o.EndpointSlices && slices.Equal(s.Clusters, o.Clusters)
}
