package oci

import (
	"archive/tar"
	"bytes"
	"compress/gzip"
	"crypto/sha256"
	"encoding/hex"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"io/fs"
	"os"
	"os/exec"
	"path/filepath"
	"slices"
	"strings"
	"testing"
	"time"
)

func write(t *testing.T, img Image) []byte {
	t.Helper()
	var b bytes.Buffer
	if err := Write(&b, img); err != nil {
		t.Fatal(err)
	}
	return b.Bytes()
}

func entries(t *testing.T, r io.Reader) (map[string][]byte, []*tar.Header) {
	t.Helper()
	files := map[string][]byte{}
	var headers []*tar.Header
	for tr := tar.NewReader(r); ; {
		h, err := tr.Next()
		if errors.Is(err, io.EOF) {
			return files, headers
		}
		if err != nil {
			t.Fatal(err)
		}
		b, err := io.ReadAll(tr)
		if err != nil {
			t.Fatal(err)
		}
		files[h.Name] = b
		headers = append(headers, h)
	}
}

// The same files give the same bytes, whatever their order, owners, times and modes are
// on this machine.
func TestReproducible(t *testing.T) {
	t.Parallel()
	dir := t.TempDir()
	image := func(name string, mode fs.FileMode, when time.Time, reverse bool) Image {
		path := filepath.Join(dir, name)
		if err := os.WriteFile(path, []byte("program"), mode); err != nil {
			t.Fatal(err)
		}
		if err := os.Chtimes(path, when, when); err != nil {
			t.Fatal(err)
		}
		files := []File{
			{Path: "/usr/local/bin/x", Mode: 0o755, Source: path}, {Path: "/etc/passwd", Mode: 0o644, Data: []byte("p")},
			{Path: "/tmp", Mode: fs.ModeDir | fs.ModeSticky | 0o777}, {Path: "/bin", Link: "usr/bin"},
		}
		if reverse {
			slices.Reverse(files)
		}
		return Image{Name: "x:1", User: "65532:65532", Labels: map[string]string{"a": "1", "b": "2"}, Files: files}
	}
	one := write(t, image("a", 0o600, time.Unix(1, 0), false))
	two := write(t, image("b", 0o755, time.Now(), true))
	if !bytes.Equal(one, two) {
		t.Fatal("the same image gives other bytes")
	}
	other := image("c", 0o755, time.Now(), false)
	other.Files[1].Data = []byte("q")
	if bytes.Equal(one, write(t, other)) {
		t.Fatal("another image gives the same bytes")
	}
}

