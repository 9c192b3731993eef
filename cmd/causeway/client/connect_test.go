package client

import (
	"bufio"
	"context"
	"io"
	"os"
	"path/filepath"
	"strings"
	"testing"
	"time"

	"github.com/spf13/cobra"

	"github.com/causeway-mesh/causeway/api/query"
	"github.com/causeway-mesh/causeway/api/query/querytest"
	"github.com/causeway-mesh/causeway/cluster/identity"
	"github.com/causeway-mesh/causeway/federation"
)

// The server is found by flags, then the environment, then the context file,
// each piece for itself.
func TestContext(t *testing.T) {
	t.Parallel()
	home := t.TempDir()
	dir := filepath.Join(home, ".local", "state", "causeway", "up")
	if err := os.MkdirAll(dir, 0o700); err != nil {
		t.Fatal(err)
	}
	file := Context{Server: "127.0.0.1:1", CACert: "client/ca.crt", Cert: "/abs/tls.crt", Key: "client/tls.key"}
	if err := WriteContext(dir, file); err != nil {
		t.Fatal(err)
	}
	inFile := Context{Server: "127.0.0.1:1", CACert: filepath.Join(dir, "client/ca.crt"), Cert: "/abs/tls.crt", Key: filepath.Join(dir, "client/tls.key")}
	other := t.TempDir()
	for name, c := range map[string]struct {
		flags connection
		env   map[string]string
		want  Context
		err   string
	}{
		"the file at home":       {env: map[string]string{"HOME": home}, want: inFile},
		"the file in XDG's":      {env: map[string]string{"XDG_STATE_HOME": filepath.Join(home, ".local", "state")}, want: inFile},
		"the state directory":    {env: map[string]string{"CAUSEWAY_STATE": dir}, want: inFile},
		"the flag before all":    {flags: connection{state: dir}, env: map[string]string{"CAUSEWAY_STATE": other, "HOME": other}, want: inFile},
		"the environment before": {env: map[string]string{"HOME": home, "CAUSEWAY_SERVER": "hub:1", "CAUSEWAY_CERT": "c"}, want: Context{"hub:1", inFile.CACert, "c", inFile.Key}},
		"flags before that":      {flags: connection{server: "flag:1", key: "k"}, env: map[string]string{"HOME": home, "CAUSEWAY_SERVER": "hub:1"}, want: Context{"flag:1", inFile.CACert, inFile.Cert, "k"}},
		"no file, all named":     {flags: connection{server: "s", cacert: "a", cert: "b", key: "c"}, want: Context{"s", "a", "b", "c"}},
		"nothing":                {env: map[string]string{"HOME": other}, err: "no running causeway found; start one with `causeway up DIR` or name a server with --server"},
		"a folder without": {flags: connection{state: other}, err: "no running causeway found; start one with `causeway up DIR` or name a server with --server; " + other +
			" names none, as it would while `causeway up` runs with it, or after `causeway clusterset init --api=HOST:PORT`"},
		"a server alone": {env: map[string]string{"HOME": other, "CAUSEWAY_SERVER": "hub:1"}, err: "no credentials for hub:1: give --cacert, --cert and --key"},
		"no home":        {err: "no place for state: set --state, CAUSEWAY_STATE or HOME"},
	} {
		c.flags.getenv = func(k string) string { return c.env[k] }
		got, err := c.flags.context()
		if c.err != "" {
			if err == nil || err.Error() != c.err {
				t.Errorf("%s: got %v, want %q", name, err, c.err)
			}
		} else if err != nil || got != c.want {
			t.Errorf("%s: got %+v, %v; want %+v", name, got, err, c.want)
		}
	}
	if err := os.WriteFile(filepath.Join(other, ContextFile), []byte("servr: x\n"), 0o600); err != nil {
		t.Fatal(err)
	}
	if _, err := ReadContext(other); err == nil || !strings.Contains(err.Error(), "servr") {
		t.Errorf("a misspelt field: %v", err)
	}
	if err := RemoveContext(dir); err != nil {
		t.Error(err)
	}
	if err := RemoveContext(dir); err != nil {
		t.Errorf("removed twice: %v", err)
	}
}

