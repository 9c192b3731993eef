package policy

import (
	"fmt"
	"reflect"
	"strings"
	"testing"

	"google.golang.org/protobuf/proto"
	"k8s.io/apimachinery/pkg/labels"
	"pgregory.net/rapid"
)

const head = "apiVersion: causeway.dev/v1\nkind: ClusterPolicy\nmetadata: {name: p}\nspec: "

// What stands in a manifest is what holds, and goes through the store and back.
func TestParse(t *testing.T) {
	policies, err := Parse([]byte(head + `
  clusters: {names: [west, "edge-*"], selector: "region in (eu,us),name!=edge-9"}
  export: {allow: [shop, "team-*"], deny: [team-x]}
  route: {allow: []}
  quota: {objects: 1000, bytes: 10Mi}
---
# nothing but a remark
---
` + head + `{quota: {objects: 0}}`))
	if err != nil || len(policies) != 2 {
		t.Fatalf("%d policies, %v", len(policies), err)
	}
	objects, bytes := int64(1000), int64(10<<20)
	want := Policy{Name: "p", Clusters: &Clusters{Names: []string{"west", "edge-*"}, Selector: "region in (eu,us),name!=edge-9"},
		Export: &Namespaces{Allow: []string{"shop", "team-*"}, Deny: []string{"team-x"}}, Route: &Namespaces{Allow: []string{}},
		Quota: &Quota{Objects: &objects, Bytes: &bytes}}
	if !reflect.DeepEqual(policies[0], want) {
		t.Errorf("read %+v", policies[0])
	}
	for _, p := range policies {
		doc, err := p.Manifest()
		if err != nil {
			t.Fatal(err)
		}
		if again, err := Parse(doc); err != nil || !reflect.DeepEqual(again, []Policy{p}) {
			t.Errorf("%s\nread again: %+v, %v", doc, again, err)
		}
		wire, err := proto.Marshal(p.Message())
		if err != nil {
			t.Fatal(err)
		}
		m := p.Message()
		proto.Reset(m)
		if err := proto.Unmarshal(wire, m); err != nil {
			t.Fatal(err)
		}
		if again, err := FromMessage(m); err != nil || !reflect.DeepEqual(again, p) {
			t.Errorf("through the wire: %+v, %v, not %+v", again, err, p)
		}
	}
}

// What can't be meant is refused, and the message says where.
func TestRefused(t *testing.T) {
	for doc, says := range map[string]string{
		head + `{}`:                                                                "says nothing",
		head + `{export: {}}`:                                                      "allow: []",
		head + `{export: {deny: []}}`:                                              "export",
		head + `{export: {allow: [Team]}}`:                                         `"Team"`,
		head + `{route: {deny: ["a/b"]}}`:                                          "route.deny",
		head + `{route: {deny: ["[a-z]"]}}`:                                        "route.deny",
		head + `{export: {allow: []}, clusters: {}}`:                               "all clusters",
		head + `{export: {alow: []}}`:                                              "alow",
		head + `{quota: {}}`:                                                       "objects or bytes",
		head + `{quota: {objects: -1}}`:                                            "quota.objects",
		head + `{quota: {bytes: 500m}}`:                                            "quota.bytes",
		head + `{quota: {bytes: 8Ei}}`:                                             "quota.bytes",
		head + `{export: {allow: []}, clusters: {selector: "((" }}`:                "clusters.selector",
		head + `{export: {allow: []}, clusters: {selector: "zone=a,rack=1" }}`:     `"rack"`,
		strings.Replace(head, "name: p", "name: P.q", 1) + `{export: {allow: []}}`: "DNS label",
		strings.Replace(head, "/v1", "/v2", 1) + `{export: {allow: []}}`:           "causeway.dev/v1",
		"kind: Service\napiVersion: v1":                                            "ClusterPolicy",
	} {
		if p, err := Parse([]byte(doc)); err == nil || !strings.Contains(err.Error(), says) {
			t.Errorf("%s\ngives %+v, %v; the error should say %s", doc, p, err, says)
		}
	}
}

