package upstream

import (
	"context"
	"fmt"
	"io/fs"
	"log/slog"
	"os"
	"os/exec"
	"path"
	"path/filepath"
	"regexp"
	"slices"
	"strings"

	"sigs.k8s.io/gateway-api/conformance"

	"github.com/causeway-mesh/causeway/deploy/oci"
	"github.com/causeway-mesh/causeway/test/lab"
)

var imageLine = regexp.MustCompile(`(?m)^\s*(?:- )?image:\s*["']?([^\s"']+)`)

// imageNames lists the images that the suite's tests of gateways name.
func imageNames() ([]string, error) {
	var out []string
	err := fs.WalkDir(conformance.Manifests, ".", func(p string, d fs.DirEntry, err error) error {
		if err != nil || d.IsDir() || path.Ext(p) != ".yaml" || strings.HasPrefix(p, "mesh/") || strings.HasPrefix(p, "tests/mesh/") {
			return err
		}
		text, err := conformance.Manifests.ReadFile(p)
		for _, m := range imageLine.FindAllSubmatch(text, -1) {
			out = append(out, string(m[1]))
		}
		return err
	})
	slices.Sort(out)
	return slices.Compact(out), err
}

// Images builds the images in dir from the source of the suite's own module, and of
// CoreDNS, and returns the archives.
func Images(ctx context.Context, dir string) ([]string, error) {
	names, err := imageNames()
	if err != nil {
		return nil, err
	}
	echo := filepath.Join(dir, "echo-basic")
	build := exec.CommandContext(ctx, "go", "build", "-trimpath", "-ldflags", "-s -w", "-o", echo, "sigs.k8s.io/gateway-api/conformance/echo-basic")
	build.Env = append(os.Environ(), "CGO_ENABLED=0")
	if out, err := build.CombinedOutput(); err != nil {
		return nil, fmt.Errorf("build echo-basic: %w: %s", err, out)
	}
	coredns, err := lab.CoreDNS(ctx, slog.New(slog.NewTextHandler(os.Stderr, nil)))
	if err != nil {
		return nil, err
	}
	var out []string
	for _, name := range names {
		repository, _, _ := strings.Cut(path.Base(name), ":")
		binary := map[string]string{"echo-basic": echo, "coredns": coredns}[repository]
		if binary == "" {
			return nil, fmt.Errorf("the suite wants the image %s, which nobody knows how to build", name)
		}
		archive := filepath.Join(dir, strings.ReplaceAll(path.Base(name), ":", "-")+".tar")
		inside := "/" + filepath.Base(binary)
		if err := oci.WriteFile(archive, oci.Image{
			Name: name, Entrypoint: []string{inside}, Files: []oci.File{{Path: inside, Mode: 0o755, Source: binary}},
		}); err != nil {
			return nil, err
		}
		out = append(out, archive)
	}
	return out, nil
}
