package file

import (
	"context"
	"fmt"
	"log/slog"
	"maps"
	"os"
	"path/filepath"
	"strings"
	"sync"
	"testing"
	"time"

	"github.com/prometheus/client_golang/prometheus"
	corev1 "k8s.io/api/core/v1"
	gatewayv1 "sigs.k8s.io/gateway-api/apis/v1"

	"github.com/causeway-mesh/causeway/cluster"
)

// running is a Source that runs, with what it has delivered.
type running struct {
	*Source
	dir string
	mu  sync.Mutex
	st  *state
}

func (r *running) Deliver(ctx context.Context, b cluster.Batch) error {
	r.mu.Lock()
	defer r.mu.Unlock()
	return r.st.Deliver(ctx, b)
}

func start(t testing.TB, cfg Config) *running {
	t.Helper()
	cfg.Cluster, cfg.Logger, cfg.Schemas = "east", slog.New(slog.DiscardHandler), shared
	if cfg.Poll == 0 {
		cfg.Poll = time.Hour // only notices and Sync make it look
	}
	s, err := New(cfg)
	if err != nil {
		t.Fatal(err)
	}
	r := &running{Source: s, dir: cfg.Dir, st: newState()}
	ctx, cancel := context.WithCancel(context.Background())
	ended := make(chan error, 1)
	go func() { ended <- s.Run(ctx, r) }()
	t.Cleanup(func() {
		cancel()
		if err := <-ended; err != nil {
			t.Error(err)
		}
		if err := s.Sync(context.Background()); err == nil {
			t.Error("Sync must fail once the source has stopped")
		}
	})
	r.sync(t)
	return r
}

func (r *running) sync(t testing.TB) {
	t.Helper()
	ctx, cancel := context.WithTimeout(context.Background(), time.Minute)
	defer cancel()
	if err := r.Sync(ctx); err != nil {
		t.Fatal(err)
	}
}

// eventually waits for a condition on what has been delivered.
func (r *running) eventually(t testing.TB, what string, ok func(*state) bool) {
	t.Helper()
	for deadline := time.Now().Add(time.Minute); ; time.Sleep(2 * time.Millisecond) {
		r.mu.Lock()
		is := ok(r.st)
		said := ""
		if !is {
			said = describe(r.st)
		}
		r.mu.Unlock()
		if is {
			return
		}
		if time.Now().After(deadline) {
			t.Fatalf("never: %s; there is:\n%s", what, said)
		}
	}
}

// look gives what has been delivered so far.
func (r *running) now(f func(*state)) {
	r.mu.Lock()
	defer r.mu.Unlock()
	f(r.st)
}

func (r *running) edit(t testing.TB, name, text string) {
	t.Helper()
	name = filepath.Join(r.dir, filepath.FromSlash(name))
	if err := os.MkdirAll(filepath.Dir(name), 0o755); err != nil {
		t.Fatal(err)
	}
	// In one step: what a look sees between truncation and writing, on a machine
	// that is busy, is the subject of TestHalfWrittenFiles alone.
	next := filepath.Join(filepath.Dir(name), ".next")
	if err := os.WriteFile(next, []byte(text), 0o644); err != nil {
		t.Fatal(err)
	}
	if err := os.Rename(next, name); err != nil {
		t.Fatal(err)
	}
}

// overwrite writes in place, as a shell's redirection does.
func (r *running) overwrite(t testing.TB, name, text string) {
	t.Helper()
	if err := os.WriteFile(filepath.Join(r.dir, filepath.FromSlash(name)), []byte(text), 0o644); err != nil {
		t.Fatal(err)
	}
}

func configMap(name, value string) string {
	return fmt.Sprintf("---\napiVersion: v1\nkind: ConfigMap\nmetadata: {name: %s}\ndata: {v: %q}\n", name, value)
}

func ref(name string) cluster.Ref {
	return cluster.Ref{Kind: cluster.KindConfigMap, Namespace: "default", Name: name}
}

// holds gives the value of a ConfigMap of configMap, empty if there is none.
func (s *state) holds(name string) string {
	if o := s.objects[ref(name)]; o != nil {
		return o.Value.(*corev1.ConfigMap).Data["v"]
	}
	return ""
}

