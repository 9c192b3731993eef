package agent

import (
	"fmt"
	"slices"
	"strings"
	"testing"

	"github.com/causeway-mesh/causeway/cluster"
	"github.com/causeway-mesh/causeway/cluster/provision"
	"github.com/causeway-mesh/causeway/federation/resolve"
	"github.com/causeway-mesh/causeway/federation/resolve/resolvetest"
)

const (
	flat = "east: {network: n, region: eu, crossing: ['192.0.2.1:15443']}\nwest: {network: n, region: us, crossing: ['192.0.2.2:15443']}\n"
	svcA = "kind: Service\nmetadata: {namespace: shop, name: a}\nspec: {clusterIP: %s, ports: [{name: %s, port: 80}]}\n---\nkind: Pods\nmetadata: {namespace: shop, name: a}\nready: %d\nnotReady: %d\n---\nkind: ServiceExport\nmetadata: {namespace: shop, name: a%s}\n"
)

func exporting(name string, ready, notReady int, annotations string) string {
	return fmt.Sprintf(svcA, "10.0.0.1", name, ready, notReady, annotations)
}

func worldOf(t *testing.T, local cluster.ID, meta, east, west string, more ...string) *resolve.Result {
	t.Helper()
	files := map[string][]byte{"meta.yaml": []byte(meta), "east.yaml": []byte(east), "west.yaml": []byte(west)}
	for i := 0; i+1 < len(more); i += 2 {
		files[more[i]] = []byte(more[i+1])
	}
	return resolve.Resolve(local, resolvetest.Files(t, files))
}

// localOnly gives the Service internalTrafficPolicy Local.
func localOnly(s string) string {
	return strings.Replace(s, "spec: {", "spec: {internalTrafficPolicy: Local, ", 1)
}

var shopA = provision.Name{Namespace: "shop", Name: "a"}

// kube-proxy gets the endpoints themselves only where it does with them what a sidecar
// would; else clients go through the crossing gateways.
func TestWhoTakesPlainClients(t *testing.T) {
	east, west := exporting("http", 2, 0, ""), exporting("http", 2, 0, "")
	route := "---\nkind: HTTPRoute\nmetadata: {namespace: shop, name: r}\nspec: {parentRefs: [{group: multicluster.x-k8s.io, kind: ServiceImport, name: a}], rules: [{}]}\n"
	consumer := strings.Replace(strings.Replace(route, "namespace: shop, name: r", "namespace: dev, name: r", 1), "name: a}", "namespace: shop, name: a}", 1)
	six := "---\nkind: EndpointSlice\nmetadata: {namespace: shop, name: a-6, labels: {kubernetes.io/service-name: a}}\naddressType: IPv6\nports: [{name: http, port: 80}]\nendpoints: [{addresses: ['fd00::1']}]\n"
	for what, c := range map[string]struct {
		res      *resolve.Result
		gateways bool
	}{
		"one network":                     {worldOf(t, "east", flat, east, west), false},
		"a producer route":                {worldOf(t, "east", flat, east+route, west), true},
		"a consumer route":                {worldOf(t, "east", flat, east+consumer, west), false},
		"two networks":                    {worldOf(t, "east", strings.Replace(flat, "west: {network: n", "west: {network: m", 1), east, west), true},
		"no network said":                 {worldOf(t, "east", strings.ReplaceAll(flat, "network: n, ", ""), east, west), true},
		"alone on its network":            {worldOf(t, "east", strings.Replace(flat, "west: {network: n", "west: {network: m", 1), east, "kind: Namespace\nmetadata: {name: shop}\n"), false},
		"a weight":                        {worldOf(t, "east", flat, east, exporting("http", 2, 0, ", annotations: {causeway.dev/weight: '3'}")), true},
		"even":                            {worldOf(t, "east", flat, exporting("http", 2, 0, ", annotations: {causeway.dev/distribution: even}"), west), true},
		"a drain":                         {worldOf(t, "east", flat, east, west, "drain.yaml", "west: 30\n"), true},
		"its own drain":                   {worldOf(t, "west", flat, east, west, "drain.yaml", "west: 30\n"), false},
		"no addresses are published":      {worldOf(t, "east", flat, east, strings.Replace(west, "ready: 2\n", "ready: 2\ncounted: true\n", 1)), true},
		"not all have both IP families":   {worldOf(t, "east", flat, east+six, west), true},
		"all have both IP families":       {worldOf(t, "east", flat, east+six, west+six), false},
		"local, on different networks":    {worldOf(t, "east", strings.Replace(flat, "west: {network: n", "west: {network: m", 1), localOnly(east), localOnly(exporting("http", 2, 0, ", annotations: {causeway.dev/weight: '3'}"))), false},
		"local, with a producer route":    {worldOf(t, "east", flat, localOnly(east)+route, localOnly(west)), true},
		"headless, on different networks": {worldOf(t, "east", strings.Replace(flat, "west: {network: n", "west: {network: m", 1), strings.Replace(east, "10.0.0.1", "None", 1), west), false},
	} {
		if imp := importOf(c.res, shopA); imp == nil || imp.Gateways != c.gateways {
			t.Errorf("%s: through the gateways: %v", what, imp != nil && imp.Gateways)
		}
	}
	if importOf(worldOf(t, "east", flat, east, west), provision.Name{Namespace: "shop", Name: "b"}) != nil {
		t.Error("there is an import that nobody exports")
	}
}

