// Package up_test tells the stories of `causeway up` with the real binary, the real
// etcd inside it and real Envoys. Each file in testdata is one story, in the language
// of testscript, which begins with what it shows; the commands that it may use
// beside testscript's own are the methods of story: processes in processes_test.go,
// requests in requests_test.go, manifests in files_test.go and certificates in
// tls_test.go.
//
//	go test ./test/up                          # all
//	go test ./test/up -run TestStories/health -v   # one, with what it printed
//
// A story has its files, its state folder and its processes for itself. Two run at a
// time. Nothing sleeps: `settle` waits for all that the files call for, `await`
// asks again until the answer is right.
package up_test

import (
	"flag"
	"fmt"
	"os"
	"os/exec"
	"path/filepath"
	"runtime"
	"strings"
	"testing"

	"github.com/rogpeppe/go-internal/testscript"

	"github.com/causeway-mesh/causeway/xds/envoy/envoytest"
)

// binDir holds the causeway that this package built.
var binDir string

func TestMain(m *testing.M) {
	os.Exit(testMain(m))
}

func testMain(m *testing.M) int {
	flag.Parse()
	// Each story has a dozen Envoys: two at a time, however many cores there are.
	if err := flag.Set("test.parallel", "2"); err != nil {
		fmt.Fprintln(os.Stderr, err)
		return 1
	}
	dir, err := os.MkdirTemp("", "causeway-stories-")
	if err != nil {
		fmt.Fprintln(os.Stderr, err)
		return 1
	}
	defer func() { _ = os.RemoveAll(dir) }()
	binDir = dir
	build := exec.Command("go", "build", "-o", filepath.Join(dir, "causeway"), "github.com/causeway-mesh/causeway/cmd/causeway")
	if out, err := build.CombinedOutput(); err != nil {
		fmt.Fprintf(os.Stderr, "build causeway: %v\n%s", err, out)
		return 1
	}
	return m.Run()
}

func TestStories(t *testing.T) {
	if runtime.GOOS != "linux" {
		t.Skip("causeway up needs Linux")
	}
	path := envoytest.Binary(t)
	files, err := filepath.Glob("testdata/*.txtar")
	if err != nil || len(files) == 0 {
		t.Fatalf("no stories in testdata: %v", err)
	}
	for _, file := range files {
		t.Run(strings.TrimSuffix(filepath.Base(file), ".txtar"), func(t *testing.T) {
			t.Parallel()
			tell(t, file, path)
		})
	}
}

// tell runs one story.
func tell(t *testing.T, file, envoyPath string) {
	commands := map[string]func(ts *testscript.TestScript, neg bool, args []string){}
	for name, run := range map[string]func(*story, bool, []string){
		"up": (*story).up, "settle": (*story).settle, "request": (*story).request, "await": (*story).await,
		"share": (*story).share, "session": (*story).session, "load": (*story).load, "unload": (*story).unload, "edit": (*story).edit,
		"fill": (*story).fill, "include": (*story).include, "service": (*story).service, "hold-port": (*story).holdPort, "address": (*story).address, "etcd": (*story).etcd, "stored": (*story).stored,
		"signal": (*story).signal, "ended": (*story).ended, "no-envoys": (*story).noEnvoys,
		"authority": (*story).authority, "certificate": (*story).certificate, "tls-secret": (*story).tlsSecret, "ca-configmap": (*story).caConfigMap,
	} {
		commands[name] = func(ts *testscript.TestScript, neg bool, args []string) {
			s := ts.Value(storyKey{}).(*story)
			s.TestScript = ts
			run(s, neg, args)
		}
	}
	testscript.Run(t, testscript.Params{
		Files:               []string{file},
		Cmds:                commands,
		RequireExplicitExec: true,
		RequireUniqueNames:  true,
		Setup: func(env *testscript.Env) error {
			s := &story{t: t, state: filepath.Join(env.WorkDir, "state")}
			env.Values[storyKey{}] = s
			env.Defer(s.stop)
			env.Setenv("PATH", binDir+string(os.PathListSeparator)+env.Getenv("PATH"))
			env.Setenv("CAUSEWAY_STATE", s.state)
			env.Setenv("CAUSEWAY_ENVOY", envoyPath)
			// Not the folder of the story: names of sockets must be short.
			env.Setenv("TMPDIR", os.TempDir())
			return nil
		},
	})
}
