package file

import (
	"fmt"
	"os"
	"path/filepath"
	"strings"
	"testing"
	"time"
)

func TestBounds(t *testing.T) {
	t.Parallel()
	dir := t.TempDir()
	write(t, dir, "annotation.yaml", "apiVersion: v1\nkind: ConfigMap\nmetadata:\n  name: big\n  annotations:\n    a: "+strings.Repeat("x", 1<<20)+"\n")
	bomb := "a0: &a0 [x,x,x,x,x,x,x,x,x,x]\n"
	for i := range 10 {
		bomb += fmt.Sprintf("a%d: &a%d [%s]\n", i+1, i+1, strings.TrimSuffix(strings.Repeat(fmt.Sprintf("*a%d,", i), 10), ","))
	}
	write(t, dir, "bomb.yaml", "apiVersion: v1\nkind: ConfigMap\nmetadata: {name: bomb}\n"+bomb)
	write(t, dir, "deep.yaml", strings.Repeat("[", 9000))
	write(t, dir, "deep.json", strings.Repeat("[", 9000))
	write(t, dir, "large.yaml", "#"+strings.Repeat("x", 2<<20))
	for i := range 6 {
		write(t, dir, fmt.Sprintf("many%d.yaml", i), configMap(fmt.Sprintf("m%d", i), "1"))
	}
	st := readOnce(t, Config{Dir: dir, MaxFileBytes: 2 << 20, MaxObjects: 4, MaxFiles: 10})
	want := `ConfigMap/default/m0 many0.yaml:2
ConfigMap/default/m1 many1.yaml:2
ConfigMap/default/m2 many2.yaml:2
ConfigMap/default/m3 many3.yaml:2
Namespace/default 
problem: annotation.yaml:5 [ConfigMap/default/big] metadata.annotations: Too long: may not be more than 262144 bytes
problem: bomb.yaml:4 [ConfigMap/default/bomb] too large once its aliases are followed: write the repeated parts as objects of their own, or less of them
problem: deep.json:1 [] malformed JSON: nested more than 100 levels deep
problem: deep.yaml:1 [] malformed YAML: did not find expected node content
problem: large.yaml:1 [] is larger than 2097152 bytes and is not read: split it
problem: many4.yaml:2 [ConfigMap/default/m4] the folder has more than 4 objects: this one and those after it are left out
problem: many5.yaml [] the folder has more than 10 manifests: this one and those after it are left out
`
	if got := describe(st); got != want {
		t.Errorf("got:\n%s", got)
	}
}

// The CRDs bound every list, so that no object is larger than what may be published.
func TestBoundsOfKinds(t *testing.T) {
	t.Parallel()
	dir := t.TempDir()
	object := func(kind, name, spec string) string {
		return "apiVersion: gateway.networking.k8s.io/v1\nkind: " + kind + "\nmetadata: {name: " + name + "}\nspec: " + spec + "\n"
	}
	list := func(n int, item string) string {
		items := make([]string, n)
		for i := range items {
			items[i] = strings.ReplaceAll(item, "N", fmt.Sprint(i+1))
		}
		return "[" + strings.Join(items, ", ") + "]"
	}
	for name, spec := range map[string][2]string{
		"grpc-rules":    {"GRPCRoute", "{rules: " + list(17, "{name: rN}") + "}"},
		"grpc-matches":  {"GRPCRoute", "{rules: " + list(3, "{matches: "+list(44, "{method: {service: a.B}}")+"}") + "}"},
		"tls-hostnames": {"TLSRoute", "{hostnames: " + list(1025, "hN.example") + ", rules: [{backendRefs: [{name: a, port: 1}]}]}"},
		"tcp-backends":  {"TCPRoute", "{rules: [{backendRefs: " + list(17, "{name: bN, port: 1}") + "}]}"},
		"udp-parents":   {"UDPRoute", "{parentRefs: " + list(33, "{name: gN}") + ", rules: [{backendRefs: [{name: a, port: 1}]}]}"},
		"listeners":     {"ListenerSet", "{parentRef: {name: gw}, listeners: " + list(65, "{name: lN, port: N, protocol: TCP}") + "}"},
		"targets":       {"BackendTLSPolicy", `{targetRefs: ` + list(17, `{group: "", kind: Service, name: sN}`) + `, validation: {hostname: a.example, wellKnownCACertificates: System}}`},
	} {
		write(t, dir, name+".yaml", object(spec[0], name, spec[1]))
	}
	want := `Namespace/default 
problem: grpc-matches.yaml:4 [GRPCRoute/default/grpc-matches] spec.rules: Invalid value: While 16 rules and 64 matches per rule are allowed, the total number of matches across all rules in a route must be less than 128
problem: grpc-rules.yaml:4 [GRPCRoute/default/grpc-rules] spec.rules: Too many: 17: must have at most 16 items
problem: listeners.yaml:4 [ListenerSet/default/listeners] spec.listeners: Too many: 65: must have at most 64 items
problem: targets.yaml:4 [BackendTLSPolicy/default/targets] spec.targetRefs: Too many: 17: must have at most 16 items
problem: tcp-backends.yaml:4 [TCPRoute/default/tcp-backends] spec.rules[0].backendRefs: Too many: 17: must have at most 16 items
problem: tls-hostnames.yaml:4 [TLSRoute/default/tls-hostnames] spec.hostnames: Too many: 1025: must have at most 1024 items
problem: udp-parents.yaml:4 [UDPRoute/default/udp-parents] spec.parentRefs: Too many: 33: must have at most 32 items
`
	if got := describe(readOnce(t, Config{Dir: dir})); got != want {
		t.Errorf("got:\n%s", got)
	}
}

