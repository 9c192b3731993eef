package query_test

import (
	"encoding/pem"
	"slices"
	"strings"
	"testing"

	gatewayv1 "sigs.k8s.io/gateway-api/apis/v1"

	causewayv1 "github.com/causeway-mesh/causeway/api/causeway/v1"
	"github.com/causeway-mesh/causeway/api/query/querytest"
	"github.com/causeway-mesh/causeway/cluster"
	"github.com/causeway-mesh/causeway/federation"
	"github.com/causeway-mesh/causeway/federation/policy"
	"github.com/causeway-mesh/causeway/federation/record/recordtest"
)

// Routes of every kind are listed and counted, with their hostnames and all parents
// that they name, whoever judges them.
func TestRoutesOfEveryKind(t *testing.T) {
	t.Parallel()
	w := querytest.New(t)
	service := querytest.Import("app", "web")
	set, other := recordtest.Parent(cluster.KindListenerSet, "more"), recordtest.Parent("Queue", "q")
	tcp := recordtest.TCPRoute("east", "kinds", "tcp", 1, service, 80)
	spec := &tcp.Value.(*gatewayv1.TCPRoute).Spec
	spec.ParentRefs = append(spec.ParentRefs, set, other)
	w.Edit(func(e *federation.Edit) {
		for _, o := range []*cluster.Object{
			recordtest.Route("east", "kinds", "http", 1, "web", "web", "/"),
			recordtest.GRPCRoute("east", "kinds", "grpc", 1, service, "a.B"),
			recordtest.TLSRoute("east", "kinds", "tls", 1, service, "tls.example"),
			tcp,
			recordtest.UDPRoute("east", "kinds", "udp", 1, service, 53),
		} {
			if err := e.Apply(federation.Change{Cluster: o.Cluster, Ref: o.Ref, Object: o}); err != nil {
				t.Fatal(err)
			}
		}
	})
	c := ada(t, querytest.Run(t, w.Config()))
	answer, err := c.ListRoutes(t.Context(), &causewayv1.ListRoutesRequest{Filter: &causewayv1.Filter{Namespace: "kinds"}})
	if err != nil {
		t.Fatal(err)
	}
	var got []string
	for _, r := range answer.GetRoutes() {
		got = append(got, r.GetKind()+"/"+r.GetName())
		switch r.GetName() {
		case "tls":
			if !slices.Equal(r.GetHostnames(), []string{"tls.example"}) {
				t.Errorf("hostnames %v", r.GetHostnames())
			}
		case "tcp":
			var named []string
			for _, p := range r.GetParents() {
				named = append(named, p.GetParent().GetKind()+"/"+p.GetParent().GetNamespace()+"/"+p.GetParent().GetName())
			}
			if want := []string{"ServiceImport/app/web", "ListenerSet/kinds/more", "Queue/kinds/q"}; !slices.Equal(named, want) {
				t.Errorf("parents %v, want %v", named, want)
			}
		}
		if p := r.GetParents(); len(p) == 0 || len(p[0].GetConditions()) == 0 || p[0].GetConditions()[0].GetType() != "Accepted" {
			t.Errorf("%s is not judged: %v", r.GetName(), p)
		}
	}
	if want := []string{"GRPCRoute/grpc", "HTTPRoute/http", "TCPRoute/tcp", "TLSRoute/tls", "UDPRoute/udp"}; !slices.Equal(got, want) {
		t.Errorf("routes %v, want %v", got, want)
	}
	clusters, err := c.ListClusters(t.Context(), &causewayv1.ListClustersRequest{Filter: &causewayv1.Filter{Cluster: "east"}})
	if err != nil || len(clusters.GetClusters()) != 1 || clusters.GetClusters()[0].GetRoutes() != 7 {
		t.Errorf("clusters %v, %v; want 7 routes in east", clusters.GetClusters(), err)
	}
}

