// Package cluster is the model of what one cluster contributes to the
// clusterset: its identity, its objects and the events that change them.
//
// Everything here is a value. An Object that has been handed over is never
// mutated again, neither by the source that made it nor by its readers, so it
// may be shared between goroutines, snapshots and clusters without a copy.
//
// The package knows nothing of the store, of resolution or of Envoy; it is the
// bottom of the import graph. Upstream API types (Gateway API, Multi-Cluster
// Services) are used as they are, save EndpointSlices, which are packed because
// there are so many of them.
package cluster

import (
	"fmt"
	"regexp"
	"time"
)

// ID names a cluster within the clusterset. It is a DNS label, since it becomes
// part of trust domains and of DNS names (KEP-1645).
type ID string

var dnsLabel = regexp.MustCompile(`^[a-z0-9]([-a-z0-9]{0,61}[a-z0-9])?$`)

// Validate reports why the ID can't name a cluster.
func (id ID) Validate() error {
	if !dnsLabel.MatchString(string(id)) {
		return fmt.Errorf("cluster name %q is not a DNS label: use at most 63 lower-case letters, digits and '-'", string(id))
	}
	return nil
}

// Meta is what a cluster says of itself.
type Meta struct {
	Region  string
	Zone    string
	Network string // clusters of one network reach each other's pods; empty means a network of the cluster's own
	// TrustDomain is the SPIFFE trust domain of the cluster's workloads and crossing gateways.
	TrustDomain string
	// Crossing lists the addresses (host:port) of the crossing gateways, sorted.
	Crossing []string
}

// Equal reports whether both say the same.
func (m Meta) Equal(o Meta) bool {
	if m.Region != o.Region || m.Zone != o.Zone || m.Network != o.Network || m.TrustDomain != o.TrustDomain || len(m.Crossing) != len(o.Crossing) {
		return false
	}
	for i := range m.Crossing {
		if m.Crossing[i] != o.Crossing[i] {
			return false
		}
	}
	return true
}

// Kind is the kind of an object, as in its manifest.
type Kind string

// The kinds that a cluster's State may hold. A Source drops all others.
const (
	KindNamespace        Kind = "Namespace"        // *corev1.Namespace, name and labels
	KindService          Kind = "Service"          // *corev1.Service
	KindServiceExport    Kind = "ServiceExport"    // *mcsv1beta1.ServiceExport
	KindEndpointSlice    Kind = "EndpointSlice"    // *cluster.EndpointSlice
	KindSecret           Kind = "Secret"           // *corev1.Secret, never published; of other clusters a certificate that was sealed for this one
	KindConfigMap        Kind = "ConfigMap"        // *corev1.ConfigMap; of other clusters only ca.crt, where a published BackendTLSPolicy names it
	KindGatewayClass     Kind = "GatewayClass"     // *gatewayv1.GatewayClass, never published
	KindGateway          Kind = "Gateway"          // *gatewayv1.Gateway
	KindListenerSet      Kind = "ListenerSet"      // *gatewayv1.ListenerSet
	KindHTTPRoute        Kind = "HTTPRoute"        // *gatewayv1.HTTPRoute
	KindGRPCRoute        Kind = "GRPCRoute"        // *gatewayv1.GRPCRoute
	KindTLSRoute         Kind = "TLSRoute"         // *gatewayv1.TLSRoute
	KindTCPRoute         Kind = "TCPRoute"         // *gatewayv1.TCPRoute
	KindUDPRoute         Kind = "UDPRoute"         // *gatewayv1.UDPRoute
	KindBackendTLSPolicy Kind = "BackendTLSPolicy" // *gatewayv1.BackendTLSPolicy; published if it targets an exported Service
	KindReferenceGrant   Kind = "ReferenceGrant"   // *gatewayv1beta1.ReferenceGrant
)

// Kinds lists every Kind above in a fixed order.
var Kinds = []Kind{
	KindNamespace, KindService, KindServiceExport, KindEndpointSlice, KindSecret, KindConfigMap, KindGatewayClass, KindGateway, KindListenerSet,
	KindHTTPRoute, KindGRPCRoute, KindTLSRoute, KindTCPRoute, KindUDPRoute, KindBackendTLSPolicy, KindReferenceGrant,
}

// RouteKinds lists the kinds of routes in a fixed order.
var RouteKinds = []Kind{KindHTTPRoute, KindGRPCRoute, KindTLSRoute, KindTCPRoute, KindUDPRoute}

// KindServiceImport names the derived kind that no source delivers: imports are
// the resolver's result (KEP-1645).
const KindServiceImport Kind = "ServiceImport"

// Our names (DESIGN section 6).
const (
	ControllerName          = "causeway.dev/gateway-controller"
	ClassCauseway           = "causeway"
	ClassClusterset         = "causeway-clusterset"
	AnnotationScope         = "causeway.dev/scope"          // on a route: "cluster" keeps it home
	AnnotationServiceRoutes = "causeway.dev/service-routes" // on a Gateway: "ignore" turns chaining off
	AnnotationClusters      = "causeway.dev/clusters"       // on a clusterset Gateway: a label selector over region, zone, network, name
	AnnotationDistribution  = "causeway.dev/distribution"   // on a ServiceExport: "even"
	AnnotationWeight        = "causeway.dev/weight"         // on a ServiceExport: this cluster's share, 0 to 1000000
	DomainClusterset        = "svc.clusterset.local"
	DomainCluster           = "svc.cluster.local"
	LabelNamespaceName      = "kubernetes.io/metadata.name"
	LabelServiceName        = "kubernetes.io/service-name"
	ScopeCluster            = "cluster"
	ServiceRoutesIgnore     = "ignore"
	DistributionEven        = "even"
)

// Ref names an object within one cluster.
type Ref struct {
	Kind      Kind
	Namespace string // empty for cluster-scoped kinds
	Name      string
}

// String gives Kind/namespace/name, as messages show it.
func (r Ref) String() string {
	if r.Namespace == "" {
		return string(r.Kind) + "/" + r.Name
	}
	return string(r.Kind) + "/" + r.Namespace + "/" + r.Name
}

// Seniority orders objects where the standards say "oldest" (DESIGN section 2).
type Seniority struct {
	// Revision is the store's create revision, 0 while the object isn't
	// published. It can't be back-dated by the cluster that wrote it.
	Revision int64
	// Created is the object's own creationTimestamp.
	Created time.Time
}

// Object is one object of one cluster. Immutable once handed over.
type Object struct {
	Ref
	Cluster   ID
	Seniority Seniority
	// Value is the upstream type that the Kind's comment names.
	Value any
	// Origin tells a person where the object was read, "app.yaml:12" or empty.
	Origin string
}

// Older reports whether a comes before b in the one total order: published
// objects by create revision, then the others by creationTimestamp; ties by
// namespace/name, then cluster, then kind.
func Older(a, b *Object) bool {
	ap, bp := a.Seniority.Revision > 0, b.Seniority.Revision > 0
	switch {
	case ap != bp:
		return ap
	case ap && a.Seniority.Revision != b.Seniority.Revision:
		return a.Seniority.Revision < b.Seniority.Revision
	case !a.Seniority.Created.Equal(b.Seniority.Created):
		return a.Seniority.Created.Before(b.Seniority.Created)
	case a.Namespace != b.Namespace:
		return a.Namespace < b.Namespace
	case a.Name != b.Name:
		return a.Name < b.Name
	case a.Cluster != b.Cluster:
		return a.Cluster < b.Cluster
	}
	return a.Kind < b.Kind
}