// Notices of the system, without Sync or polling, bring each sort of edit.
func TestEditsAreNoticed(t *testing.T) {
	t.Parallel()
	dir := t.TempDir()
	write(t, dir, "a.yaml", configMap("a", "1"))
	r := start(t, Config{Dir: dir})
	is := func(name, value string) {
		t.Helper()
		r.eventually(t, name+" is "+value, func(s *state) bool { return s.holds(name) == value })
	}
	is("a", "1")
	r.overwrite(t, "a.yaml", configMap("a", "2"))
	is("a", "2")
	r.edit(t, "new/folder/b.yaml", configMap("b", "1"))
	is("b", "1")
	r.overwrite(t, "new/folder/b.yaml", configMap("b", "2"))
	is("b", "2")
	// As editors do: a new file takes the name of the old one.
	r.edit(t, "a.yaml.tmp", configMap("a", "3"))
	if err := os.Rename(filepath.Join(dir, "a.yaml.tmp"), filepath.Join(dir, "a.yaml")); err != nil {
		t.Fatal(err)
	}
	is("a", "3")
	if err := os.Rename(filepath.Join(dir, "new"), filepath.Join(dir, "old")); err != nil {
		t.Fatal(err)
	}
	r.edit(t, "old/folder/b.yaml", configMap("b", "3"))
	is("b", "3")
	if err := os.RemoveAll(filepath.Join(dir, "old")); err != nil {
		t.Fatal(err)
	}
	is("b", "")
	r.edit(t, "cluster.yaml", "region: r\n")
	r.eventually(t, "region r", func(s *state) bool { return s.meta.Region == "r" })
}

// Without notices, as on a network file system, polling finds the edit.
func TestPolling(t *testing.T) {
	t.Parallel()
	dir := t.TempDir()
	s, err := New(Config{Cluster: "east", Dir: dir, Logger: slog.New(slog.DiscardHandler), Schemas: shared, Poll: 5 * time.Millisecond})
	if err != nil {
		t.Fatal(err)
	}
	st := newState()
	for i := range 3 {
		write(t, dir, "a.yaml", configMap("a", fmt.Sprint(i)))
		if err := s.look(context.Background(), st, func(string) {}); err != nil {
			t.Fatal(err)
		}
		if got := st.holds("a"); got != fmt.Sprint(i) {
			t.Fatalf("%q after edit %d", got, i)
		}
		if next := time.Until(s.next(time.Now())); next > 5*time.Millisecond {
			t.Fatal("next look in", next)
		}
	}
}

// One batch holds one look, and nothing that hasn't changed.
func TestBatches(t *testing.T) {
	t.Parallel()
	dir := t.TempDir()
	write(t, dir, "a.yaml", configMap("a", "1")+configMap("b", "1")+configMap("c", "1"))
	r := start(t, Config{Dir: dir, Meta: func(m cluster.Meta) cluster.Meta { m.TrustDomain = "td"; return m }})
	r.now(func(s *state) {
		if len(s.batches) != 1 || !s.synced || len(s.objects) != 4 || s.meta.TrustDomain != "td" || s.batches[0].Problems == nil {
			t.Fatalf("the first batch must be all: %+v", s.batches)
		}
	})
	r.sync(t)
	r.edit(t, "a.yaml", "# moved\n"+configMap("a", "1")+configMap("b", "2")+configMap("d", "1"))
	r.sync(t)
	r.now(func(s *state) {
		var got []string
		for _, b := range s.batches[1:] {
			for _, e := range b.Events {
				got = append(got, fmt.Sprint(e.Ref.Name, e.Object != nil))
			}
		}
		if strings.Join(got, " ") != "btrue cfalse dtrue" || len(s.batches) != 2 {
			t.Errorf("got %v in %d batches", got, len(s.batches)-1)
		}
	})
}

// What is broken stays as it was, down to the document; what is mended or gone
// goes on.
func TestStaleBeatsPartial(t *testing.T) {
	t.Parallel()
	dir := t.TempDir()
	write(t, dir, "a.yaml", configMap("a", "1")+configMap("b", "1")+configMap("c", "1"))
	write(t, dir, "cluster.yaml", "region: r\n")
	r := start(t, Config{Dir: dir, MaxFileBytes: 10_000})
	check := func(what, a, b, c, problem string) {
		t.Helper()
		r.sync(t)
		r.now(func(s *state) {
			if s.holds("a") != a || s.holds("b") != b || s.holds("c") != c {
				t.Errorf("%s: a=%q b=%q c=%q", what, s.holds("a"), s.holds("b"), s.holds("c"))
			}
			said := describe(s)
			if (problem == "") != (len(s.problems) == 0) || !strings.Contains(said, problem) {
				t.Errorf("%s: want %q in:\n%s", what, problem, said)
			}
			if s.meta.Region != "r" {
				t.Errorf("%s: lost the region", what)
			}
		})
	}
	r.edit(t, "a.yaml", configMap("a", "2")+"---\napiVersion: v1\nkind: ConfigMap\nmetadata: {name: b}\ndata: [wrong]\n")
	check("b is wrong, c is gone", "2", "1", "", "a.yaml:10 [ConfigMap/default/b] data: must be a mapping, not a list")
	r.edit(t, "a.yaml", configMap("a", "3")+"---\n{{{\n"+configMap("c", "3"))
	check("something is malformed, maybe b", "3", "1", "3", "malformed YAML")
	r.edit(t, "a.yaml", configMap("a", "4")+"#"+strings.Repeat("x", 10_000))
	check("too large", "3", "1", "3", "a.yaml:1 [] is larger than 10000 bytes")
	r.edit(t, "cluster.yaml", "region: [")
	check("no region", "3", "1", "3", "cluster.yaml:1")
	r.edit(t, "cluster.yaml", "region: r")
	r.edit(t, "a.yaml", configMap("a", "5"))
	check("mended", "5", "", "", "")

	away := dir + ".away"
	if err := os.Rename(dir, away); err != nil {
		t.Fatal(err)
	}
	check("the folder is away", "5", "", "", "the folder can't be read, so its last good state is kept: no such file or directory")
	if err := os.Rename(away, dir); err != nil {
		t.Fatal(err)
	}
	check("the folder is back", "5", "", "", "")
}