// The nearest clusters that can take all requests are used, and more of them the fewer of
// their endpoints are ready; withdrawn ones have no slices; ports bear the import's names.
func TestSourcesOfAnImport(t *testing.T) {
	show := func(imp *provision.Import) string {
		var out []string
		for _, s := range imp.Sources {
			text := string(s.Cluster)
			if s.Own {
				text += " own"
			}
			if s.Direct {
				text += " direct"
			}
			if s.Used {
				text += " used"
			}
			for _, x := range s.Slices {
				text += fmt.Sprintf(" %s:%s/%d(%d)", x.Name, x.Ports[0].Name, x.Ports[0].Port, len(x.Endpoints))
			}
			out = append(out, text)
		}
		return strings.Join(out, ", ")
	}
	three := flat + "north: {network: other, crossing: ['192.0.2.3:15443']}\n"
	none := "kind: Namespace\nmetadata: {name: shop}\n"
	for what, c := range map[string]struct {
		res  *resolve.Result
		want string
	}{
		"nearest first":      {worldOf(t, "east", flat, exporting("http", 2, 0, ""), exporting("web", 1, 0, "")), "east own direct used a:http/80(2), west direct a:http/80(1)"},
		"overflow":           {worldOf(t, "east", flat, exporting("http", 1, 2, ""), exporting("http", 1, 0, "")), "east own direct used a:http/80(3), west direct used a:http/80(1)"},
		"nobody is ready":    {worldOf(t, "east", flat, exporting("http", 0, 2, ""), exporting("http", 0, 1, "")), "east own direct used a:http/80(2), west direct a:http/80(1)"},
		"elsewhere alone":    {worldOf(t, "east", flat, none, exporting("http", 1, 0, "")), "west direct used a:http/80(1)"},
		"a dead cluster":     {worldOf(t, "east", flat, exporting("http", 1, 0, ""), exporting("http", 1, 0, ""), "health.yaml", "west: Dead\n"), "east own direct used a:http/80(1), west direct"},
		"a port of one only": {worldOf(t, "east", flat, exporting("http", 1, 0, ""), strings.Replace(exporting("http", 1, 0, ""), "port: 80", "port: 81", 1)), "east own direct used a:http/80(1), west direct"},
		"local":              {worldOf(t, "east", flat, localOnly(exporting("http", 1, 2, "")), localOnly(exporting("http", 1, 0, ""))), "east own direct used a:http/80(3), west direct"},
		"local, not here":    {worldOf(t, "east", flat, none, localOnly(exporting("http", 1, 0, ""))), "west direct"},
		"another network":    {worldOf(t, "east", three, exporting("http", 1, 0, ""), none, "north.yaml", exporting("http", 1, 0, "")), "east own direct used a:http/80(1), north"},
	} {
		if got := show(importOf(c.res, shopA)); got != c.want {
			t.Errorf("%s: %s\nwant %s", what, got, c.want)
		}
	}
}

func TestGatewaysOf(t *testing.T) {
	res := worldOf(t, "east", flat, "kind: Service\nmetadata: {namespace: causeway-system, name: crossing}\nspec: {ports: [{name: mtls, port: 15443}]}\n---\nkind: Pods\nmetadata: {namespace: causeway-system, name: crossing}\nready: 1\nnotReady: 1\nterminating: 1\n", "kind: Namespace\nmetadata: {name: shop}\n")
	var got []string
	for _, g := range gatewaysOf(res, "causeway-system", "crossing") {
		got = append(got, fmt.Sprintf("%s %v %v %v", g.Addr, g.Ready, g.Serving, g.Terminating))
	}
	if want := []string{"10.1.1.1 true true false", "10.1.1.2 false false false", "10.1.1.3 false true true"}; !slices.Equal(got, want) {
		t.Errorf("gateways %q, want %q", got, want)
	}
}
