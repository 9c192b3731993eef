package identity

import (
	"bytes"
	"encoding/base64"
	"encoding/hex"
	"encoding/json"
	"encoding/pem"
	"fmt"
	"log/slog"
	"os"
	"path/filepath"
	"strings"
	"testing"
	"time"
)

// However a credential, or a thing that holds one, is printed: its key isn't in it.
func TestCredentialRedacts(t *testing.T) {
	a := openAuthority(t, "east", "")
	c := issueAgent(t, a, time.Hour)
	type holder struct {
		Exported *Credential
		Value    Credential
		inner    *Credential
		plain    Credential
	}
	h := holder{c, *c, c, *c}

	var out bytes.Buffer
	for _, v := range []any{c, *c, h, &h, []*Credential{c}, map[string]Credential{"a": *c}} {
		for _, verb := range []string{"%v", "%+v", "%#v", "%s", "%x", "%q", "%d"} {
			fmt.Fprintf(&out, verb+"\n", v)
		}
		b, err := json.Marshal(v)
		if err != nil {
			t.Fatal(err)
		}
		out.Write(b)
		slog.New(slog.NewTextHandler(&out, nil)).Info("x", "v", v)
		slog.New(slog.NewJSONHandler(&out, nil)).Info("x", "v", v)
	}
	block, _ := pem.Decode(c.KeyPEM())
	scalar, err := c.p.key.Bytes()
	if err != nil {
		t.Fatal(err)
	}
	for name, secret := range map[string]string{
		"PEM":         base64.StdEncoding.EncodeToString(block.Bytes)[:40],
		"hex":         hex.EncodeToString(scalar),
		"upper hex":   strings.ToUpper(hex.EncodeToString(scalar)),
		"big integer": c.p.key.D.String(), //nolint:staticcheck // it is what %v of a key prints
		"bytes":       strings.Trim(fmt.Sprint(scalar), "[]"),
		"PEM's bytes": strings.Trim(fmt.Sprint(c.KeyPEM()[:60]), "[]"),
	} {
		if strings.Contains(out.String(), secret) {
			t.Errorf("the key is printed as %s", name)
		}
	}
	if !strings.Contains(out.String(), "spiffe://east.isles/agent") {
		t.Error("the id isn't printed")
	}
	// The same search finds the key where it is printed on purpose.
	if svid, _ := c.GetX509SVID(); !strings.Contains(fmt.Sprintf("%+v", svid.PrivateKey), c.p.key.D.String()) { //nolint:staticcheck // as above
		t.Error("the search for secrets finds nothing even where there is one")
	}
}

func TestWriteDir(t *testing.T) {
	a := openAuthority(t, "east", "")
	dir := filepath.Join(t.TempDir(), "svid")
	first, second := issueAgent(t, a, time.Hour), issueAgent(t, a, time.Hour)

	check := func(want *Credential) {
		t.Helper()
		for name, data := range map[string][]byte{FileCert: want.CertPEM(), FileKey: want.KeyPEM(), FileBundle: BundlePEM(a.Bundle())} {
			if got, err := os.ReadFile(filepath.Join(dir, name)); err != nil || !bytes.Equal(got, data) {
				t.Errorf("%s holds other bytes than wanted, %v", name, err)
			}
		}
		if info, err := os.Stat(filepath.Join(dir, FileKey)); err != nil || info.Mode().Perm() != 0o600 {
			t.Errorf("mode of the key is %v, %v", info.Mode(), err)
		}
		entries, err := os.ReadDir(dir)
		if err != nil || len(entries) != 5 { // three names, ..data, one version
			t.Errorf("the directory holds %v, %v", entries, err)
		}
	}
	for _, c := range []*Credential{first, second} {
		if err := WriteDir(dir, Files(c, BundlePEM(a.Bundle()))); err != nil {
			t.Fatal(err)
		}
		check(c)
	}
	// What a crash left behind is in nobody's way.
	if err := os.Mkdir(filepath.Join(dir, versionPrefix+"left"), 0o700); err != nil {
		t.Fatal(err)
	}
	if err := os.Remove(filepath.Join(dir, FileCert)); err != nil {
		t.Fatal(err)
	}
	if err := WriteDir(dir, Files(first, BundlePEM(a.Bundle()))); err != nil {
		t.Fatal(err)
	}
	check(first)
	// What fails leaves the old files.
	if err := WriteDir(dir, append(Files(second, nil), File{Name: FileCert})); err == nil {
		t.Error("two files of one name were accepted")
	}
	if got, err := os.ReadFile(filepath.Join(dir, FileKey)); err != nil || !bytes.Equal(got, first.KeyPEM()) {
		t.Errorf("after a failure the key is another, %v", err)
	}
	if err := WriteDir(dir, []File{{Name: "../x"}}); err == nil {
		t.Error("a name that leads elsewhere was accepted")
	}
}

// A reader that opens the version once always gets a matching pair.
func TestWriteDirIsOneStep(t *testing.T) {
	a := openAuthority(t, "east", "")
	dir := t.TempDir()
	if err := WriteDir(dir, Files(issueAgent(t, a, time.Hour), nil)); err != nil {
		t.Fatal(err)
	}
	stop, done := make(chan struct{}), make(chan error, 1)
	go func() {
		defer close(done)
		for {
			select {
			case <-stop:
				return
			default:
			}
			version, err := os.OpenRoot(filepath.Join(dir, dataLink))
			if err != nil {
				continue // removed between the link and the open: a reader looks again
			}
			cert, err1 := version.ReadFile(FileCert)
			key, err2 := version.ReadFile(FileKey)
			_ = version.Close()
			if err1 != nil || err2 != nil {
				continue
			}
			if err := matches(cert, key); err != nil {
				done <- err
				return
			}
		}
	}()
	for range 50 {
		if err := WriteDir(dir, Files(issueAgent(t, a, time.Hour), nil)); err != nil {
			t.Fatal(err)
		}
	}
	close(stop)
	if err := <-done; err != nil {
		t.Error(err)
	}
}