// A file is seen empty, cut short or missing for a moment while it is written:
// none of that may come out.
func TestHalfWrittenFiles(t *testing.T) {
	t.Parallel()
	dir := t.TempDir()
	full := configMap("a", "1") + configMap("b", "1")
	write(t, dir, "a.yaml", full)
	f := &files{reader: &reader{schemas: shared, maxObjects: 100}, maxFiles: 100, maxBytes: 10_000, byPath: map[string]*tracked{}}
	now := time.Now()
	step := func(text string, after time.Duration) (int, int) {
		t.Helper()
		now = now.Add(after)
		name := filepath.Join(dir, "a.yaml")
		if text == "" {
			os.Remove(name)
		} else {
			write(t, dir, "a.yaml", text)
			if err := os.Chtimes(name, now, now); err != nil {
				t.Fatal(err)
			}
		}
		if _, err := f.scan(dir, now, func(string) {}); err != nil {
			t.Fatal(err)
		}
		a := assemble(f.byPath, 100)
		return len(a.claims), len(a.problems)
	}
	for i, c := range []struct {
		text              string
		after             time.Duration
		objects, problems int
	}{
		{full, 0, 2, 0},
		{"\n", time.Millisecond, 2, 0},
		{full[:len(full)-20], time.Millisecond, 2, 0},
		{full, time.Millisecond, 2, 0},
		{"", time.Millisecond, 2, 0},
		{full + configMap("c", "1"), 49 * time.Millisecond, 3, 0},
		{"{", 10 * time.Millisecond, 3, 0},
		{"{", settleTime, 3, 1}, // it was no accident
		{full, time.Millisecond, 3, 1},
		{full, settleTime, 2, 0}, // c is gone, which had to rest
		{full + "#", time.Millisecond, 2, 0},
		{configMap("a", "1"), time.Millisecond, 2, 0},
		{configMap("a", "1"), settleTime, 1, 0},
		{"", time.Millisecond, 1, 0},
		{"", settleTime, 0, 0},
	} {
		objects, problems := step(c.text, c.after)
		if objects != c.objects || problems != c.problems {
			t.Errorf("step %d: %d objects, %d problems, want %d and %d", i, objects, problems, c.objects, c.problems)
		}
	}
	for i := range 200 { // never at rest
		step(fmt.Sprintf("{ %d", i), 10*time.Millisecond)
	}
	if a := assemble(f.byPath, 100); len(a.problems) != 1 {
		t.Error("a file that is written to all the time must be read at last")
	}
}

// An object that moves from one file to another is neither lost nor twice.
func TestMoves(t *testing.T) {
	t.Parallel()
	dir := t.TempDir()
	write(t, dir, "a.yaml", configMap("a", "1")+configMap("b", "1"))
	r := start(t, Config{Dir: dir})
	r.edit(t, "0.yaml", configMap("b", "2"))
	r.edit(t, "a.yaml", configMap("a", "1"))
	r.sync(t)
	if err := os.Rename(filepath.Join(dir, "a.yaml"), filepath.Join(dir, "z.yaml")); err != nil {
		t.Fatal(err)
	}
	r.sync(t)
	r.now(func(s *state) {
		for _, b := range s.batches {
			for _, e := range b.Events {
				if e.Object == nil {
					t.Error(e.Ref, "was lost on the way")
				}
			}
		}
		if s.holds("b") != "2" || s.objects[ref("a")].Origin != "z.yaml:2" || len(s.problems) != 0 {
			t.Error(describe(s))
		}
	})
}

