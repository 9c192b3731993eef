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
	"maps"
	"os"
	"path"
	"path/filepath"
	"runtime"
	"slices"
	"strings"
)

// Image is an image of one layer.
type Image struct {
	// Name is what it is called, with a tag: "causeway:v1.2.3".
	Name string
	// Entrypoint and Cmd are what runs, and its arguments unless others are given.
	Entrypoint, Cmd []string
	// User is "uid:gid".
	User string
	// Env are settings of the environment, as NAME=VALUE.
	Env []string
	// Labels are the image's, such as org.opencontainers.image.version.
	Labels map[string]string
	Files  []File
}

// File is a file, folder or symbolic link of an image.
type File struct {
	// Path is absolute and clean.
	Path string
	// Mode has the permissions, and says whether it is a folder (fs.ModeDir).
	Mode fs.FileMode
	// Exactly one of these is given, but for folders, which have none.
	Source string // a file of this machine; symbolic links are followed
	Data   []byte
	Link   string // what a symbolic link points to
}

// Media types, as the OCI image specification has them.
const (
	mediaIndex    = "application/vnd.oci.image.index.v1+json"
	mediaManifest = "application/vnd.oci.image.manifest.v1+json"
	mediaConfig   = "application/vnd.oci.image.config.v1+json"
	mediaLayer    = "application/vnd.oci.image.layer.v1.tar+gzip"
)

type descriptor struct {
	MediaType   string            `json:"mediaType"`
	Digest      string            `json:"digest"`
	Size        int64             `json:"size"`
	Platform    *platform         `json:"platform,omitempty"`
	Annotations map[string]string `json:"annotations,omitempty"`
}

type platform struct {
	Architecture string `json:"architecture"`
	OS           string `json:"os"`
}

type config struct {
	platform
	Config struct {
		User       string            `json:"User,omitempty"`
		Env        []string          `json:"Env,omitempty"`
		Entrypoint []string          `json:"Entrypoint,omitempty"`
		Cmd        []string          `json:"Cmd,omitempty"`
		WorkingDir string            `json:"WorkingDir"`
		Labels     map[string]string `json:"Labels,omitempty"`
	} `json:"config"`
	RootFS struct {
		Type    string   `json:"type"`
		DiffIDs []string `json:"diff_ids"`
	} `json:"rootfs"`
}

type manifest struct {
	SchemaVersion int          `json:"schemaVersion"`
	MediaType     string       `json:"mediaType"`
	Config        descriptor   `json:"config"`
	Layers        []descriptor `json:"layers"`
}

type index struct {
	SchemaVersion int          `json:"schemaVersion"`
	MediaType     string       `json:"mediaType"`
	Manifests     []descriptor `json:"manifests"`
}

// WriteFile writes the archive of an image for this machine's architecture. Nothing
// is at dst unless all of it is.
func WriteFile(dst string, img Image) (err error) {
	if err := os.MkdirAll(filepath.Dir(dst), 0o755); err != nil {
		return err
	}
	f, err := os.CreateTemp(filepath.Dir(dst), ".image-")
	if err != nil {
		return err
	}
	defer func() {
		f.Close()
		_ = os.Remove(f.Name()) // gone already if all went well
	}()
	if err := Write(f, img); err != nil {
		return fmt.Errorf("image %s: %w", img.Name, err)
	}
	if err := errors.Join(f.Chmod(0o644), f.Close()); err != nil {
		return err
	}
	return os.Rename(f.Name(), dst)
}

// Write writes the archive. The layer is held in memory meanwhile.
func Write(w io.Writer, img Image) error {
	name, err := fullName(img.Name)
	if err != nil {
		return err
	}
	files, err := complete(img.Files)
	if err != nil {
		return err
	}
	var packed bytes.Buffer
	zip, err := gzip.NewWriterLevel(&packed, gzip.DefaultCompression)
	if err != nil {
		return err
	}
	plain := sha256.New()
	if err := writeLayer(io.MultiWriter(zip, plain), files); err != nil {
		return err
	}
	if err := zip.Close(); err != nil {
		return err
	}
	blobs := map[string][]byte{}
	add := func(media string, b []byte) descriptor {
		sum := sha256.Sum256(b)
		d := hex.EncodeToString(sum[:])
		blobs["blobs/sha256/"+d] = b
		return descriptor{MediaType: media, Digest: "sha256:" + d, Size: int64(len(b))}
	}
	here := platform{Architecture: runtime.GOARCH, OS: "linux"}
	var c config
	c.platform = here
	c.Config.User, c.Config.Env, c.Config.Entrypoint, c.Config.Cmd, c.Config.WorkingDir, c.Config.Labels = img.User, img.Env, img.Entrypoint, img.Cmd, "/", img.Labels
	c.RootFS.Type, c.RootFS.DiffIDs = "layers", []string{"sha256:" + hex.EncodeToString(plain.Sum(nil))}
	configJSON, err := json.Marshal(c)
	if err != nil {
		return err
	}
	m := manifest{SchemaVersion: 2, MediaType: mediaManifest, Config: add(mediaConfig, configJSON), Layers: []descriptor{add(mediaLayer, packed.Bytes())}}
	manifestJSON, err := json.Marshal(m)
	if err != nil {
		return err
	}
	top := add(mediaManifest, manifestJSON)
	top.Platform = &here
	top.Annotations = map[string]string{"io.containerd.image.name": name, "org.opencontainers.image.ref.name": name[strings.LastIndexByte(name, ':')+1:]}
	indexJSON, err := json.Marshal(index{SchemaVersion: 2, MediaType: mediaIndex, Manifests: []descriptor{top}})
	if err != nil {
		return err
	}
	blobPath := func(d descriptor) string { return "blobs/sha256/" + strings.TrimPrefix(d.Digest, "sha256:") }
	dockerJSON, err := json.Marshal([]struct {
		Config   string
		RepoTags []string
		Layers   []string
	}{{blobPath(m.Config), []string{img.Name}, []string{blobPath(m.Layers[0])}}})
	if err != nil {
		return err
	}
	blobs["oci-layout"] = []byte(`{"imageLayoutVersion":"1.0.0"}`)
	blobs["index.json"] = indexJSON
	blobs["manifest.json"] = dockerJSON
	t := tar.NewWriter(w)
	for _, p := range slices.Sorted(maps.Keys(blobs)) {
		if err := t.WriteHeader(&tar.Header{Format: tar.FormatUSTAR, Typeflag: tar.TypeReg, Name: p, Mode: 0o644, Size: int64(len(blobs[p]))}); err != nil {
			return err
		}
		if _, err := t.Write(blobs[p]); err != nil {
			return err
		}
	}
	return t.Close()
}

