package file

import (
	"errors"
	"fmt"
	"io"
	"io/fs"
	"os"
	"path"
	"path/filepath"
	"slices"
	"strings"
	"syscall"
)

// metaFile is the file at the folder's top that says what the cluster is.
const metaFile = "cluster.yaml"

// listing is what a walk saw. Paths are relative to the folder, with slashes.
type listing struct {
	files map[string]fs.FileInfo
	// unknown are folders and files that could not be looked at: nothing can
	// be said of what is in them.
	unknown  []string
	problems []placed
}

// placed is a problem with its file.
type placed struct {
	path string
	problem
}

// list walks the folder. visit is called with each folder before its entries
// are read, so that a watch set by it misses nothing. Only a folder that can't
// be opened at all is an error.
func list(root *os.Root, maxFiles int, visit func(dir string)) (listing, error) {
	l := listing{files: map[string]fs.FileInfo{}}
	full := false
	err := fs.WalkDir(root.FS(), ".", func(name string, e fs.DirEntry, err error) error {
		if err != nil {
			if name == "." {
				return err
			}
			if !errors.Is(err, fs.ErrNotExist) {
				l.unreadable(name, err)
			}
			return nil
		}
		if e.IsDir() {
			if name != "." && skipped(e.Name()) {
				return fs.SkipDir
			}
			visit(name)
			return nil
		}
		link := e.Type()&fs.ModeSymlink != 0
		if skipped(e.Name()) {
			return nil
		}
		if !manifest(e.Name()) {
			if link {
				l.folderLink(root, name)
			}
			return nil
		}
		if len(l.files) >= maxFiles {
			if !full {
				full = true
				l.problems = append(l.problems, placed{name, problem{message: fmt.Sprintf("the folder has more than %d manifests: this one and those after it are left out", maxFiles)}})
			}
			return fs.SkipAll
		}
		info, err := e.Info()
		if err == nil && link {
			info, err = root.Stat(name)
		}
		switch {
		case errors.Is(err, fs.ErrNotExist) && !link:
			// It went between two looks.
		case err != nil && link:
			l.problems = append(l.problems, placed{name, problem{message: "this symbolic link leads nowhere or out of the folder, and is not followed: put a copy in its place"}})
		case err != nil:
			l.unreadable(name, err)
		case info.IsDir():
			// A link to a folder within the tree: its files are seen there.
		case !info.Mode().IsRegular():
			l.problems = append(l.problems, placed{name, problem{message: "this is not a regular file and is left out"}})
		default:
			l.files[name] = info
		}
		return nil
	})
	return l, err
}

// folderLink reports a link to a folder elsewhere, whose manifests a person
// would expect to count. One to a folder within the tree needs no word: its
// files are read where they are.
func (l *listing) folderLink(root *os.Root, name string) {
	if _, err := root.Stat(name); err == nil {
		return
	}
	if info, err := os.Stat(filepath.Join(root.Name(), filepath.FromSlash(name))); err == nil && info.IsDir() {
		l.problems = append(l.problems, placed{name, problem{message: "this symbolic link leads out of the folder and is not followed: put a copy of the folder in its place"}})
	}
}

func (l *listing) unreadable(name string, err error) {
	l.unknown = append(l.unknown, name)
	l.problems = append(l.problems, placed{name, problem{message: "can't be read, so its last good state is kept: " + reason(err)}})
}

// covers reports whether a path lies where the walk could not look.
func (l *listing) covers(name string) bool {
	return slices.ContainsFunc(l.unknown, func(dir string) bool {
		return name == dir || strings.HasPrefix(name, dir+"/")
	})
}

// skipped tells hidden files and what editors leave behind.
func skipped(base string) bool {
	return strings.HasPrefix(base, ".") || strings.HasPrefix(base, "#") || strings.HasPrefix(base, "~") || strings.HasSuffix(base, "~")
}

func manifest(base string) bool {
	if strings.EqualFold(base, "kustomization.yaml") || strings.EqualFold(base, "kustomization.yml") {
		return false // for kustomize, and no object
	}
	switch strings.ToLower(path.Ext(base)) {
	case ".yaml", ".yml", ".json":
		return true
	}
	return false
}

// errTooLarge is a file over its bound.
type errTooLarge int

func (e errTooLarge) Error() string {
	return fmt.Sprintf("is larger than %d bytes and is not read: split it", int(e))
}

// read gives a file's bytes and what it was when they were read. It neither
// follows links out of the root nor waits on a pipe.
func read(root *os.Root, name string, maxBytes int) ([]byte, fs.FileInfo, error) {
	f, err := root.OpenFile(name, os.O_RDONLY|syscall.O_NONBLOCK, 0)
	if err != nil {
		return nil, nil, err
	}
	defer f.Close()
	info, err := f.Stat()
	if err != nil {
		return nil, nil, err
	}
	if !info.Mode().IsRegular() {
		return nil, nil, errors.New("not a regular file")
	}
	if info.Size() > int64(maxBytes) {
		return nil, info, errTooLarge(maxBytes)
	}
	data, err := io.ReadAll(io.LimitReader(f, int64(maxBytes)+1))
	if err != nil {
		return nil, info, err
	}
	if len(data) > maxBytes {
		return nil, info, errTooLarge(maxBytes)
	}
	return data, info, nil
}

// reason is an I/O error without the path, which the problem names anyway.
func reason(err error) string {
	var p *fs.PathError
	if errors.As(err, &p) {
		return p.Err.Error()
	}
	return err.Error()
}
