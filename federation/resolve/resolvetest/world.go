// Package resolvetest reads little worlds for tests: the clusters of a
// clusterset, each with its objects, as a Snapshot. Tests of the resolver and of
// what builds on it share it.
//
// A world is a set of files: meta.yaml says of each cluster its region, zone,
// network and crossing gateways; <cluster>.yaml holds the cluster's objects as
// Kubernetes manifests; health.yaml, if it is there, the liveness of clusters
// that are not alive; drain.yaml the percentage of those that are drained; policy.yaml
// the administrators' policies. The kind Pods, which exists here alone, is a short way to
// write an EndpointSlice: it names the Service that stands before it and how many
// endpoints are ready, notReady and terminating; counted: true leaves their
// addresses out, as a cluster does that shares its network with no other.
package resolvetest

import (
	"fmt"
	"net/netip"
	"os"
	"path/filepath"
	"sort"
	"strconv"
	"strings"
	"testing"

	corev1 "k8s.io/api/core/v1"
	discoveryv1 "k8s.io/api/discovery/v1"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
	gatewayv1 "sigs.k8s.io/gateway-api/apis/v1"
	gatewayv1beta1 "sigs.k8s.io/gateway-api/apis/v1beta1"
	mcsv1beta1 "sigs.k8s.io/mcs-api/pkg/apis/v1beta1"
	"sigs.k8s.io/yaml"

	"github.com/causeway-mesh/causeway/cluster"
	"github.com/causeway-mesh/causeway/federation"
	"github.com/causeway-mesh/causeway/federation/policy"
)

// AnnotationRevision gives an object its seniority in a test. Without it,
// objects are as old as they come first in the files, sorted by cluster.
const AnnotationRevision = "test/revision"

// pods is a short way to write the EndpointSlice of a Service.
type pods struct {
	metav1.ObjectMeta `json:"metadata"`
	Ready             int  `json:"ready"`
	NotReady          int  `json:"notReady"`
	Terminating       int  `json:"terminating"` // serving
	Counted           bool `json:"counted"`
}

// meta is meta.yaml: what each cluster says of itself.
type meta struct {
	Region, Zone, Network string
	Crossing              []string
}

// Dir reads a world from a folder.
func Dir(t testing.TB, dir string) *federation.Snapshot {
	t.Helper()
	return Files(t, readDir(t, dir))
}

// ReadDir is Read for a folder.
func ReadDir(t testing.TB, dir string) World {
	t.Helper()
	return Read(t, readDir(t, dir))
}

func readDir(t testing.TB, dir string) map[string][]byte {
	t.Helper()
	files := map[string][]byte{}
	entries, err := os.ReadDir(dir)
	if err != nil {
		t.Fatal(err)
	}
	for _, e := range entries {
		if filepath.Ext(e.Name()) != ".yaml" {
			continue
		}
		if files[e.Name()], err = os.ReadFile(filepath.Join(dir, e.Name())); err != nil {
			t.Fatal(err)
		}
	}
	return files
}

// Files reads a world from files by name.
func Files(t testing.TB, files map[string][]byte) *federation.Snapshot {
	t.Helper()
	return Read(t, files).Snapshot(t)
}

// World is what files say, before it becomes a Snapshot.
type World struct {
	Clusters []federation.Cluster // sorted
	Objects  []*cluster.Object
	Policies *policy.Set // nil: none
}

// Snapshot makes one of the world.
func (w World) Snapshot(t testing.TB) *federation.Snapshot {
	t.Helper()
	e := federation.NewBuilder().Edit()
	w.Put(t, e)
	e.SetRevision(int64(len(w.Objects)))
	s, _ := e.Commit()
	return s
}

// Put adds its clusters and objects to what is there.
func (w World) Put(t testing.TB, to *federation.Edit) {
	t.Helper()
	for _, c := range w.Clusters {
		to.SetCluster(c)
	}
	to.SetPolicies(w.Policies)
	for _, o := range w.Objects {
		if err := to.Apply(federation.Change{Cluster: o.Cluster, Ref: o.Ref, Object: o}); err != nil {
			t.Fatal(err)
		}
	}
}

// Read is Files before it becomes a Snapshot.
func Read(t testing.TB, files map[string][]byte) World {
	t.Helper()
	metas := map[string]meta{}
	health := map[string]federation.Liveness{}
	drained := map[string]int{}
	for name, into := range map[string]any{"meta.yaml": &metas, "health.yaml": &health, "drain.yaml": &drained} {
		if err := yaml.UnmarshalStrict(files[name], into); err != nil {
			t.Fatalf("%s: %v", name, err)
		}
	}
	var ids []string
	for id := range metas {
		ids = append(ids, id)
	}
	sort.Strings(ids)
	var w World
	if raw, ok := files["policy.yaml"]; ok {
		policies, err := policy.Parse(raw)
		if err != nil {
			t.Fatalf("policy.yaml: %v", err)
		}
		if w.Policies, err = policy.Compile(policies); err != nil {
			t.Fatalf("policy.yaml: %v", err)
		}
	}
	for i, id := range ids {
		m := metas[id]
		h := federation.Health{Liveness: federation.Alive}
		if l, ok := health[id]; ok {
			h.Liveness = l
		}
		w.Clusters = append(w.Clusters, federation.Cluster{ID: cluster.ID(id), Health: h, Drained: drained[id], DrainTarget: drained[id], Meta: cluster.Meta{Region: m.Region, Zone: m.Zone, Network: m.Network, Crossing: m.Crossing, TrustDomain: id + ".test"}})
		raw, ok := files[id+".yaml"]
		if !ok {
			t.Fatalf("%s.yaml is missing", id)
		}
		for _, o := range readObjects(t, id+".yaml", raw, cluster.ID(id), byte(i+1)) {
			w.Objects = append(w.Objects, o)
			if o.Seniority.Revision == 0 {
				o.Seniority.Revision = int64(len(w.Objects))
			}
		}
	}
	return w
}

