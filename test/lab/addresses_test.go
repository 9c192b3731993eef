package lab

import (
	"fmt"
	"net/netip"
	"os"
	"os/exec"
	"strings"
	"testing"
)

// No two labs or clusters share an address, a name or a link, and names fit what Linux
// has room for.
func TestAddressesAreApart(t *testing.T) {
	t.Parallel()
	type named struct {
		what   string
		prefix netip.Prefix
	}
	var all []named
	names := map[string]string{}
	name := func(s, what string) {
		if old := names[s]; old != "" {
			t.Errorf("%s and %s are both called %q", old, what, s)
		}
		if names[s] = what; len(s) > 15 {
			t.Errorf("%s: %q is too long for a link", what, s)
		}
	}
	for s := range slot(maxLabs) {
		lab := fmt.Sprintf("lab %d", s)
		name(s.link(), lab)
		name(s.wire(), lab+"'s wire")
		all = append(all, named{lab, netip.PrefixFrom(s.address4(), 32)}, named{lab, netip.PrefixFrom(s.address6(), 128)})
		for n := range MaxClusters {
			m := member{s, n + 1}
			who := fmt.Sprintf("%s, cluster %d", lab, m.n)
			name(m.name(), who)
			all = append(all, named{who, netip.PrefixFrom(m.node4(), 32)}, named{who, netip.PrefixFrom(m.node6(), 128)})
			for _, p := range []netip.Prefix{m.pods4(), m.pods6(), m.balancers4(), m.balancers6()} {
				if p != p.Masked() {
					t.Errorf("%s: %s is not the beginning of its range", who, p)
				}
				all = append(all, named{who, p})
			}
		}
		all = append(all, named{lab + "'s Services", netip.MustParsePrefix(serviceRange4)}, named{lab + "'s Services", netip.MustParsePrefix(serviceRange6)})
	}
	for i, a := range all {
		for _, b := range all[:i] {
			if strings.HasSuffix(a.what, "Services") && strings.HasSuffix(b.what, "Services") {
				continue // these are the same in all
			}
			if a.prefix.Overlaps(b.prefix) {
				t.Errorf("%s of %s and %s of %s overlap", a.prefix, a.what, b.prefix, b.what)
			}
		}
	}
}

// A lab lives as long as who has made it, or, detached and complete, until it is taken down. A
// process that got the same id later does not keep it.
func TestClaimAlive(t *testing.T) {
	t.Parallel()
	me, err := startTime(os.Getpid())
	if err != nil {
		t.Fatal(err)
	}
	gone := exec.Command("true")
	if err := gone.Run(); err != nil {
		t.Fatal(err)
	}
	for what, c := range map[string]struct {
		claim claim
		want  bool
	}{
		"a test's":             {claim{Pid: os.Getpid(), Started: me}, true},
		"a killed test's":      {claim{Pid: gone.Process.Pid, Started: me}, false},
		"a killed test's too":  {claim{Pid: gone.Process.Pid, Started: me, Ready: true}, false},
		"its id, used again":   {claim{Pid: os.Getpid(), Started: "1"}, false},
		"detached":             {claim{Pid: gone.Process.Pid, Detached: true, Ready: true}, true},
		"detached, unfinished": {claim{Pid: gone.Process.Pid, Detached: true}, false},
	} {
		if got := c.claim.alive(); got != c.want {
			t.Errorf("%s: alive is %t", what, got)
		}
	}
}

// Binaries go by the version of what they are, which go.mod has.
func TestLocate(t *testing.T) {
	t.Setenv("CAUSEWAY_LAB_CACHE", "/cache")
	for _, c := range []component{kubernetesBinary, corednsBinary, pauseBinary} {
		binary, source, err := c.locate()
		if err != nil {
			t.Fatal(err)
		}
		version := "causeway"
		if c.module != "" {
			cmd := exec.Command("go", "list", "-m", "-mod=readonly", "-f", "{{.Version}}", c.module)
			cmd.Dir = source
			out, err := outputOf(cmd)
			if err != nil {
				t.Fatal(err)
			}
			version = strings.TrimSpace(string(out))
		}
		if !strings.HasPrefix(binary, "/cache/"+c.name+"-"+version+"-") || !strings.HasSuffix(binary, "/"+c.name) {
			t.Errorf("%s belongs to %s, of version %s", c.name, binary, version)
		}
	}
	if _, err := kubernetesBinary.find(); err == nil || !strings.Contains(err.Error(), "make lab-build") {
		t.Errorf("without a binary: %v", err)
	}
}
