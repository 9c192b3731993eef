package store_test

import (
	"errors"
	"slices"
	"strings"
	"testing"

	"k8s.io/apimachinery/pkg/util/validation"
	"pgregory.net/rapid"

	"github.com/causeway-mesh/causeway/federation/store"
)

// Strings of the alphabet in which the rules are made and broken.
var (
	anyName = rapid.OneOf(
		rapid.StringMatching(`[a-z0-9]([a-z0-9-]{0,8}[a-z0-9])?(\.[a-z0-9]([a-z0-9-]{0,8}[a-z0-9])?){0,2}`),
		rapid.StringMatching(`[a-zA0\-./_]{0,10}`),
		rapid.String(),
		rapid.Map(rapid.IntRange(60, 260), func(n int) string { return strings.Repeat("a", n) }),
	)
	anySection = rapid.OneOf(rapid.SampledFrom(store.Sections()), rapid.Map(anyName, func(s string) store.Section { return store.Section(s) }))
)

// A key is built exactly of valid parts, as Kubernetes defines them, and comes
// back as the same parts.
func TestKeyRoundTrip(t *testing.T) {
	t.Parallel()
	rapid.Check(t, func(t *rapid.T) {
		k := store.Key{
			Cluster: anyName.Draw(t, "cluster"),
			Section: anySection.Draw(t, "section"),
			Names:   rapid.SliceOfN(anyName, 0, store.MaxKeyNames+1).Draw(t, "names"),
		}
		if rapid.Bool().Draw(t, "policy") {
			k.Cluster, k.Section = "", ""
		}
		valid := len(k.Names) > 0 && len(k.Names) <= store.MaxKeyNames
		for _, n := range k.Names {
			valid = valid && len(validation.IsDNS1123Subdomain(n)) == 0
		}
		if k.Cluster != "" || k.Section != "" {
			valid = valid && len(validation.IsDNS1123Label(k.Cluster)) == 0 && slices.Contains(store.Sections(), k.Section)
		}
		s, err := k.Build()
		if valid != (err == nil) {
			t.Fatalf("%+v: valid %v, error %v", k, valid, err)
		}
		if err != nil {
			if !errors.Is(err, store.ErrInvalid) {
				t.Fatalf("%v is no ErrInvalid", err)
			}
			return
		}
		back, err := store.ParseKey(s)
		if err != nil || back.Cluster != k.Cluster || back.Section != k.Section || !slices.Equal(back.Names, k.Names) {
			t.Fatalf("%s: %+v, %v; want %+v", s, back, err, k)
		}
		if k.Cluster != "" {
			p, err := store.SectionPrefix(k.Cluster, k.Section)
			if err != nil || !strings.HasPrefix(s, p) {
				t.Fatalf("%s is not below %q, %v", s, p, err)
			}
		}
	})
}

// Whatever was written into the store is parsed to something that builds the same
// key, or refused.
func TestParseAnyKey(t *testing.T) {
	t.Parallel()
	rapid.Check(t, func(t *rapid.T) {
		parts := rapid.SliceOfN(anyName, 0, 8).Draw(t, "parts")
		s := rapid.SampledFrom([]string{"", store.Root, store.ClustersPrefix, store.PolicyPrefix, store.ClustersPrefix + "one/routes/"}).Draw(t, "prefix") +
			strings.Join(parts, "/")
		k, err := store.ParseKey(s)
		if err != nil {
			if !errors.Is(err, store.ErrInvalid) {
				t.Fatalf("%v is no ErrInvalid", err)
			}
			return
		}
		if back, err := k.Build(); err != nil || back != s {
			t.Fatalf("%q parses to %+v, which builds %q, %v", s, k, back, err)
		}
	})
}

func TestKeys(t *testing.T) {
	t.Parallel()
	for s, want := range map[string]store.Key{
		"/causeway/v1/clusters/one/routes/httproute/app/a.b": {Cluster: "one", Section: store.SectionRoutes, Names: []string{"httproute", "app", "a.b"}},
		"/causeway/v1/policy/namespaces":                     {Names: []string{"namespaces"}},
	} {
		k, err := store.ParseKey(s)
		if err != nil || k.Cluster != want.Cluster || k.Section != want.Section || !slices.Equal(k.Names, want.Names) {
			t.Errorf("%s: %+v, %v", s, k, err)
		}
	}
	for _, s := range []string{
		"", "/", "/causeway/v1", "/causeway/v1/", "/causeway/v1/policy", "/causeway/v1/policy/",
		"/causeway/v1/clusters/one", "/causeway/v1/clusters/one/routes", "/causeway/v1/clusters/one/routes/",
		"/causeway/v1/clusters//routes/a", "/causeway/v1/clusters/one/nonsense/a", "/causeway/v1/clusters/one/routes/a//b",
		"/causeway/v1/clusters/one/routes/../a", "/causeway/v1/clusters/a.b/routes/a", "/causeway/v2/clusters/one/routes/a",
		"/causeway/v1/clusters/one/routes/a/b/c/d/e/f", "/causeway/v1/clusters/one/routes/a\x00", strings.Repeat("/causeway/v1/policy/a", 1000),
	} {
		if k, err := store.ParseKey(s); !errors.Is(err, store.ErrInvalid) {
			t.Errorf("%.80q: %+v, %v", s, k, err)
		}
	}
	if p, err := store.ClusterPrefix("one"); err != nil || p != "/causeway/v1/clusters/one/" {
		t.Errorf("prefix %q, %v", p, err)
	}
	if k, err := store.DrainKey("one"); err != nil || k != "/causeway/v1/policy/drain/one" {
		t.Errorf("drain key %q, %v", k, err)
	}
	for _, c := range []string{"", "One", "a/b", "a.b", "-a", strings.Repeat("a", 64)} {
		if p, err := store.ClusterPrefix(c); err == nil {
			t.Errorf("prefix %q of cluster %q", p, c)
		}
		if k, err := store.DrainKey(c); !errors.Is(err, store.ErrInvalid) {
			t.Errorf("drain key %q of cluster %q: %v", k, c, err)
		}
	}
}
