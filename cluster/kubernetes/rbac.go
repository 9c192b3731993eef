package kubernetes

import (
	"slices"

	rbacv1 "k8s.io/api/rbac/v1"

	"github.com/causeway-mesh/causeway/cluster/attest"
)

// Rule is a right that a part of the agent needs, with the reason.
type Rule struct {
	rbacv1.PolicyRule
	Why string
}

// Rules lists the rights that Source and Client need cluster-wide. The chart's
// ClusterRole is held to it by a test.
func Rules() []Rule {
	read := []string{"get", "list", "watch"}
	var core, discovery, gateway, mcs, status, mcsStatus []string
	for _, r := range resources {
		switch {
		case r.single:
		case r.group == "":
			core = append(core, r.plural)
		case r.group == groupGateway:
			gateway = append(gateway, r.plural)
			if r.kind != "ReferenceGrant" {
				status = append(status, r.plural+"/status")
			}
		case r.group == groupMultiCluster:
			mcs = append(mcs, r.plural)
			mcsStatus = append(mcsStatus, r.plural+"/status")
		default:
			discovery = append(discovery, r.plural)
		}
	}
	rule := func(why, group string, verbs []string, resources ...string) Rule {
		slices.Sort(resources)
		return Rule{PolicyRule: rbacv1.PolicyRule{APIGroups: []string{group}, Resources: resources, Verbs: verbs}, Why: why}
	}
	return []Rule{
		rule("Services, and the labels of namespaces", "", read, core...),
		rule("endpoints of Services", "discovery.k8s.io", read, discovery...),
		rule("certificates and authorities that Gateways, ListenerSets and BackendTLSPolicies name; each is read by its name, so that Roles for single names do as well", "", read, "configmaps", "secrets"),
		rule("Gateways, routes and policies", groupGateway, read, gateway...),
		rule("what became of them", groupGateway, []string{"patch"}, status...),
		rule("exports and imports", groupMultiCluster, read, mcs...),
		rule("what became of them", groupMultiCluster, []string{"patch"}, mcsStatus...),
		rule("to notice at once that a kind comes or goes; without it discovery looks every 30 s", "apiextensions.k8s.io", []string{"list", "watch"}, "customresourcedefinitions"),
	}
}

// TokenRules are the rights to ask whose token an Envoy or a caller of the query API
// shows, and what the latter may see. Hubs need them too.
func TokenRules() []Rule {
	create := []string{"create"}
	return []Rule{
		{PolicyRule: rbacv1.PolicyRule{APIGroups: []string{"authentication.k8s.io"}, Resources: []string{"tokenreviews"}, Verbs: create},
			Why: "whose token it is that an Envoy shows to get its certificate, or a caller of the query API"},
		{PolicyRule: rbacv1.PolicyRule{APIGroups: []string{"authorization.k8s.io"}, Resources: []string{"subjectaccessreviews"}, Verbs: create},
			Why: "whether a caller of the query API may see all namespaces"},
	}
}

// ViewerRule is what lets a ServiceAccount see everything that the query API shows.
func ViewerRule() Rule {
	return Rule{PolicyRule: rbacv1.PolicyRule{APIGroups: []string{attest.AccessGroup}, Resources: []string{attest.AccessResource}, Verbs: []string{attest.AccessVerb}},
		Why: "all that the query API of agents and hubs shows, of all namespaces and clusters; bind it to whom you like"}
}

// Names of the agent's own objects, in its own namespace.
const (
	AuthoritySecret = "causeway-authority"
	TrustConfigMap  = "causeway-trust"
	LeaderLease     = "causeway-agent"
)

// NamespaceRules lists the rights that the agent needs in its own namespace alone.
func NamespaceRules() []Rule {
	rule := func(why, group, resource string, verbs []string, names ...string) Rule {
		return Rule{PolicyRule: rbacv1.PolicyRule{APIGroups: []string{group}, Resources: []string{resource}, Verbs: verbs, ResourceNames: names}, Why: why}
	}
	create, keep := []string{"create"}, []string{"get", "update"}
	return []Rule{
		rule("the cluster's certificate authority; Kubernetes can't bind the creation to a name", "", "secrets", create),
		rule("the same", "", "secrets", keep, AuthoritySecret),
		rule("the cluster's roots, for its Envoys' first contact", "", "configmaps", create),
		rule("the same", "", "configmaps", keep, TrustConfigMap),
		rule("who of the agents leads", "coordination.k8s.io", "leases", create),
		rule("the same", "coordination.k8s.io", "leases", keep, LeaderLease),
	}
}

// RemoveRules lists the rights that Client.Remove and Client.AgentsGone need, in the
// agent's own namespace alone.
func RemoveRules() []Rule {
	rule := func(why, group, resource, verb string, names ...string) Rule {
		return Rule{PolicyRule: rbacv1.PolicyRule{APIGroups: []string{group}, Resources: []string{resource}, Verbs: []string{verb}, ResourceNames: names}, Why: why}
	}
	return []Rule{
		rule("whether agents still run", "", "pods", "list"),
		rule("the cluster's certificate authority", "", "secrets", "delete", AuthoritySecret),
		rule("the cluster's roots", "", "configmaps", "delete", TrustConfigMap),
		rule("who of the agents led", "coordination.k8s.io", "leases", "delete", LeaderLease),
	}
}
