package explain

import (
	"bufio"
	"flag"
	"fmt"
	"os"
	"path/filepath"
	"strings"
	"testing"

	"github.com/google/go-cmp/cmp"
	"github.com/rogpeppe/go-internal/txtar"

	"github.com/causeway-mesh/causeway/federation/resolve"
	"github.com/causeway-mesh/causeway/federation/resolve/resolvetest"
)

var update = flag.Bool("update", false, "write the golden files anew")

// TestGolden explains requests in little worlds: each archive of testdata is a
// world (package resolvetest), a file "requests" with one request a line (source,
// method, URL, then headers after '|') and what is expected of each.
func TestGolden(t *testing.T) {
	paths, err := filepath.Glob("testdata/*.txtar")
	if err != nil || len(paths) == 0 {
		t.Fatalf("no cases: %v", err)
	}
	for _, path := range paths {
		t.Run(strings.TrimSuffix(filepath.Base(path), ".txtar"), func(t *testing.T) {
			archive, err := txtar.ParseFile(path)
			if err != nil {
				t.Fatal(err)
			}
			files := map[string][]byte{}
			expected := -1
			for i, f := range archive.Files {
				files[f.Name] = f.Data
				if f.Name == "expected" {
					expected = i
				}
			}
			snap := resolvetest.Files(t, files)
			var out strings.Builder
			lines := bufio.NewScanner(strings.NewReader(string(files["requests"])))
			for lines.Scan() {
				if lines.Text() == "" {
					continue
				}
				fmt.Fprintf(&out, "=== %s\n", lines.Text())
				from, req := parseLine(t, lines.Text())
				render(&out, Explain(resolve.Resolve(from.Cluster, snap), from, req))
			}
			if *update {
				if expected < 0 {
					archive.Files = append(archive.Files, txtar.File{Name: "expected"})
					expected = len(archive.Files) - 1
				}
				archive.Files[expected].Data = []byte(out.String())
				if err := os.WriteFile(path, txtar.Format(archive), 0o644); err != nil {
					t.Fatal(err)
				}
				return
			}
			if diff := cmp.Diff(strings.Split(string(files["expected"]), "\n"), strings.Split(out.String(), "\n")); diff != "" {
				t.Errorf("(-want +got):\n%s", diff)
			}
		})
	}
}

func parseLine(t *testing.T, line string) (Source, Request) {
	t.Helper()
	parts := strings.Split(line, "|")
	f := strings.Fields(parts[0])
	if len(f) != 3 {
		t.Fatalf("request %q: source, method and URL are needed", line)
	}
	from, err := ParseSource(f[0])
	if err != nil {
		t.Fatal(err)
	}
	req, err := NewRequest(f[1], f[2], parts[1:])
	if err != nil {
		t.Fatal(err)
	}
	return from, req
}

func render(w *strings.Builder, e Explanation) {
	if e.Problem != "" {
		fmt.Fprintf(w, "problem: %s\n", e.Problem)
	} else {
		renderHop(w, "", e.Hop)
	}
	for _, x := range e.Withheld {
		fmt.Fprintf(w, "withheld %s@%s: %s\n", x.Ref, x.Cluster, x.Why)
	}
	for _, c := range e.Staleness.Clusters {
		fmt.Fprintf(w, "rests on %s (%s) routes=%t serves=%t at revision %d\n", c.Cluster, c.Liveness, c.Routes, c.Serves, e.Staleness.Revision)
	}
}

func renderHop(w *strings.Builder, in string, h *Hop) {
	line := func(depth int, format string, a ...any) {
		w.WriteString(in + strings.Repeat("  ", depth) + fmt.Sprintf(format, a...) + "\n")
	}
	at := ""
	if h.Frontend != nil {
		at = h.Frontend.String()
	}
	if h.Listener != nil {
		at = fmt.Sprintf("gateway %s/%s listener %q host %q", h.Listener.Namespace, h.Listener.Gateway, h.Listener.Name, h.Listener.Hostname)
	}
	line(0, "%s port %d: %s, %s", at, h.Port, h.Group, h.Why)
	for i, v := range h.Rules {
		verdict := v.Lost
		if i == h.Chosen {
			verdict = "CHOSEN " + v.Lost
		}
		line(1, "%s rule %d match %d: %s", v.Rule.Route, v.Rule.RuleIndex, v.Rule.MatchIndex, verdict)
	}
	if h.Closed {
		line(1, "closes: %s", h.Reason)
	}
	if h.Auth != nil {
		line(1, "asks %s", h.Auth.Backend)
	}
	if f := h.Forward; f != nil {
		line(1, "by %s/%d", f.Route, f.RuleIndex)
	}
	if h.Status != 0 {
		line(1, "answers %d: %s %s", h.Status, h.Reason, h.Location)
		return
	}
	line(1, "sends %s, timeouts %s %s, response %v", requestText(h.Request), h.RequestTimeout, h.BackendTimeout, h.Response)
	for _, b := range h.Branches {
		line(1, "%.1f%% (%d) to %s: %s", 100*b.Share, b.Weight, b.Backend, requestText(b.Request))
		if b.Closed {
			line(2, "closes: %s", b.Reason)
		}
		if b.Raw {
			line(2, "as it is")
		}
		if b.Auth != nil {
			line(2, "asks %s", b.Auth.Backend)
		}
		for _, m := range b.Mirrors {
			line(2, "copies %d/%d to %s", m.Numerator, m.Denominator, m.Backend)
		}
		if b.Status != 0 {
			line(2, "answers %d: %s", b.Status, b.Reason)
		}
		if b.Chain != nil {
			renderHop(w, in+"    ", b.Chain)
		}
		if b.Destination == nil {
			continue
		}
		for _, g := range b.Destination.Groups {
			line(2, "priority %d %s crossing=%t: %.1f%%, %d healthy", g.Priority, g.Cluster, g.Crossing, 100*g.Share, g.Healthy)
			for _, x := range g.Endpoints {
				line(3, "%s healthy=%t %.1f%%", x.Addr, x.Healthy, 100*x.Share)
			}
		}
	}
}

func requestText(r Request) string {
	s := fmt.Sprintf("%s %s%s", r.Method, r.Host, r.Path)
	if r.Scheme != "http" {
		s = r.Scheme + ": " + s
	}
	if r.Query != "" {
		s += "?" + r.Query
	}
	for _, h := range r.Headers {
		s += fmt.Sprintf(" %s:%q", h.Name, h.Value)
	}
	return s
}
