package client

import (
	"bytes"
	"flag"
	"fmt"
	"io"
	"net/http"
	"net/http/httptest"
	"net/netip"
	"os"
	"path/filepath"
	"regexp"
	"strings"
	"testing"

	"github.com/google/go-cmp/cmp"
	"github.com/spf13/cobra"

	"github.com/causeway-mesh/causeway/api/query"
	"github.com/causeway-mesh/causeway/api/query/querytest"
	"github.com/causeway-mesh/causeway/cluster/identity"
)

var update = flag.Bool("update", false, "write the golden files anew")

var ago = regexp.MustCompile(`confirmed it .* ago`)

// TestGolden runs the commands of each file in testdata, the lines that begin
// with "$ causeway", against a query server over mTLS. What follows each is what
// it printed. To add a case, write a file with such a line and run with -update.
func TestGolden(t *testing.T) {
	t.Parallel()
	w := querytest.New(t)
	for what, at := range map[string]string{"ServiceImport/app/web:80": "127.1.0.1:80", "Service/app/web:80": "127.1.0.2:80", "ServiceImport/app/web-v2:80": "127.1.0.3:10080"} {
		w.Listen("east/sidecar/dev/sidecar", what, netip.MustParseAddrPort(at))
	}
	w.Listen("east/gateway/infra/gw", ":80", netip.MustParseAddrPort("127.1.1.1:10080"))
	w.Listen("west/crossing/causeway-system/crossing", "", netip.MustParseAddrPort("127.0.2.1:15443"))
	w.Proxy("east/gateway/infra/gw", func(p *query.Proxy) {
		p.Acked, p.RejectedTotal = 19, 1
		p.Rejected = []query.Rejection{{TypeURL: "type.googleapis.com/envoy.config.route.v3.RouteConfiguration", Resource: "gw-80",
			Subject: "HTTPRoute/infra/entry@east", Message: "duplicate domain"}}
	})
	w.Proxy("west/crossing/causeway-system/crossing", func(p *query.Proxy) { p.Connected, p.Acked = false, 0 })
	state := contextOf(t, querytest.Run(t, w.Config()), "ada")

	// Requests go to a stand-in for the Envoys, whose port isn't known beforehand.
	serving := querytest.New(t)
	at := standIn(t, serving)
	servingState := contextOf(t, querytest.Run(t, serving.Config()), "ada")

	files, err := filepath.Glob("testdata/*.golden")
	if err != nil || len(files) == 0 {
		t.Fatalf("no golden files: %v", err)
	}
	for _, file := range files {
		t.Run(strings.TrimSuffix(filepath.Base(file), ".golden"), func(t *testing.T) {
			want, err := os.ReadFile(file)
			if err != nil {
				t.Fatal(err)
			}
			state, name := state, filepath.Base(file)
			if strings.HasPrefix(name, "request") {
				state = servingState
			}
			var got strings.Builder
			for line := range strings.Lines(string(want)) {
				args, ok := strings.CutPrefix(strings.TrimSpace(line), "$ causeway ")
				if !ok {
					continue
				}
				out, errs, err := run(t, map[string]string{"CAUSEWAY_STATE": state}, split(t, args)...)
				fmt.Fprintf(&got, "$ causeway %s\n%s", args, out)
				for line := range strings.Lines(errs) {
					got.WriteString("stderr: " + line)
				}
				if err != nil {
					fmt.Fprintf(&got, "error: %v\n", err)
				}
				got.WriteString("\n")
			}
			text := strings.ReplaceAll(got.String(), at, "STAND-IN")
			text = ago.ReplaceAllString(text, "confirmed it AGO")
			if *update {
				if err := os.WriteFile(file, []byte(text), 0o644); err != nil {
					t.Fatal(err)
				}
				return
			}
			if d := cmp.Diff(string(want), text); d != "" {
				t.Errorf("-want +got, or run with -update:\n%s", d)
			}
		})
	}
}

// standIn is an HTTP server that stands in for the Envoys of the world: it
// answers as the echo servers do, with the Host that it was asked for.
func standIn(t *testing.T, w *querytest.World) string {
	mux := http.NewServeMux()
	mux.HandleFunc("/", func(w http.ResponseWriter, r *http.Request) {
		body, _ := io.ReadAll(r.Body)
		w.Header().Set("Content-Type", "application/json")
		w.Header().Set("X-Causeway-Route", "HTTPRoute/app/web-split@east")
		w.Header()["Date"] = nil
		fmt.Fprintf(w, `{"host":%q,"path":%q,"method":%q,"x":%q,"sent":%q,"cluster":"west","namespace":"app","pod":"web-0"}`,
			r.Host, r.URL.RequestURI(), r.Method, r.Header.Get("X-Env"), body)
	})
	mux.HandleFunc("/gone", func(w http.ResponseWriter, _ *http.Request) {
		w.Header()["Date"] = nil
		http.Error(w, "no healthy upstream", http.StatusServiceUnavailable)
	})
	mux.HandleFunc("/old", func(w http.ResponseWriter, r *http.Request) {
		w.Header()["Date"] = nil
		http.Redirect(w, r, "http://elsewhere.local/new", http.StatusFound)
	})
	mux.HandleFunc("/cut", func(http.ResponseWriter, *http.Request) { panic(http.ErrAbortHandler) })
	s := httptest.NewServer(mux)
	t.Cleanup(s.Close)
	at := netip.MustParseAddrPort(s.Listener.Addr().String())
	w.Listen("east/sidecar/dev/sidecar", "ServiceImport/app/web:80", at)
	w.Listen("east/sidecar/dev/sidecar", "Service/app/web:80", at)
	w.Listen("east/gateway/infra/gw", ":80", at)
	return at.String()
}

// contextOf writes the state directory of a person who may ask the server.
func contextOf(t *testing.T, r *querytest.Running, user string) string {
	dir := r.User(r.Clusterset, user)
	c := Context{Server: r.Addr, CACert: identity.FileBundle, Cert: identity.FileCert, Key: identity.FileKey}
	if err := WriteContext(dir, c); err != nil {
		t.Fatal(err)
	}
	return dir
}

// run runs a command as main does.
func run(t *testing.T, env map[string]string, args ...string) (out, errs string, err error) {
	var stdout, stderr bytes.Buffer
	root := &cobra.Command{Use: "causeway", SilenceErrors: true, SilenceUsage: true}
	root.AddCommand(Commands(Config{Out: &stdout, Err: &stderr, Getenv: func(k string) string { return env[k] }})...)
	root.SetArgs(args)
	root.SetOut(&stdout)
	root.SetErr(&stderr)
	err = root.ExecuteContext(t.Context())
	return stdout.String(), stderr.String(), err
}

// split takes a command line apart at spaces outside of single quotes.
func split(t *testing.T, line string) []string {
	var out []string
	for i, part := range strings.Split(line, "'") {
		if i%2 == 1 {
			out = append(out, part)
		} else {
			out = append(out, strings.Fields(part)...)
		}
	}
	if strings.Count(line, "'")%2 == 1 {
		t.Fatalf("quotes in %q", line)
	}
	return out
}
