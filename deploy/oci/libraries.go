package oci

import (
	"debug/elf"
	"fmt"
	"io"
	"os"
	"path/filepath"
	"slices"
	"strings"
)

// triplets are what Debian and its kin call the folders of a machine's libraries.
var triplets = map[elf.Machine]string{elf.EM_X86_64: "x86_64-linux-gnu", elf.EM_AARCH64: "aarch64-linux-gnu"}

// Libraries returns the files that a dynamically linked program needs to run, sorted
// by path: its loader, and the shared libraries which it and they name, each at the path
// where this machine's loader would find it. A static program needs none.
func Libraries(program string) ([]File, error) {
	found := map[string]File{}
	if err := libraries(program, found); err != nil {
		return nil, err
	}
	var out []File
	for _, f := range found {
		out = append(out, f)
	}
	slices.SortFunc(out, func(a, b File) int { return strings.Compare(a.Path, b.Path) })
	return out, nil
}

func libraries(object string, found map[string]File) error {
	f, err := elf.Open(object)
	if err != nil {
		return fmt.Errorf("read %s: %w", object, err)
	}
	defer f.Close()
	add := func(path string) error {
		if _, known := found[path]; known {
			return nil
		}
		found[path] = File{Path: path, Mode: 0o755, Source: path}
		return libraries(path, found)
	}
	loader := ""
	for _, p := range f.Progs {
		if p.Type != elf.PT_INTERP {
			continue
		}
		b, err := io.ReadAll(p.Open())
		if err != nil {
			return fmt.Errorf("read %s: %w", object, err)
		}
		loader = strings.TrimRight(string(b), "\x00")
		if err := add(loader); err != nil {
			return err
		}
	}
	names, err := f.ImportedLibraries()
	if err != nil {
		return fmt.Errorf("read %s: %w", object, err)
	}
	var dirs []string
	if t := triplets[f.Machine]; t != "" {
		dirs = append(dirs, "/lib/"+t, "/usr/lib/"+t)
	}
	dirs = append(dirs, "/lib64", "/usr/lib64", "/lib", "/usr/lib")
	for _, name := range names {
		if filepath.Base(loader) == name || hasBase(found, name) {
			continue
		}
		i := slices.IndexFunc(dirs, func(d string) bool {
			_, err := os.Stat(filepath.Join(d, name))
			return err == nil
		})
		if i < 0 {
			return fmt.Errorf("%s needs %s, which is in none of %v", object, name, dirs)
		}
		if err := add(filepath.Join(dirs[i], name)); err != nil {
			return err
		}
	}
	return nil
}

func hasBase(found map[string]File, name string) bool {
	for p := range found {
		if filepath.Base(p) == name {
			return true
		}
	}
	return false
}