// Nothing outside of the folder is read, and nothing blocks.
func TestStrangeFiles(t *testing.T) {
	t.Parallel()
	outside := t.TempDir()
	write(t, outside, "secret.yaml", configMap("outside", "1"))
	dir := t.TempDir()
	write(t, dir, "..data/inside.yaml", configMap("inside", "1"))
	write(t, dir, "x/real.yaml", configMap("real", "1"))
	for name, to := range map[string]string{
		"inside.yaml":  "..data/inside.yaml", // as Kubernetes mounts a ConfigMap
		"outside.yaml": filepath.Join(outside, "secret.yaml"),
		"nowhere.yaml": "missing.yaml",
		"shared":       outside,
		"again":        "x",
		"loop":         "..",
	} {
		if err := os.Symlink(to, filepath.Join(dir, name)); err != nil {
			t.Fatal(err)
		}
	}
	pipe(t, filepath.Join(dir, "pipe.yaml"))
	want := `ConfigMap/default/inside inside.yaml:2
ConfigMap/default/real x/real.yaml:2
Namespace/default 
problem: loop [] this symbolic link leads out of the folder and is not followed: put a copy of the folder in its place
problem: nowhere.yaml [] this symbolic link leads nowhere or out of the folder, and is not followed: put a copy in its place
problem: outside.yaml [] this symbolic link leads nowhere or out of the folder, and is not followed: put a copy in its place
problem: pipe.yaml [] this is not a regular file and is left out
problem: shared [] this symbolic link leads out of the folder and is not followed: put a copy of the folder in its place
`
	if got := describe(readOnce(t, Config{Dir: dir})); got != want {
		t.Errorf("got:\n%s", got)
	}
}

// What can't be read stays as it was.
func TestUnreadable(t *testing.T) {
	if os.Geteuid() == 0 {
		t.Skip("root can read all; run as another user")
	}
	t.Parallel()
	dir := t.TempDir()
	write(t, dir, "a.yaml", configMap("a", "1"))
	write(t, dir, "sub/b.yaml", configMap("b", "1"))
	r := start(t, Config{Dir: dir})
	for name, mode := range map[string]os.FileMode{"a.yaml": 0, "sub": 0} {
		full := filepath.Join(dir, name)
		if err := os.Chmod(full, mode); err != nil {
			t.Fatal(err)
		}
		defer os.Chmod(full, 0o755)
	}
	now := time.Now()
	_ = os.Chtimes(filepath.Join(dir, "a.yaml"), now, now)
	r.sync(t)
	r.now(func(s *state) {
		said := describe(s)
		for _, want := range []string{"problem: a.yaml:1 [] can't be read, so its last good state is kept: permission denied", "problem: sub [] can't be read"} {
			if !strings.Contains(said, want) {
				t.Errorf("want %q in:\n%s", want, said)
			}
		}
		if s.holds("a") != "1" || s.holds("b") != "1" {
			t.Error("lost:", said)
		}
	})
}
