package file

import (
	"strings"

	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
)

type groupKind struct{ group, kind string }

// kindReader reads the objects of one kind. read returns the object and its
// metadata; it reports what is wrong through the document instead of an error.
type kindReader struct {
	namespaced bool
	versions   []string
	read       func(*reader, *document) (any, *metav1.ObjectMeta)
}

const (
	groupGateway      = "gateway.networking.k8s.io"
	groupExperimental = "gateway.networking.x-k8s.io"
	groupMultiCluster = "multicluster.x-k8s.io"
)

// kinds are those that become objects of the cluster.
var kinds = map[groupKind]kindReader{
	{"", "Namespace"}:                     {false, []string{"v1"}, readNamespace},
	{"", "Service"}:                       {true, []string{"v1"}, readService},
	{"", "Secret"}:                        {true, []string{"v1"}, readSecret},
	{"", "ConfigMap"}:                     {true, []string{"v1"}, readConfigMap},
	{"apps", "Deployment"}:                {true, []string{"v1"}, readDeployment},
	{"discovery.k8s.io", "EndpointSlice"}: {true, []string{"v1"}, readEndpointSlice},
	{groupGateway, "GatewayClass"}:        {false, []string{"v1", "v1beta1"}, readGatewayClass},
	{groupGateway, "Gateway"}:             {true, []string{"v1", "v1beta1"}, readGateway},
	{groupGateway, "ListenerSet"}:         {true, []string{"v1"}, readListenerSet},
	{groupGateway, "HTTPRoute"}:           {true, []string{"v1", "v1beta1"}, readHTTPRoute},
	{groupGateway, "GRPCRoute"}:           {true, []string{"v1"}, readGRPCRoute},
	{groupGateway, "TLSRoute"}:            {true, []string{"v1", "v1alpha3", "v1alpha2"}, readTLSRoute},
	{groupGateway, "TCPRoute"}:            {true, []string{"v1", "v1alpha2"}, readTCPRoute},
	{groupGateway, "UDPRoute"}:            {true, []string{"v1", "v1alpha2"}, readUDPRoute},
	{groupGateway, "BackendTLSPolicy"}:    {true, []string{"v1", "v1alpha3"}, readBackendTLSPolicy},
	{groupGateway, "ReferenceGrant"}:      {true, []string{"v1", "v1beta1"}, readReferenceGrant},
	{groupMultiCluster, "ServiceExport"}:  {true, []string{"v1beta1", "v1alpha1"}, readServiceExport},
}

// otherKinds are real kinds that Causeway doesn't need, by group: manifests
// from elsewhere hold them, and leaving them out changes nothing that it does.
var otherKinds = map[string]string{
	"":                             "Binding ComponentStatus Endpoints Event LimitRange Node PersistentVolume PersistentVolumeClaim Pod PodTemplate ReplicationController ResourceQuota ServiceAccount",
	"apps":                         "ControllerRevision DaemonSet ReplicaSet StatefulSet",
	"admissionregistration.k8s.io": "*",
	"apiextensions.k8s.io":         "*",
	"apiregistration.k8s.io":       "*",
	"authentication.k8s.io":        "*",
	"authorization.k8s.io":         "*",
	"autoscaling":                  "*",
	"batch":                        "*",
	"certificates.k8s.io":          "*",
	"coordination.k8s.io":          "*",
	"events.k8s.io":                "*",
	"flowcontrol.apiserver.k8s.io": "*",
	"networking.k8s.io":            "*",
	"node.k8s.io":                  "*",
	"policy":                       "*",
	"rbac.authorization.k8s.io":    "*",
	"resource.k8s.io":              "*",
	"scheduling.k8s.io":            "*",
	"storage.k8s.io":               "*",
	"internal.apiserver.k8s.io":    "*",
	"storagemigration.k8s.io":      "*",
	"kustomize.config.k8s.io":      "*",
	"about.k8s.io":                 "*",
	"policy.networking.k8s.io":     "*",
	"monitoring.coreos.com":        "*",
}

// knownUnsupported are kinds of our own field that a person would expect to
// take effect.
var knownUnsupported = map[groupKind]string{
	{groupExperimental, "XListenerSet"}:          "XListenerSet is left out: Gateway API has made it ListenerSet of gateway.networking.k8s.io/v1, with the same fields; change apiVersion and kind",
	{groupExperimental, "XBackendTrafficPolicy"}: "XBackendTrafficPolicy is an experiment of Gateway API that Causeway does not follow, and is left out: retries are given in the rules of an HTTPRoute, session persistence in those of an HTTPRoute or GRPCRoute",
	{groupExperimental, "XMesh"}:                 "XMesh is an experiment of Gateway API that Causeway does not follow, and is left out: it needs no object of its own",
	{groupExperimental, "XBackend"}:              "XBackend is an experiment of Gateway API that Causeway does not follow, and is left out: give a Service as the backend",
	{groupMultiCluster, "ServiceImport"}:         "a ServiceImport is derived from the ServiceExports of all clusters and can't be given: write a ServiceExport and a Service of its name instead",
}

// unhandled says why a kind that isn't read needs a person's attention; empty
// if it doesn't.
func unhandled(group, kind string) string {
	if why, ok := knownUnsupported[groupKind{group, kind}]; ok {
		return why
	}
	if list, ok := otherKinds[group]; ok {
		if list == "*" {
			return ""
		}
		for k := range strings.FieldsSeq(list) {
			if k == kind {
				return ""
			}
		}
	}
	full := kind
	if group != "" {
		full += "." + group
	}
	if hint := elsewhere(kind); hint != "" {
		return "unknown kind " + clip(full) + " is left out: did you mean " + hint + "?"
	}
	return "unknown kind " + clip(full) + " is left out"
}

// elsewhere finds a kind of the same name, ignoring case, in a group that is
// known.
func elsewhere(kind string) string {
	best := ""
	for gk, k := range kinds {
		if strings.EqualFold(gk.kind, kind) {
			if s := gk.kind + " of " + joinVersions(gk.group, k.versions[:1]); best == "" || s < best {
				best = s
			}
		}
	}
	return best
}
