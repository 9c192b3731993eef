// Package imports holds the test of the import directions that docs/architecture.md draws.
package imports

import (
	"bytes"
	"encoding/json"
	"errors"
	"io"
	"os/exec"
	"slices"
	"strings"
	"testing"
)

const module = "github.com/causeway-mesh/causeway/"

// layers lists, for a package or a tree of packages ("x/..."), the only
// packages of ours that it may import. The first entry that fits decides.
var layers = []struct {
	pkg string
	may []string
}{
	{"cluster", nil},
	{"cluster/workload/echo", []string{"api/causeway/v1"}},
	{"cluster/...", []string{"cluster/..."}},
	{"api/causeway/v1", nil},
	{"federation/store/...", []string{"federation/store/..."}},
	{"federation/gossip", []string{"cluster", "cluster/identity"}},
	{"federation/policy", []string{"api/causeway/v1"}},
	{"federation/record", []string{"api/causeway/v1", "cluster", "federation", "federation/policy", "federation/store"}},
	{"federation", []string{"cluster", "federation/policy", "federation/record", "federation/store"}},
	{"federation/resolve", []string{"cluster", "cluster/parameters", "federation/..."}},
	{"federation/...", []string{"api/causeway/v1", "cluster", "federation/..."}},
	{"xds/translate", []string{"cluster", "federation/resolve"}},
	{"xds/translate/translatetest", []string{"federation/resolve", "xds/translate"}},
	{"xds/...", []string{"cluster", "xds/..."}},
	{"api/query", []string{"api/causeway/v1", "cluster", "cluster/identity", "federation/...", "xds/translate", "xds/server"}},
	{"api/admin", []string{"api/causeway/v1", "api/query", "cluster", "cluster/identity", "federation/policy", "federation/record", "federation/store"}},
	{"deploy/oci", nil},
	{"deploy/images", []string{"deploy/oci", "xds/envoy"}},
	{"cmd/causeway/client", []string{"api/causeway/v1", "cluster", "cluster/identity", "cluster/workload/echo", "federation/explain", "federation/policy", "federation/resolve"}}, // names of sources and hosts are parsed in one place
}

// foreign lists outside modules that only some trees may see.
var foreign = map[string][]string{
	"github.com/envoyproxy/go-control-plane": {"xds/...", "cmd/...", "test/..."},
	"k8s.io/client-go":                       {"cluster/...", "cmd/...", "test/..."},
	"go.etcd.io/etcd":                        {"federation/store/...", "cmd/...", "test/..."},
	"github.com/hashicorp/memberlist":        {"federation/gossip"},
}

func fits(pkg, pattern string) bool {
	if tree, ok := strings.CutSuffix(pattern, "/..."); ok {
		return pkg == tree || strings.HasPrefix(pkg, tree+"/")
	}
	return pkg == pattern
}

func TestImportDirections(t *testing.T) {
	out, err := exec.Command("go", "list", "-json=ImportPath,Imports", module+"...").Output()
	if err != nil {
		t.Fatalf("go list: %v", err)
	}
	seen := 0
	for dec := json.NewDecoder(bytes.NewReader(out)); ; {
		var p struct {
			ImportPath string
			Imports    []string
		}
		if err := dec.Decode(&p); errors.Is(err, io.EOF) {
			break
		} else if err != nil {
			t.Fatal(err)
		}
		seen++
		pkg := strings.TrimPrefix(p.ImportPath, module)
		for _, imp := range p.Imports {
			for prefix, may := range foreign {
				if strings.HasPrefix(imp, prefix) && !slices.ContainsFunc(may, func(m string) bool { return fits(pkg, m) }) {
					t.Errorf("%s imports %s: only %v may", pkg, imp, may)
				}
			}
			ours, ok := strings.CutPrefix(imp, module)
			if !ok {
				continue
			}
			for _, l := range layers {
				if !fits(pkg, l.pkg) {
					continue
				}
				if !slices.ContainsFunc(l.may, func(m string) bool { return fits(ours, m) }) {
					t.Errorf("%s imports %s: only %v may it import of ours", pkg, ours, l.may)
				}
				break
			}
		}
	}
	if seen < 10 {
		t.Fatalf("only %d packages listed", seen)
	}
}
