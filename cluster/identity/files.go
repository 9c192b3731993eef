package identity

import (
	"crypto/rand"
	"encoding/hex"
	"errors"
	"fmt"
	"io"
	"io/fs"
	"os"
	"path/filepath"
	"strings"
)

// File is one of the files that WriteDir puts into a directory.
type File struct {
	Name string // no path separator, no leading dot
	Data []byte
	Mode fs.FileMode // 0600 for keys
}

// The names under which Files stores a credential, those of a Kubernetes TLS Secret.
const (
	FileCert   = "tls.crt"
	FileKey    = "tls.key"
	FileBundle = "ca.crt"
)

// Files gives a credential and the roots that its bearer trusts (PEM) as Envoy,
// grpcurl and etcdctl read them.
func Files(c *Credential, bundlePEM []byte) []File {
	return []File{
		{Name: FileCert, Data: c.CertPEM(), Mode: 0o644},
		{Name: FileKey, Data: c.KeyPEM(), Mode: 0o600},
		{Name: FileBundle, Data: bundlePEM, Mode: 0o644},
	}
}

const (
	dataLink      = "..data"
	versionPrefix = "..v-"
)

// WriteDir replaces all the files in dir in one step, so that no certificate is
// ever beside the wrong key. It does so as kubelet does for a Secret: each name
// is a link through `..data`, which leads to a directory of one version and is
// renamed into place; that is also the event that Envoy's watched_directory
// waits for. Only a reader that has one file of the old version open while it
// opens the next can mix versions, and the event makes it read again. The
// directory is made with mode 0700 if it doesn't exist; one process writes to it.
func WriteDir(dir string, files []File) error {
	if err := writeDir(dir, files); err != nil {
		return fmt.Errorf("write credentials to %s: %w", dir, err)
	}
	return nil
}

func writeDir(dir string, files []File) error {
	for _, f := range files {
		if f.Name == "" || strings.HasPrefix(f.Name, ".") || strings.ContainsAny(f.Name, `/\`) {
			return fmt.Errorf("%q can't be a file name here", f.Name)
		}
	}
	if err := os.MkdirAll(dir, 0o700); err != nil {
		return err
	}
	version := versionPrefix + randomName()
	if err := os.Mkdir(filepath.Join(dir, version), 0o700); err != nil {
		return err
	}
	for _, f := range files {
		if err := writeSynced(filepath.Join(dir, version, f.Name), f.Data, f.Mode, os.O_EXCL); err != nil {
			return err
		}
	}
	if err := syncDir(filepath.Join(dir, version)); err != nil {
		return err
	}
	if err := swapLink(dir, version, dataLink); err != nil {
		return err
	}
	for _, f := range files {
		target := filepath.Join(dataLink, f.Name)
		if now, err := os.Readlink(filepath.Join(dir, f.Name)); err == nil && now == target {
			continue
		}
		if err := swapLink(dir, target, f.Name); err != nil {
			return err
		}
	}
	if err := syncDir(dir); err != nil {
		return err
	}
	return removeOld(dir, version)
}

// swapLink makes dir/name a link to target in one step, whatever it was.
func swapLink(dir, target, name string) error {
	tmp := filepath.Join(dir, versionPrefix+randomName()+".link")
	if err := os.Symlink(target, tmp); err != nil {
		return err
	}
	if err := os.Rename(tmp, filepath.Join(dir, name)); err != nil {
		_ = os.Remove(tmp)
		return err
	}
	return nil
}

// removeOld removes what earlier calls left behind, finished or not.
func removeOld(dir, current string) error {
	entries, err := os.ReadDir(dir)
	if err != nil {
		return err
	}
	for _, e := range entries {
		if strings.HasPrefix(e.Name(), versionPrefix) && e.Name() != current {
			if err := os.RemoveAll(filepath.Join(dir, e.Name())); err != nil {
				return err
			}
		}
	}
	return nil
}

// WriteFile replaces a file atomically and durably. After a crash it holds the
// old bytes or the new ones.
func WriteFile(path string, data []byte, mode fs.FileMode) error {
	tmp := filepath.Join(filepath.Dir(path), ".tmp-"+randomName())
	if err := writeSynced(tmp, data, mode, os.O_EXCL); err != nil {
		return err
	}
	if err := os.Rename(tmp, path); err != nil {
		_ = os.Remove(tmp)
		return err
	}
	return syncDir(filepath.Dir(path))
}

// createFile is WriteFile that fails with fs.ErrExist where the file exists.
func createFile(path string, data []byte, mode fs.FileMode) error {
	tmp := filepath.Join(filepath.Dir(path), ".tmp-"+randomName())
	if err := writeSynced(tmp, data, mode, os.O_EXCL); err != nil {
		return err
	}
	defer func() { _ = os.Remove(tmp) }()
	if err := os.Link(tmp, path); err != nil {
		return err
	}
	return syncDir(filepath.Dir(path))
}

// ReadSecretFile reads a file that WriteFile wrote with mode 0600, of at most 1 MiB.
func ReadSecretFile(path string) ([]byte, error) { return readSecret(path, maxKeyringFile) }

// readSecret reads a file of at most limit bytes that no one but its owner may read.
func readSecret(path string, limit int64) ([]byte, error) {
	f, err := os.Open(path)
	if err != nil {
		return nil, err
	}
	defer func() { _ = f.Close() }()
	info, err := f.Stat()
	if err != nil {
		return nil, err
	}
	if info.Mode().Perm()&0o077 != 0 {
		return nil, fmt.Errorf("%s holds a private key and has mode %04o, open to others: run `chmod 600 %s`", path, info.Mode().Perm(), path)
	}
	data, err := io.ReadAll(io.LimitReader(f, limit+1))
	if err != nil {
		return nil, fmt.Errorf("read %s: %w", path, err)
	}
	if int64(len(data)) > limit {
		return nil, fmt.Errorf("%s is larger than %d bytes", path, limit)
	}
	return data, nil
}

func writeSynced(path string, data []byte, mode fs.FileMode, flag int) error {
	f, err := os.OpenFile(path, os.O_WRONLY|os.O_CREATE|flag, mode)
	if err != nil {
		return err
	}
	_, err = f.Write(data)
	if err == nil {
		err = f.Sync()
	}
	if cerr := f.Close(); err == nil {
		err = cerr
	}
	if err != nil {
		_ = os.Remove(path)
	}
	return err
}

func syncDir(dir string) error {
	d, err := os.Open(dir)
	if err != nil {
		return err
	}
	return errors.Join(d.Sync(), d.Close())
}

func randomName() string {
	b := make([]byte, 8)
	_, _ = rand.Read(b) // never fails (crypto/rand)
	return hex.EncodeToString(b)
}