// fullName is what runtimes know a name without a registry as.
func fullName(name string) (string, error) {
	colon := strings.LastIndexByte(name, ':')
	if colon <= strings.LastIndexByte(name, '/')+1 || colon == len(name)-1 {
		return "", fmt.Errorf("image name %q must be NAME:TAG", name)
	}
	repo, tag := name[:colon], name[colon+1:]
	host, rest, ok := strings.Cut(repo, "/")
	switch {
	case !ok:
		return "docker.io/library/" + repo + ":" + tag, nil
	case !strings.ContainsAny(host, ".:") && host != "localhost":
		return "docker.io/" + host + "/" + rest + ":" + tag, nil
	}
	return name, nil
}

// complete sorts files, and adds the folders that they are in. Of two with the same path it
// refuses the image, unless they are folders, of which the first counts.
func complete(files []File) ([]File, error) {
	all := map[string]File{}
	for _, f := range files {
		if !path.IsAbs(f.Path) || path.Clean(f.Path) != f.Path || f.Path == "/" {
			return nil, fmt.Errorf("path %q is not absolute and clean", f.Path)
		}
		old, twice := all[f.Path]
		switch {
		case !twice:
			all[f.Path] = f
		case !old.Mode.IsDir() || !f.Mode.IsDir():
			return nil, fmt.Errorf("%s is there twice", f.Path)
		}
	}
	for _, f := range files {
		for dir := path.Dir(f.Path); dir != "/"; dir = path.Dir(dir) {
			if parent, ok := all[dir]; !ok {
				all[dir] = File{Path: dir, Mode: fs.ModeDir | 0o755}
			} else if !parent.Mode.IsDir() {
				return nil, fmt.Errorf("%s is inside of %s, which is no folder", f.Path, dir)
			}
		}
	}
	var out []File
	for _, p := range slices.Sorted(maps.Keys(all)) { // a folder sorts before what is in it
		out = append(out, all[p])
	}
	return out, nil
}

func writeLayer(w io.Writer, files []File) error {
	t := tar.NewWriter(w)
	for _, f := range files {
		if err := writeFile(t, f); err != nil {
			return fmt.Errorf("%s: %w", f.Path, err)
		}
	}
	return t.Close()
}

func writeFile(t *tar.Writer, f File) error {
	h := &tar.Header{Format: tar.FormatPAX, Name: strings.TrimPrefix(f.Path, "/"), Mode: int64(f.Mode.Perm())}
	if f.Mode&fs.ModeSticky != 0 {
		h.Mode |= 0o1000
	}
	switch {
	case f.Mode.IsDir():
		h.Typeflag, h.Name = tar.TypeDir, h.Name+"/"
		return t.WriteHeader(h)
	case f.Link != "":
		h.Typeflag, h.Linkname, h.Mode = tar.TypeSymlink, f.Link, 0o777
		return t.WriteHeader(h)
	}
	h.Typeflag, h.Size = tar.TypeReg, int64(len(f.Data))
	var from io.Reader = bytes.NewReader(f.Data)
	if f.Source != "" {
		file, err := os.Open(f.Source)
		if err != nil {
			return err
		}
		defer file.Close()
		info, err := file.Stat()
		if err != nil {
			return err
		}
		if !info.Mode().IsRegular() {
			return fmt.Errorf("%s is no regular file", f.Source)
		}
		h.Size, from = info.Size(), file
	}
	if err := t.WriteHeader(h); err != nil {
		return err
	}
	_, err := io.Copy(t, from)
	return err
}
