package translate

import (
	"os"
	"strings"
	"testing"

	"github.com/causeway-mesh/causeway/cluster"
	"github.com/causeway-mesh/causeway/federation/resolve"
	"github.com/causeway-mesh/causeway/xds/envoy/envoytest"
)

// The real Envoy takes each regular expression that the resolver does, wherever it stands;
// a route table with one that it does not take would stay as it was, whatever else changes.
func TestEnvoyTakesRegularExpressions(t *testing.T) {
	binary := envoytest.Binary(t)
	list, err := os.ReadFile("../../federation/resolve/resolvetest/regular-expressions")
	if err != nil {
		t.Fatal(err)
	}
	table := &resolve.RouteTable{}
	for _, expr := range strings.Split(strings.TrimSpace(string(list)), "\n") {
		v := resolve.ValueMatch{Name: "x", Value: expr, Regex: true}
		table.Rules = append(table.Rules, &resolve.Rule{Invalid: "a test", Match: resolve.Match{
			PathType: resolve.PathRegex, Path: expr, Headers: []resolve.ValueMatch{v}, Query: []resolve.ValueMatch{v},
		}})
	}
	s := scene{
		Proxy:    Proxy{Cluster: "east", Role: RoleGateway, Namespace: "app", Name: "edge"},
		Clusters: []cluster.ID{"east"}, Trust: []cluster.ID{"east"},
		Gateways: []*resolve.Gateway{{Namespace: "app", Name: "edge", Listeners: []resolve.Listener{{
			Name: "http", Port: 80, Protocol: protocolHTTP, Hosts: []resolve.VirtualHost{{Hostname: "*", Table: table}},
		}}}},
	}
	state := Build(s.input(t))
	if problems := state.Problems(); len(problems) > 0 {
		t.Errorf("not translated: %v", problems)
	}
	if err := accepted(t, binary, state); err != nil {
		t.Error(err)
	}
}
