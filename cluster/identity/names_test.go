package identity

import (
	"strings"
	"testing"

	"github.com/causeway-mesh/causeway/cluster"
	"github.com/spiffe/go-spiffe/v2/spiffeid"
	"pgregory.net/rapid"
)

func mustDomain(t testing.TB, id cluster.ID) spiffeid.TrustDomain {
	t.Helper()
	td, err := TrustDomain(id, "isles")
	if err != nil {
		t.Fatal(err)
	}
	return td
}

func TestIDs(t *testing.T) {
	td := mustDomain(t, "east")
	proxy, err := ProxyID(td, RoleCrossing, "causeway-system", "crossing")
	if err != nil {
		t.Fatal(err)
	}
	if want := "spiffe://east.isles/ns/causeway-system/proxy/crossing/crossing"; proxy.String() != want {
		t.Errorf("proxy is %s, want %s", proxy, want)
	}
	agent, _ := AgentID(td)
	hub, _ := HubID(td)
	user, _ := UserID(td, "Ada.L_1")
	for id, want := range map[spiffeid.ID]string{agent: "/agent", hub: "/hub", user: "/user/Ada.L_1"} {
		if id.Path() != want {
			t.Errorf("id %s, want path %s", id, want)
		}
	}
	if got, err := ClusterOf(td, "isles"); err != nil || got != "east" {
		t.Errorf("ClusterOf(%s) = %q, %v", td, got, err)
	}
}

func TestParseRefuses(t *testing.T) {
	long := strings.Repeat("a", 64)
	for _, uri := range []string{
		"",
		"spiffe://east.isles",
		"spiffe://east.isles/",
		"spiffe://east.isles/agent/",
		"spiffe://east.isles/agent/x",
		"spiffe://east.isles/admin",
		"spiffe://east.isles/user/",
		"spiffe://east.isles/user/-a",
		"spiffe://east.isles/user/.",
		"spiffe://east.isles/user/" + long + "a",
		"spiffe://east.isles/ns/app/proxy/root/x",
		"spiffe://east.isles/ns/app/proxy/sidecar",
		"spiffe://east.isles/ns/app/proxy/sidecar/X",
		"spiffe://east.isles/ns/app/proxy/sidecar/x/y",
		"spiffe://east.isles/ns/APP/proxy/sidecar/x",
		"spiffe://east.isles/ns/" + long + "/proxy/sidecar/x",
		"spiffe://east.isles/ns/app/proxy/sidecar/" + strings.Repeat(long+".", 4),
		"spiffe://east.isles/" + strings.Repeat("a", 3000),
		"https://east.isles/agent",
	} {
		if i, err := ParseString(uri); err == nil {
			t.Errorf("ParseString(%q) = %v, want an error", uri, i)
		} else if len(err.Error()) > 400 {
			t.Errorf("ParseString of %d bytes gives a message of %d bytes", len(uri), len(err.Error()))
		}
	}
}

func TestTrustDomainRefuses(t *testing.T) {
	for _, c := range []struct{ cluster, set string }{
		{"", "isles"}, {"East", "isles"}, {"a.b", "isles"}, {"east", ""}, {"east", "is_les"}, {"east", ".isles"},
		{"east", "isles/agent"}, {"east", strings.Repeat("a.", 126) + "aa"},
	} {
		if td, err := TrustDomain(cluster.ID(c.cluster), c.set); err == nil {
			t.Errorf("TrustDomain(%q, %q) = %v, want an error", c.cluster, c.set, td)
		}
	}
	// A cluster's domain is exactly one label below the clusterset's.
	for _, name := range []string{"isles", "a.east.isles", "east.isles2", "eastisles"} {
		if id, err := ClusterOf(spiffeid.RequireTrustDomainFromString(name), "isles"); err == nil {
			t.Errorf("ClusterOf(%s) = %q, want an error", name, id)
		}
	}
}

// What a builder makes, Parse takes apart the same; what Parse takes apart, ID
// puts together the same.
func TestRoundTrip(t *testing.T) {
	td := mustDomain(t, "east")
	label := rapid.StringMatching(`[a-z0-9]([-a-z0-9]{0,10}[a-z0-9])?`)
	rapid.Check(t, func(t *rapid.T) {
		in := Identity{TrustDomain: td, Kind: rapid.SampledFrom([]Kind{KindProxy, KindAgent, KindHub, KindUser}).Draw(t, "kind")}
		switch in.Kind {
		case KindProxy:
			in.Role = rapid.SampledFrom([]Role{RoleSidecar, RoleGateway, RoleCrossing}).Draw(t, "role")
			in.Namespace, in.Name = label.Draw(t, "namespace"), label.Draw(t, "name")
		case KindUser:
			in.Name = label.Draw(t, "name")
		}
		id, err := in.ID()
		if err != nil {
			t.Fatal(err)
		}
		if out, err := ParseString(id.String()); err != nil || out != in {
			t.Fatalf("%s parses to %+v, %v; want %+v", id, out, err, in)
		}
	})
	rapid.Check(t, func(t *rapid.T) {
		uri := "spiffe://east.isles/" + rapid.StringMatching(`(ns|user|agent|hub|proxy|[a-z._/-]{0,6}|/){1,6}`).Draw(t, "path")
		i, err := ParseString(uri)
		if err != nil {
			return
		}
		if id, err := i.ID(); err != nil || id.String() != uri {
			t.Fatalf("%s parses to %+v, which is %s, %v", uri, i, id, err)
		}
	})
}