// Objects without a creationTimestamp are as old as their place in the folder
// says, the same at each start; later ones are younger.
func TestSeniority(t *testing.T) {
	t.Parallel()
	dir := t.TempDir()
	write(t, dir, "b.yaml", configMap("third", "1"))
	write(t, dir, "a.yaml", configMap("first", "1")+configMap("second", "1")+
		"---\napiVersion: v1\nkind: ConfigMap\nmetadata: {name: given, creationTimestamp: 2001-02-03T04:05:06Z}\n")
	r := start(t, Config{Dir: dir})
	r.edit(t, "0.yaml", configMap("fourth", "1"))
	r.sync(t)
	r.edit(t, "1.yaml", configMap("fifth", "1"))
	r.sync(t)
	r.edit(t, "a.yaml", configMap("second", "2")+configMap("first", "2"))
	r.sync(t)
	again := readOnce(t, Config{Dir: dir})
	r.now(func(s *state) {
		names := []string{"first", "second", "third", "fourth", "fifth"}
		for i := range names[1:] {
			if a, b := s.objects[ref(names[i])], s.objects[ref(names[i+1])]; !cluster.Older(a, b) || cluster.Older(b, a) {
				t.Errorf("%s must be older than %s", names[i], names[i+1])
			}
		}
		if !again.objects[ref("fourth")].Seniority.Created.Equal(firstAge) {
			t.Error("a start counts anew")
		}
	})
}

// Defaults are those of the API server; versions become the delivered one.
func TestDefaults(t *testing.T) {
	t.Parallel()
	dir := t.TempDir()
	write(t, dir, "a.yaml", `
apiVersion: gateway.networking.k8s.io/v1beta1
kind: HTTPRoute
metadata: {name: r}
spec:
  parentRefs: [{name: gw}]
  rules: [{backendRefs: [{name: a, port: 80}]}]
---
apiVersion: v1
kind: Service
metadata: {name: a}
spec: {ports: [{port: 80}]}
`)
	st := readOnce(t, Config{Dir: dir})
	route := st.objects[cluster.Ref{Kind: cluster.KindHTTPRoute, Namespace: "default", Name: "r"}].Value.(*gatewayv1.HTTPRoute)
	rule, parent := route.Spec.Rules[0], route.Spec.ParentRefs[0]
	if route.APIVersion != "gateway.networking.k8s.io/v1" || *rule.BackendRefs[0].Weight != 1 || *rule.Matches[0].Path.Value != "/" || *parent.Kind != "Gateway" {
		t.Errorf("route: %+v", route.Spec)
	}
	svc := st.objects[cluster.Ref{Kind: cluster.KindService, Namespace: "default", Name: "a"}].Value.(*corev1.Service)
	if p := svc.Spec.Ports[0]; p.TargetPort.IntVal != 80 || p.Protocol != corev1.ProtocolTCP || svc.Spec.Type != corev1.ServiceTypeClusterIP {
		t.Errorf("service: %+v", svc.Spec)
	}
	ns := st.objects[cluster.Ref{Kind: cluster.KindNamespace, Name: "default"}].Value.(*corev1.Namespace)
	if ns.Labels[cluster.LabelNamespaceName] != "default" {
		t.Error("the namespace has no name label")
	}
}

func TestConfig(t *testing.T) {
	t.Parallel()
	dir := t.TempDir()
	write(t, dir, "file", "")
	log := slog.New(slog.DiscardHandler)
	for want, cfg := range map[string]Config{
		"DNS label":          {Cluster: "a.b", Dir: dir, Logger: log},
		"Logger is required": {Cluster: "a", Dir: dir},
		"no such file":       {Cluster: "a", Dir: filepath.Join(dir, "none"), Logger: log},
		"not a folder":       {Cluster: "a", Dir: filepath.Join(dir, "file"), Logger: log},
		"negative":           {Cluster: "a", Dir: dir, Logger: log, Poll: -1},
	} {
		if _, err := New(cfg); err == nil || !strings.Contains(err.Error(), want) {
			t.Errorf("want %q, got %v", want, err)
		}
	}
}

func TestMetrics(t *testing.T) {
	t.Parallel()
	reg := prometheus.NewRegistry()
	dir := t.TempDir()
	write(t, dir, "a.yaml", configMap("a", "1")+"---\nwrong\n")
	readOnce(t, Config{Dir: dir, Registerer: reg})
	families, err := reg.Gather()
	if err != nil {
		t.Fatal(err)
	}
	got := map[string]float64{}
	for _, f := range families {
		m := f.GetMetric()[0]
		if l := m.GetLabel(); len(l) != 1 || l[0].GetName() != "cluster" || l[0].GetValue() != "east" {
			t.Error(f.GetName(), l)
		}
		got[f.GetName()] = m.GetGauge().GetValue() + float64(m.GetHistogram().GetSampleCount())
	}
	want := map[string]float64{"causeway_manifest_objects": 2, "causeway_manifest_problems": 1, "causeway_manifest_scan_seconds": 1}
	if !maps.Equal(got, want) {
		t.Errorf("got %v", got)
	}
}