// The client speaks only to agents and hubs that its roots certify, for the
// address that it dialled.
func TestServerIsProven(t *testing.T) {
	t.Parallel()
	w := querytest.New(t)
	r := querytest.Run(t, w.Config())
	dir := contextOf(t, r, "ada")
	get := func(args ...string) error {
		_, _, err := run(t, map[string]string{"CAUSEWAY_STATE": dir}, append([]string{"get", "clusters"}, args...)...)
		return err
	}
	if err := get(); err != nil {
		t.Fatal(err)
	}
	other := querytest.Run(t, w.Config())
	if err := get("--server", other.Addr); err == nil || !strings.Contains(err.Error(), "do not trust each other") {
		t.Errorf("a server of another authority: %v", err)
	}
	_, port, _ := strings.Cut(r.Addr, ":")
	if err := get("--server", "127.0.0.2:"+port); err == nil {
		t.Error("an address that the certificate doesn't name is accepted")
	}

	// A proxy with a genuine certificate for the address must not pass for a hub.
	cfg := w.Config()
	impostor := querytest.RunAs(t, cfg, func(a *identity.Authority) identity.SVIDRequest {
		id, err := identity.ProxyID(a.TrustDomain(), identity.RoleSidecar, "dev", "sidecar")
		if err != nil {
			t.Fatal(err)
		}
		return identity.SVIDRequest{ID: id}
	})
	_, _, err := run(t, map[string]string{"CAUSEWAY_STATE": contextOf(t, impostor, "ada")}, "get", "clusters")
	if err == nil || !strings.Contains(err.Error(), "neither an agent nor a hub") {
		t.Errorf("a proxy passes for a server: %v", err)
	}
}

// `status --wait` may begin before the server does, and ends when all is in place.
func TestStatusBeforeServer(t *testing.T) {
	t.Parallel()
	state := t.TempDir()
	type result struct {
		out string
		err error
	}
	done := make(chan result, 1)
	looked := make(chan struct{}, 1)
	go func() {
		var out strings.Builder
		root := &cobra.Command{Use: "causeway", SilenceErrors: true, SilenceUsage: true}
		root.AddCommand(Commands(Config{Out: &out, Err: io.Discard, Getenv: func(k string) string {
			select {
			case looked <- struct{}{}:
			default:
			}
			return map[string]string{"CAUSEWAY_STATE": state}[k]
		}})...)
		root.SetArgs([]string{"status", "--wait=60s"})
		err := root.ExecuteContext(context.WithoutCancel(t.Context()))
		done <- result{out.String(), err}
	}()
	<-looked
	w := querytest.New(t)
	clusters := w.Views()[0].Result.Snapshot.Clusters()
	r := querytest.Run(t, w.Config())
	dir := r.User(r.Clusterset, "ada")
	if err := WriteContext(state, Context{Server: r.Addr, CACert: filepath.Join(dir, identity.FileBundle),
		Cert: filepath.Join(dir, identity.FileCert), Key: filepath.Join(dir, identity.FileKey)}); err != nil {
		t.Fatal(err)
	}
	w.Edit(func(e *federation.Edit) {
		for _, c := range clusters {
			c.Health = federation.Health{Liveness: federation.Alive}
			e.SetCluster(c)
		}
	})
	select {
	case got := <-done:
		if got.err != nil || got.out != "ready at revision 19: 3 clusters alive, 4 Envoys up to date\n" {
			t.Errorf("got %q, %v", got.out, got.err)
		}
	case <-time.After(time.Minute):
		t.Fatal("status doesn't end")
	}
}

// `get --watch` prints what is there, then what changes, in the same columns.
func TestGetWatch(t *testing.T) {
	t.Parallel()
	w := querytest.New(t)
	state := contextOf(t, querytest.Run(t, w.Config()), "ada")
	ctx, cancel := context.WithCancel(t.Context())
	pr, pw := io.Pipe()
	done := make(chan error, 1)
	go func() {
		root := &cobra.Command{Use: "causeway", SilenceErrors: true, SilenceUsage: true}
		root.AddCommand(Commands(Config{Out: pw, Err: io.Discard, Getenv: func(k string) string { return map[string]string{"CAUSEWAY_STATE": state}[k] }})...)
		root.SetArgs([]string{"get", "proxies", "--cluster", "east", "--watch"})
		done <- root.ExecuteContext(ctx)
	}()
	lines := bufio.NewScanner(pr)
	want := func(text string) {
		t.Helper()
		if !lines.Scan() || lines.Text() != text {
			t.Errorf("got %q, want %q", lines.Text(), text)
		}
	}
	want("EVENT      CLUSTER   ROLE      NAMESPACE   NAME      CONNECTED   SYNC      LAG")
	want("ADDED      east      gateway   infra       gw        yes         in sync   3ms")
	want("ADDED      east      sidecar   dev         sidecar   yes         in sync   3ms")
	w.Proxy("west/sidecar/app/sidecar", func(p *query.Proxy) { p.Connected = false })
	w.Proxy("east/sidecar/dev/sidecar", func(p *query.Proxy) { p.Connected = false })
	want("MODIFIED   east      sidecar   dev         sidecar   no          -         3ms")
	cancel()
	if err := <-done; err != nil {
		t.Errorf("after Ctrl-C: %v", err)
	}
	_ = pr.Close()
}