// Deny wins over allow; several allow lists are one; without any, all is allowed.
func TestRules(t *testing.T) {
	two, five := int64(2), int64(5)
	set, err := Compile([]Policy{
		{Name: "team", Clusters: &Clusters{Names: []string{"w*"}}, Export: &Namespaces{Allow: []string{"team-*"}}, Quota: &Quota{Objects: &five}},
		{Name: "shop", Clusters: &Clusters{Selector: "region=eu"}, Export: &Namespaces{Allow: []string{"shop"}}, Quota: &Quota{Objects: &two, Bytes: &five}},
		{Name: "never", Export: &Namespaces{Deny: []string{"*-secret"}}},
		{Name: "home", Clusters: &Clusters{Names: []string{"north"}}, Route: &Namespaces{Allow: []string{}}},
	})
	if err != nil {
		t.Fatal(err)
	}
	west, east := labels.Set{"name": "west", "region": "eu"}, labels.Set{"name": "east"}
	for _, c := range []struct {
		cluster labels.Set
		verb    Verb
		ns      string
		says    string
	}{
		{west, Export, "team-a", ""}, {west, Export, "shop", ""},
		{west, Export, "app", `("shop", "team")`},
		{west, Export, "team-secret", `policy "never"`},
		{west, Route, "app", ""},
		{east, Export, "app", ""}, {east, Export, "a-secret", `policy "never"`},
		{labels.Set{"name": "north"}, Route, "app", `("home")`}, {labels.Set{"name": "north"}, Export, "app", ""},
	} {
		got := set.For(c.cluster).Refuses(c.verb, c.ns)
		if (got == "") != (c.says == "") || !strings.Contains(got, c.says) {
			t.Errorf("%s %s %s: %q, should say %q", c.cluster, c.verb, c.ns, got, c.says)
		}
	}
	r := set.For(west)
	if r.Objects.Most != 2 || r.Objects.Policy != "shop" || r.Bytes.Most != 5 || set.For(east).Objects != nil {
		t.Errorf("quotas: %+v, %+v", r.Objects, r.Bytes)
	}
	if why := (*Set)(nil).For(west).Refuses(Export, "app"); why != "" {
		t.Errorf("no policies: %s", why)
	}
}

// The order in which policies come makes no difference, and a deny more never allows more.
func TestOrder(t *testing.T) {
	rapid.Check(t, func(t *rapid.T) {
		patterns := rapid.SliceOfN(rapid.SampledFrom([]string{"a", "b", "a*", "*b", "*", "a*b"}), 0, 2)
		var all []Policy
		for i := range rapid.IntRange(1, 4).Draw(t, "policies") {
			n := &Namespaces{Deny: patterns.Draw(t, "deny")}
			if rapid.Bool().Draw(t, "list") {
				n.Allow = patterns.Draw(t, "allow")
			}
			all = append(all, Policy{Name: fmt.Sprint("p", i), Export: n})
		}
		ask := func(list []Policy, ns string) string {
			set, err := Compile(list)
			if err != nil {
				t.Fatal(err)
			}
			return set.For(labels.Set{"name": "west"}).Refuses(Export, ns)
		}
		for _, ns := range []string{"a", "b", "ab", "c"} {
			if x, y := ask(all, ns), ask(rapid.Permutation(all).Draw(t, "order"), ns); x != y {
				t.Fatalf("%s: %q in one order, %q in another", ns, x, y)
			}
			more := append([]Policy{{Name: "z", Export: &Namespaces{Deny: patterns.Draw(t, "more")}}}, all...)
			if ask(all, ns) != "" && ask(more, ns) == "" {
				t.Fatalf("%s is allowed by a denial", ns)
			}
		}
	})
}