// What is refused of objects without a list of their own is among the problems, told
// once however many clusters judge it, until it is mended.
func TestProblemsOfWhatIsRefused(t *testing.T) {
	t.Parallel()
	w := querytest.New(t)
	apply := func(list ...*cluster.Object) {
		w.Edit(func(e *federation.Edit) {
			for _, o := range list {
				if err := e.Apply(federation.Change{Cluster: o.Cluster, Ref: o.Ref, Object: o}); err != nil {
					t.Fatal(err)
				}
			}
		})
	}
	apply(
		recordtest.Service("east", "kinds", "secure", 1, 443),
		recordtest.Export("east", "kinds", "secure", 1, ""),
		recordtest.Policy("east", "kinds", "policy", 1, "secure", "roots"),
	)
	c := ada(t, querytest.Run(t, w.Config()))
	list := func() []string {
		answer, err := c.ListProblems(t.Context(), &causewayv1.ListProblemsRequest{Filter: &causewayv1.Filter{Namespace: "kinds"}})
		if err != nil {
			t.Fatal(err)
		}
		var out []string
		for _, p := range answer.GetProblems() {
			out = append(out, p.GetCluster()+" "+p.GetObject()+" "+p.GetMessage())
		}
		return out
	}
	got := list()
	for _, want := range []string{"Accepted=False, NoValidCACertificate: ", "ResolvedRefs=False, InvalidCACertificateRef: "} {
		if n := len(slices.DeleteFunc(slices.Clone(got), func(s string) bool {
			return !strings.HasPrefix(s, "east BackendTLSPolicy/kinds/policy "+want)
		})); n != 1 {
			t.Errorf("%s is told %d times in %q", want, n, got)
		}
	}
	status, err := c.GetStatus(t.Context(), &causewayv1.GetStatusRequest{})
	if err != nil || len(status.GetProblems()) < len(got) {
		t.Errorf("status tells %v, %v", status.GetProblems(), err)
	}
	apply(recordtest.ConfigMap("east", "kinds", "roots", 1, string(pem.EncodeToMemory(&pem.Block{Type: "CERTIFICATE", Bytes: recordtest.Authority(t)}))))
	if got := list(); len(got) != 0 {
		t.Errorf("mended, but %q", got)
	}
}

// What policy keeps from other clusters is told of its own cluster, once however
// many views there are; explain says what is missing for it.
func TestWhatPolicyKeeps(t *testing.T) {
	t.Parallel()
	w := querytest.New(t)
	set, err := policy.Compile([]policy.Policy{{Name: "quiet", Clusters: &policy.Clusters{Names: []string{"west", "north"}},
		Export: &policy.Namespaces{Allow: []string{}}, Route: &policy.Namespaces{Deny: []string{"dev"}}}})
	if err != nil {
		t.Fatal(err)
	}
	w.Edit(func(e *federation.Edit) { e.SetPolicies(set) })
	c := ada(t, querytest.Run(t, w.Config()))
	problems, err := c.ListProblems(t.Context(), &causewayv1.ListProblemsRequest{})
	if err != nil {
		t.Fatal(err)
	}
	var got []string
	for _, p := range problems.GetProblems() {
		if strings.Contains(p.GetMessage(), `"quiet"`) {
			got = append(got, p.GetCluster()+" "+p.GetObject())
		}
	}
	slices.Sort(got)
	if want := []string{"north ServiceExport/app/web", "west HTTPRoute/dev/web-dev", "west ServiceExport/app/web", "west ServiceExport/app/web-v2"}; !slices.Equal(got, want) {
		t.Errorf("told of %q, want %q", got, want)
	}
	e, err := c.Explain(t.Context(), &causewayv1.ExplainRequest{Source: &causewayv1.Source{Cluster: "east", From: &causewayv1.Source_Namespace{Namespace: "dev"}}, Url: "http://web.app.svc.clusterset.local/"})
	if err != nil {
		t.Fatal(err)
	}
	got = nil
	for _, x := range e.GetWithheld() {
		got = append(got, x.GetCluster()+" "+x.GetObject())
	}
	if want := []string{"west HTTPRoute/dev/web-dev", "north ServiceExport/app/web", "west ServiceExport/app/web", "west ServiceExport/app/web-v2"}; !slices.Equal(got, want) {
		t.Errorf("withheld: %q, want %q", got, want)
	}
}

// Routes of connections are obeyed where they govern, as those of requests are.
func TestUsesOfForwards(t *testing.T) {
	t.Parallel()
	w := querytest.New(t)
	w.Edit(func(e *federation.Edit) {
		for _, o := range []*cluster.Object{
			recordtest.Service("east", "kinds", "bytes", 1, 9000),
			recordtest.Export("east", "kinds", "bytes", 1, ""),
			recordtest.TCPRoute("east", "kinds", "tcp", 1, querytest.Import("kinds", "bytes"), 9000),
		} {
			if err := e.Apply(federation.Change{Cluster: o.Cluster, Ref: o.Ref, Object: o}); err != nil {
				t.Fatal(err)
			}
		}
	})
	c := ada(t, querytest.Run(t, w.Config()))
	answer, err := c.ListRoutes(t.Context(), &causewayv1.ListRoutesRequest{Filter: &causewayv1.Filter{Namespace: "kinds"}})
	if err != nil || len(answer.GetRoutes()) != 1 {
		t.Fatal(answer, err)
	}
	var clusters []string
	for _, u := range answer.GetRoutes()[0].GetUses() {
		clusters = append(clusters, u.GetClusters()...)
	}
	if !slices.Contains(clusters, "east") || !slices.Contains(clusters, "west") {
		t.Errorf("obeyed by %v, want east and west: %v", clusters, answer)
	}
}