func readObjects(t testing.TB, path string, raw []byte, id cluster.ID, subnet byte) []*cluster.Object {
	t.Helper()
	var out []*cluster.Object
	services := map[string]*corev1.Service{}
	next := byte(0)
	for _, doc := range strings.Split("\n"+string(raw), "\n---") {
		if strings.TrimSpace(doc) == "" {
			continue
		}
		var head metav1.TypeMeta
		if err := yaml.Unmarshal([]byte(doc), &head); err != nil {
			t.Fatalf("%s: %v", path, err)
		}
		into, ok := kinds()[head.Kind]
		if !ok {
			t.Fatalf("%s: kind %q is unknown", path, head.Kind)
		}
		if err := yaml.Unmarshal([]byte(doc), into); err != nil {
			t.Fatalf("%s: %v\n%s", path, err, doc)
		}
		o := &cluster.Object{Cluster: id, Value: into}
		m := into.(metav1.Object)
		o.Ref = cluster.Ref{Kind: cluster.Kind(head.Kind), Namespace: m.GetNamespace(), Name: m.GetName()}
		if s := m.GetAnnotations()[AnnotationRevision]; s != "" {
			n, err := strconv.ParseInt(s, 10, 64)
			if err != nil {
				t.Fatal(err)
			}
			o.Seniority.Revision = n
		}
		switch v := into.(type) {
		case *corev1.Service:
			for i := range v.Spec.Ports { // an API server's default
				v.Spec.Ports[i].Protocol = corev1.Protocol(protocolOf(v.Spec.Ports[i].Protocol))
			}
			services[o.Namespace+"/"+o.Name] = v
		case *pods:
			next++
			o.Kind = cluster.KindEndpointSlice
			o.Value = v.slice(t, services[o.Namespace+"/"+o.Name], subnet, next)
		case *discoveryv1.EndpointSlice:
			o.Value = packSlice(t, v)
		case *certificate:
			o.Kind, o.Value = cluster.KindSecret, v.secret(t)
		case *authority:
			o.Kind, o.Value = cluster.KindConfigMap, v.configMap(t)
		}
		out = append(out, o)
	}
	return out
}

func kinds() map[string]any {
	return map[string]any{
		"Namespace": &corev1.Namespace{}, "Service": &corev1.Service{}, "ServiceExport": &mcsv1beta1.ServiceExport{}, "EndpointSlice": &discoveryv1.EndpointSlice{},
		"GatewayClass": &gatewayv1.GatewayClass{}, "Gateway": &gatewayv1.Gateway{}, "HTTPRoute": &gatewayv1.HTTPRoute{}, "ReferenceGrant": &gatewayv1beta1.ReferenceGrant{},
		"GRPCRoute": &gatewayv1.GRPCRoute{}, "TLSRoute": &gatewayv1.TLSRoute{}, "TCPRoute": &gatewayv1.TCPRoute{}, "UDPRoute": &gatewayv1.UDPRoute{},
		"ListenerSet": &gatewayv1.ListenerSet{}, "BackendTLSPolicy": &gatewayv1.BackendTLSPolicy{}, "Secret": &corev1.Secret{}, "ConfigMap": &corev1.ConfigMap{},
		"Pods": &pods{}, "Certificate": &certificate{}, "Authority": &authority{},
	}
}

func (p *pods) slice(t testing.TB, s *corev1.Service, subnet, index byte) *cluster.EndpointSlice {
	t.Helper()
	if s == nil {
		t.Fatalf("pods %s/%s stand before their Service", p.Namespace, p.Name)
	}
	out := &cluster.EndpointSlice{Service: p.Name}
	for _, sp := range s.Spec.Ports {
		port := sp.TargetPort.IntVal
		if port == 0 {
			port = sp.Port
		}
		out.Ports = append(out.Ports, cluster.EndpointPort{Name: sp.Name, Port: uint16(port), Protocol: protocolOf(sp.Protocol)})
	}
	for i := range p.Ready + p.NotReady + p.Terminating {
		e := cluster.Endpoint{Addr: netip.AddrFrom4([4]byte{10, subnet, index, byte(i + 1)}), Pod: fmt.Sprintf("%s-%d", p.Name, i)}
		switch {
		case i < p.Ready:
			e.Ready, e.Serving = true, true
		case i >= p.Ready+p.NotReady:
			e.Serving, e.Terminating = true, true
		}
		out.Endpoints = append(out.Endpoints, e)
	}
	if p.Counted {
		return out.Counted()
	}
	return out
}

func packSlice(t testing.TB, in *discoveryv1.EndpointSlice) *cluster.EndpointSlice {
	t.Helper()
	out := &cluster.EndpointSlice{Service: in.Labels[cluster.LabelServiceName]}
	for _, p := range in.Ports {
		out.Ports = append(out.Ports, cluster.EndpointPort{Name: deref(p.Name, ""), Port: uint16(deref(p.Port, 0)), Protocol: protocolOf(deref(p.Protocol, ""))})
	}
	for _, e := range in.Endpoints {
		for _, a := range e.Addresses {
			addr, err := netip.ParseAddr(a)
			if err != nil {
				t.Fatal(err)
			}
			x := cluster.PackEndpoint(&e)
			x.Addr = addr
			out.Endpoints = append(out.Endpoints, x)
		}
	}
	return out
}

func protocolOf(p corev1.Protocol) string {
	if p == "" {
		return string(corev1.ProtocolTCP)
	}
	return string(p)
}

func deref[T any](p *T, d T) T {
	if p == nil {
		return d
	}
	return *p
}