// What is in an archive fits together: digests, sizes, and the layer's files.
func TestArchive(t *testing.T) {
	t.Parallel()
	b := write(t, Image{
		Name: "app/x:v1", User: "65532:65532", Entrypoint: []string{"/x"}, Cmd: []string{"run"}, Env: []string{"A=b"},
		Files: []File{{Path: "/opt/x/y", Mode: 0o755, Data: []byte("text")}, {Path: "/opt/l", Link: "x/y"}, {Path: "/tmp", Mode: fs.ModeDir | fs.ModeSticky | 0o777}},
	})
	files, _ := entries(t, bytes.NewReader(b))
	for name, data := range files {
		if sum := sha256.Sum256(data); strings.HasPrefix(name, "blobs/") && name != "blobs/sha256/"+hex.EncodeToString(sum[:]) {
			t.Errorf("%s has another digest", name)
		}
	}
	blob := func(d descriptor) []byte {
		data, ok := files["blobs/sha256/"+strings.TrimPrefix(d.Digest, "sha256:")]
		if !ok || int64(len(data)) != d.Size {
			t.Errorf("%+v is %d bytes here", d, len(data))
		}
		return data
	}
	decode := func(data []byte, into any) {
		if err := json.Unmarshal(data, into); err != nil {
			t.Fatalf("%s: %v", data, err)
		}
	}
	var i index
	decode(files["index.json"], &i)
	if got := i.Manifests[0].Annotations["io.containerd.image.name"]; got != "docker.io/app/x:v1" {
		t.Errorf("its name is %q", got)
	}
	var m manifest
	decode(blob(i.Manifests[0]), &m)
	var c config
	decode(blob(m.Config), &c)
	if c.Config.User != "65532:65532" || fmt.Sprint(c.Config.Entrypoint, c.Config.Cmd, c.Config.Env) != "[/x] [run] [A=b]" || c.OS != "linux" {
		t.Errorf("config %+v", c)
	}
	zip, err := gzip.NewReader(bytes.NewReader(blob(m.Layers[0])))
	if err != nil {
		t.Fatal(err)
	}
	layer, err := io.ReadAll(zip)
	if err != nil {
		t.Fatal(err)
	}
	if sum := sha256.Sum256(layer); c.RootFS.DiffIDs[0] != "sha256:"+hex.EncodeToString(sum[:]) {
		t.Error("the layer has another digest")
	}
	_, headers := entries(t, bytes.NewReader(layer))
	var got []string
	for _, h := range headers {
		got = append(got, fmt.Sprintf("%s %o %d:%d %s", h.Name, h.Mode, h.Uid, h.Gid, h.Linkname))
	}
	want := []string{"opt/ 755 0:0 ", "opt/l 777 0:0 x/y", "opt/x/ 755 0:0 ", "opt/x/y 755 0:0 ", "tmp/ 1777 0:0 "}
	if !slices.Equal(got, want) {
		t.Errorf("the layer has\n%q, want\n%q", got, want)
	}
	var docker []struct {
		Config   string
		RepoTags []string
		Layers   []string
	}
	decode(files["manifest.json"], &docker)
	if d := docker[0]; files[d.Config] == nil || files[d.Layers[0]] == nil || d.RepoTags[0] != "app/x:v1" {
		t.Errorf("docker's manifest %+v", d)
	}
}

func TestRefused(t *testing.T) {
	t.Parallel()
	ok := []File{{Path: "/x", Data: []byte("x")}}
	for what, img := range map[string]Image{
		"no tag":           {Name: "x", Files: ok},
		"a port, no tag":   {Name: "host:5000/x", Files: ok},
		"a relative path":  {Name: "x:1", Files: []File{{Path: "x"}}},
		"an unclean path":  {Name: "x:1", Files: []File{{Path: "/a/../x"}}},
		"a path twice":     {Name: "x:1", Files: append(ok, ok...)},
		"a file as folder": {Name: "x:1", Files: append(ok, File{Path: "/x/y"})},
		"a missing file":   {Name: "x:1", Files: []File{{Path: "/x", Source: "/does/not/exist"}}},
	} {
		if err := Write(io.Discard, img); err == nil {
			t.Errorf("%s is accepted", what)
		}
	}
	dst := filepath.Join(t.TempDir(), "dist", "x.tar")
	if err := WriteFile(dst, Image{Name: "x:1", Files: []File{{Path: "/x", Source: "/does/not/exist"}}}); err == nil {
		t.Error("written")
	}
	if left, _ := filepath.Glob(filepath.Join(filepath.Dir(dst), "*")); len(left) > 0 {
		t.Errorf("left behind: %q", left)
	}
}

// What ldd finds for a program of the system we find too.
func TestLibraries(t *testing.T) {
	t.Parallel()
	program, err := exec.LookPath("bash")
	if err != nil {
		t.Skip(err)
	}
	out, err := exec.Command("ldd", program).Output()
	if err != nil {
		t.Skip("no ldd:", err)
	}
	files, err := Libraries(program)
	if err != nil {
		t.Fatal(err)
	}
	var got, want []string
	for _, f := range files {
		got = append(got, filepath.Base(f.Path))
	}
	for line := range strings.Lines(string(out)) {
		if f := strings.Fields(line); strings.Contains(line, "/") {
			want = append(want, filepath.Base(f[0]))
		}
	}
	slices.Sort(got)
	slices.Sort(want)
	if !slices.Equal(got, want) || len(want) < 2 {
		t.Errorf("got %q, ldd says %q", got, want)
	}
	if files, err := Libraries(os.Args[0]); err != nil || strings.Contains(fmt.Sprint(files), os.Args[0]) {
		t.Errorf("%v %v", files, err)
	}
}
