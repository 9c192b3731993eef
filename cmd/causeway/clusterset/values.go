package clusterset

import (
	"fmt"

	corev1 "k8s.io/api/core/v1"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
	"sigs.k8s.io/yaml"

	"github.com/causeway-mesh/causeway/cluster/identity"
	"github.com/causeway-mesh/causeway/cmd/causeway/agent"
	"github.com/causeway-mesh/causeway/cmd/causeway/mounted"
	"github.com/causeway-mesh/causeway/federation/store/etcd"
)

// place is where a cluster is, as its agents will say.
type place struct {
	Name    string `json:"name"`
	Region  string `json:"region,omitempty"`
	Zone    string `json:"zone,omitempty"`
	Network string `json:"network,omitempty"`
}

// SecretName is the Secret that the charts mount unless they are told another; its
// keys are the files of package mounted.
const SecretName = "causeway-clusterset"

// values are those of the charts that `clusterset` and `cluster` write. Each chart's
// values.schema.json knows them.
type values struct {
	Cluster    *place           `json:"cluster,omitempty"`
	Clusterset clustersetValues `json:"clusterset"`
	Store      storeValues      `json:"store"`
	Gossip     gossipValues     `json:"gossip"`
	Etcd       *etcdValues      `json:"etcd,omitempty"`
	Secret     secretValues     `json:"secret"`
}

type clustersetValues struct {
	Name string `json:"name"`
}

type storeValues struct {
	Endpoints []string `json:"endpoints"`
}

type gossipValues struct {
	Join []string `json:"join,omitempty"`
}

// secretValues become the chart's Secret.
type secretValues struct {
	Data map[string]string `json:"data"`
}

// etcdValues are for the etcd that the chart causeway-hub can run.
type etcdValues struct {
	TLS map[string]string `json:"tls"`
	// Root is etcd's administrator, for the chart's own jobs.
	Root map[string]string `json:"root"`
}

// agentData is what a cluster's agents need: nothing of any other cluster's.
func (f *folder) agentData(agent *identity.Credential) map[string]string {
	return map[string]string{
		mounted.StoreRoots:  string(f.storeRoots()),
		mounted.StoreCert:   string(agent.CertPEM()),
		mounted.StoreKey:    string(agent.KeyPEM()),
		mounted.Gossip:      f.gossip.Reveal() + "\n",
		mounted.DomainRoots: string(f.domainRoots()),
	}
}

func (f *folder) agentValues(p place, agent *identity.Credential) ([]byte, error) {
	return render(fmt.Sprintf("Values of the Helm chart causeway for cluster %s. They hold keys.", p.Name), values{
		Cluster:    &p,
		Clusterset: clustersetValues{f.set.Name},
		Store:      storeValues{f.set.Etcd},
		Gossip:     gossipValues{f.set.Hubs},
		Secret:     secretValues{f.agentData(agent)},
	})
}

func (f *folder) agentSecret(p place, c *identity.Credential) ([]byte, error) {
	return render(fmt.Sprintf("For the agents of cluster %s: install the Helm chart causeway with secret.existing=%s.", p.Name, SecretName), corev1.Secret{
		TypeMeta:   metav1.TypeMeta{APIVersion: "v1", Kind: "Secret"},
		ObjectMeta: metav1.ObjectMeta{Name: SecretName, Namespace: agent.SystemNamespace},
		StringData: f.agentData(c),
	})
}

// hubValues are what hubs need, and the etcd of their chart.
func (f *folder) hubValues(server *identity.Credential) ([]byte, error) {
	hub, err := f.store.IssueClient(leafTTL, etcd.HubUser)
	if err != nil {
		return nil, err
	}
	policy, err := f.store.IssueClient(leafTTL, etcd.PolicyUser)
	if err != nil {
		return nil, err
	}
	root, err := f.store.IssueClient(leafTTL, etcd.AdminUser)
	if err != nil {
		return nil, err
	}
	svid, err := f.hubCredential()
	if err != nil {
		return nil, err
	}
	data := f.agentData(hub)
	data[mounted.PolicyCert], data[mounted.PolicyKey] = string(policy.CertPEM()), string(policy.KeyPEM())
	data[mounted.HubCert], data[mounted.HubKey] = string(svid.CertPEM()), string(svid.KeyPEM())
	pair := func(c *identity.Credential) map[string]string {
		return map[string]string{
			identity.FileCert: string(c.CertPEM()), identity.FileKey: string(c.KeyPEM()), identity.FileBundle: string(f.storeRoots()),
		}
	}
	return render("Values of the Helm chart causeway-hub. They hold keys, also that of the store's administrator.", values{
		Clusterset: clustersetValues{f.set.Name},
		Store:      storeValues{f.set.Etcd},
		Gossip:     gossipValues{f.set.Hubs},
		Secret:     secretValues{data},
		Etcd:       &etcdValues{TLS: pair(server), Root: pair(root)},
	})
}

func render(comment string, v any) ([]byte, error) {
	data, err := yaml.Marshal(v)
	if err != nil {
		return nil, err
	}
	return append([]byte("# "+comment+"\n"), data...), nil
}
