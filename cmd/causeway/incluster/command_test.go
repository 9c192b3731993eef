package incluster

import (
	"os"
	"path/filepath"
	"slices"
	"strings"
	"testing"
	"time"

	"github.com/spf13/pflag"

	"github.com/causeway-mesh/causeway/cluster/identity"
)

// The command line comes before the environment, that before the file; what the file
// has too much is refused.
func TestOptions(t *testing.T) {
	t.Parallel()
	read := func(file string, args ...string) (options, error) {
		t.Helper()
		path := filepath.Join(t.TempDir(), "agent.yaml")
		if err := os.WriteFile(path, []byte(file), 0o600); err != nil {
			t.Fatal(err)
		}
		var o options
		f := pflag.NewFlagSet("agent", pflag.ContinueOnError)
		o.flags(f)
		if err := f.Parse(append([]string{"--config", path}, args...)); err != nil {
			t.Fatal(err)
		}
		env := map[string]string{"CAUSEWAY_ZONE": "env", "CAUSEWAY_NETWORK": "env", "CAUSEWAY_CROSSING_PORT": "1234"}
		return o, complete(f, func(k string) (string, bool) { v, ok := env[k]; return v, ok })
	}
	o, err := read("region: file\nzone: file\nnetwork: file\nstore: [https://a:1, https://b:2]\nhandover: 7s\nadvertise: ''\njoin: []\nverbose: true\n", "--network=line")
	if err != nil {
		t.Fatal(err)
	}
	if o.region != "file" || o.zone != "env" || o.network != "line" || o.crossingPort != 1234 || o.handover != 7*time.Second || !o.verbose || !slices.Equal(o.store, []string{"https://a:1", "https://b:2"}) || len(o.join) != 0 {
		t.Errorf("options are %+v", o)
	}
	for file, says := range map[string]string{"regoin: eu": "there is no flag --regoin", "handover: soon": "handover", "a: b: c": "--config"} {
		if _, err := read(file); err == nil || !strings.Contains(err.Error(), says) {
			t.Errorf("%q: %v", file, err)
		}
	}
}

// A certificate for another cluster is refused with a way out; an expired one is known
// as such.
func TestStoreCertificate(t *testing.T) {
	t.Parallel()
	a, err := identity.OpenStoreAuthority(identity.StoreAuthorityConfig{Clusterset: "prod"})
	if err != nil {
		t.Fatal(err)
	}
	c, err := a.IssueClient(0, "agent:west")
	if err != nil {
		t.Fatal(err)
	}
	leaf, err := checkStoreCertificate("store.crt", c.CertPEM(), "west")
	if err != nil || !leaf.NotAfter.After(time.Now()) {
		t.Errorf("the right certificate: %v, %v", leaf, err)
	}
	if _, err := checkStoreCertificate("store.crt", c.CertPEM(), "east"); err == nil || !strings.Contains(err.Error(), "causeway cluster add east") {
		t.Errorf("another cluster's certificate: %v", err)
	}
	if _, err := checkStoreCertificate("store.crt", []byte("nothing"), "west"); err == nil {
		t.Error("no certificate is taken for one")
	}
}
