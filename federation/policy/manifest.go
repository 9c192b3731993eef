package policy

import (
	"bufio"
	"bytes"
	"errors"
	"fmt"
	"io"

	"k8s.io/apimachinery/pkg/api/resource"
	yamlutil "k8s.io/apimachinery/pkg/util/yaml"
	"sigs.k8s.io/yaml"
)

// APIVersion and Kind of a policy's manifest. It is in the form of a Kubernetes
// object, and none: no API server has it.
const (
	APIVersion = "causeway.dev/v1"
	Kind       = "ClusterPolicy"
)

type manifest struct {
	APIVersion string   `json:"apiVersion"`
	Kind       string   `json:"kind"`
	Metadata   metadata `json:"metadata"`
	Spec       spec     `json:"spec"`
}

type metadata struct {
	Name string `json:"name"`
}

type spec struct {
	Clusters *Clusters   `json:"clusters,omitempty"`
	Export   *Namespaces `json:"export,omitempty"`
	Route    *Namespaces `json:"route,omitempty"`
	Quota    *quota      `json:"quota,omitempty"`
}

type quota struct {
	Objects *int64             `json:"objects,omitempty"`
	Bytes   *resource.Quantity `json:"bytes,omitempty"`
}

// Parse reads manifests, several documents apart by "---", strictly: what is
// unknown is an error. Each Policy is checked.
func Parse(data []byte) ([]Policy, error) {
	var out []Policy
	docs := yamlutil.NewYAMLReader(bufio.NewReader(bytes.NewReader(data)))
	for n := 1; ; n++ {
		doc, err := docs.Read()
		if errors.Is(err, io.EOF) {
			return out, nil
		}
		if err != nil {
			return nil, fmt.Errorf("document %d: %w", n, err)
		}
		if len(bytes.TrimSpace(doc)) == 0 {
			continue
		}
		p, err := parse(doc)
		if err != nil {
			return nil, fmt.Errorf("document %d: %w", n, err)
		}
		if p != nil {
			out = append(out, *p)
		}
	}
}

func parse(doc []byte) (*Policy, error) {
	var any map[string]any
	if err := yaml.Unmarshal(doc, &any); err != nil {
		return nil, err
	}
	if any == nil { // comments alone
		return nil, nil
	}
	if any["apiVersion"] != APIVersion || any["kind"] != Kind {
		return nil, fmt.Errorf("is of apiVersion %.80q and kind %.80q: policies are of %s and %s", fmt.Sprint(any["apiVersion"]), fmt.Sprint(any["kind"]), APIVersion, Kind)
	}
	var m manifest
	if err := yaml.UnmarshalStrict(doc, &m); err != nil {
		return nil, err
	}
	p := Policy{Name: m.Metadata.Name, Clusters: m.Spec.Clusters, Export: m.Spec.Export, Route: m.Spec.Route}
	if q := m.Spec.Quota; q != nil {
		p.Quota = &Quota{Objects: q.Objects}
		if q.Bytes != nil {
			n, ok := q.Bytes.AsInt64()
			if !ok {
				return nil, fmt.Errorf("policy %q: quota.bytes %s is no whole number from 0 to %d", p.Name, q.Bytes, int64(maxQuota))
			}
			p.Quota.Bytes = &n
		}
	}
	if err := p.Check(); err != nil {
		return nil, fmt.Errorf("policy %q: %w", p.Name, err)
	}
	return &p, nil
}

// Manifest writes a Policy as YAML.
func (p *Policy) Manifest() ([]byte, error) {
	m := manifest{APIVersion: APIVersion, Kind: Kind, Metadata: metadata{p.Name}, Spec: spec{Clusters: p.Clusters, Export: p.Export, Route: p.Route}}
	if q := p.Quota; q != nil {
		m.Spec.Quota = &quota{Objects: q.Objects}
		if q.Bytes != nil {
			m.Spec.Quota.Bytes = resource.NewQuantity(*q.Bytes, resource.BinarySI)
		}
	}
	return yaml.Marshal(m)
}
