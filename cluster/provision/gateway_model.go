package provision

import (
	"regexp"
	"slices"

	appsv1 "k8s.io/api/apps/v1"
	corev1 "k8s.io/api/core/v1"
	policyv1 "k8s.io/api/policy/v1"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
	"k8s.io/apimachinery/pkg/types"
	gatewayv1 "sigs.k8s.io/gateway-api/apis/v1"

	"github.com/causeway-mesh/causeway/cluster/parameters"
)

// Gateway is a Gateway of ours, as far as what is made for it depends on it. Nobody
// changes it once it is handed over.
type Gateway struct {
	Name
	// Idle says that it is one of ours that can't run as it is now: what there is for it
	// stays. The rest is empty then.
	Idle  bool
	Class string
	// UID is that of this cluster's own object; empty for one that another cluster wrote.
	UID                 types.UID
	Ports               []GatewayPort // sorted; at least one, else it is Idle
	Labels, Annotations map[string]string
	Parameters          parameters.Parameters
	// Addresses are those that it asks for.
	Addresses []gatewayv1.GatewaySpecAddress
}

// GatewayPort is a port on which a Gateway listens.
type GatewayPort struct {
	Protocol corev1.Protocol
	Number   int32
}

// GatewaySettings are what the pods of all Gateways of a cluster have in common.
type GatewaySettings struct {
	Cluster, Clusterset, Region, Zone string
	// Audience is what the pods' tokens are made for (attest.Audience).
	Audience string
	// Image runs `causeway proxy` and Envoy, unless a Gateway's parameters say another.
	Image      string
	PullPolicy corev1.PullPolicy
	// Replicas to begin with, unless a Gateway's parameters say so.
	Replicas int32
}

// GatewayHave is what the API server has for one Gateway: objects that say they are for
// it, or have the name that is needed, whoever made them.
type GatewayHave struct {
	Account    *corev1.ServiceAccount
	Roots      *corev1.ConfigMap
	Service    *corev1.Service
	Deployment *appsv1.Deployment
	Budget     *policyv1.PodDisruptionBudget
	// Others are of ours, and have other names: of another class, say.
	Others []metav1.Object
}

// GatewayStanding is how a Gateway stands in this cluster, for its status.
type GatewayStanding struct {
	// Programmed is what there is to say of pods, Service and addresses: without time and
	// generation.
	Programmed metav1.Condition
	Addresses  []gatewayv1.GatewayStatusAddress // sorted as the Service has them
}

func (s GatewayStanding) equal(o GatewayStanding) bool {
	return s.Programmed == o.Programmed && slices.EqualFunc(s.Addresses, o.Addresses, func(a, b gatewayv1.GatewayStatusAddress) bool {
		return *a.Type == *b.Type && a.Value == b.Value
	})
}

// How what is made for a Gateway is known.
const (
	// LabelGateway is Gateway API's label with the Gateway's name, or what fits of it.
	LabelGateway = gatewayv1.GatewayNameLabelKey
	labelClass   = "gateway.networking.k8s.io/gateway-class-name"
	// AnnotationGateway has the name as it is.
	AnnotationGateway = "causeway.dev/gateway"
	// AnnotationApplied is a hash of what was applied, so that what isn't wanted any more
	// is noticed too.
	AnnotationApplied = "causeway.dev/applied"
	// AnnotationReplicas, on a Deployment, is the number of replicas that was asked for
	// when it was last given one.
	AnnotationReplicas = "causeway.dev/replicas"
)

var serviceName = regexp.MustCompile(`^[a-z]([-a-z0-9]{0,61}[a-z0-9])?$`)

// labelled is the Gateway's name, or class's, as the value of a label: itself where it
// fits, else its beginning and a hash.
func labelled(name string) string {
	if len(name) <= 63 {
		return name
	}
	return name[:52] + "-" + hash(10, name)
}

// GatewayObjectName is the name of all that is made for a Gateway, in its namespace:
// the Gateway's and its class's (GEP-1762), or where that is no name of a Service its
// beginning and a hash.
func GatewayObjectName(gateway, class string) string {
	name := gateway + "-" + class
	if serviceName.MatchString(name) {
		return name
	}
	clean := make([]byte, 0, 50)
	for i := 0; i < len(name) && len(clean) < 50; i++ {
		switch c := name[i]; {
		case c >= 'a' && c <= 'z', c >= '0' && c <= '9':
			clean = append(clean, c)
		default:
			clean = append(clean, '-')
		}
	}
	if clean[0] < 'a' {
		clean = append([]byte("g"), clean...)
	}
	return string(clean) + "-" + hash(10, gateway, class)
}

// gatewayFor names the Gateway for which an object is there.
func gatewayFor(o metav1.Object) Name {
	return Name{o.GetNamespace(), o.GetAnnotations()[AnnotationGateway]}
}

// ProbePort is where the pods of Gateways answer kubelet. Nobody can listen there.
const ProbePort = 61000

// The ports of containers that stand for others.
const (
	lowest      = 1024  // the first that anybody may bind
	firstMoved  = 10000 // what is added to lower ones
	secondMoved = 51000 // what is added to those that these take
)

// TargetPort is where the pods of a Gateway listen for a port of it: there itself, but
// for ports that need privileges, and for those that stand for them. It is false for the
// ports from 61000 to 62023, on which a Gateway can't listen: they stand for others. No
// two ports have the same.
func TargetPort(port int32) (int32, bool) {
	switch {
	case port < 1 || port > 65535:
		return 0, false
	case port < lowest:
		return port + firstMoved, true
	case port > firstMoved && port < firstMoved+lowest:
		return port + secondMoved, true
	case port >= firstMoved+secondMoved && port < firstMoved+secondMoved+lowest:
		return 0, false
	}
	return port, true
}
