package provision

import (
	rbacv1 "k8s.io/api/rbac/v1"
	mcsv1beta1 "sigs.k8s.io/mcs-api/pkg/apis/v1beta1"

	"github.com/causeway-mesh/causeway/cluster/kubernetes"
)

// Rules lists the rights that Entries, Provisioner and Gateways need cluster-wide, beside those of
// package kubernetes. A right to patch is one to create, for server-side apply.
func Rules() []kubernetes.Rule {
	write := []string{"get", "list", "watch", "create", "patch", "delete"}
	return []kubernetes.Rule{
		{PolicyRule: rbacv1.PolicyRule{APIGroups: []string{mcsv1beta1.GroupName}, Resources: []string{mcsv1beta1.ServiceImportPluralName}, Verbs: write}, Why: "ServiceImports of what the clusterset exports"},
		{PolicyRule: rbacv1.PolicyRule{APIGroups: []string{""}, Resources: []string{"services"}, Verbs: write}, Why: "the derived Services, whose cluster IPs are ClusterSetIPs, and those of Gateways"},
		{PolicyRule: rbacv1.PolicyRule{APIGroups: []string{"discovery.k8s.io"}, Resources: []string{"endpointslices"}, Verbs: write}, Why: "the EndpointSlices of imports"},
		{PolicyRule: rbacv1.PolicyRule{APIGroups: []string{"apps"}, Resources: []string{"deployments"}, Verbs: write}, Why: "the Envoys of Gateways, each in its Gateway's namespace"},
		{PolicyRule: rbacv1.PolicyRule{APIGroups: []string{""}, Resources: []string{"configmaps", "serviceaccounts"}, Verbs: write}, Why: "the accounts of these Envoys, and the roots by which they know the agents"},
		{PolicyRule: rbacv1.PolicyRule{APIGroups: []string{"policy"}, Resources: []string{"poddisruptionbudgets"}, Verbs: write}, Why: "how many of a Gateway's Envoys may be away"},
	}
}
