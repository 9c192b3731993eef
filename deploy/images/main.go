// Command images builds Causeway's container images without a container runtime, as
// archives that any runtime loads (see deploy/oci):
//
//	causeway-VERSION.tar        agent and hub: the static binary
//	causeway-envoy-VERSION.tar  the data plane: the pinned Envoy with its shared libraries, and
//	                            the static binary, which runs it (causeway proxy)
//	causeway-test-VERSION.tar   echo server and client, for end-to-end tests alone
//	etcd-VERSION.tar            the etcd of go.mod, under the name and tag that the chart
//	                            causeway-hub has for the official one; for end-to-end tests
//	                            alone, which have no registry
//
// The programs run as user 65532 and write nothing into their root file system. The same
// source, version, Go and, for Envoy, libraries of this machine give the same bytes.
// deploy/Dockerfile and deploy/Dockerfile.envoy have the same content. `make images`
// runs it, and so does `make e2e`.
package main

import (
	"context"
	"errors"
	"flag"
	"fmt"
	"io/fs"
	"os"
	"os/exec"
	"os/signal"
	"path/filepath"
	"regexp"
	"strings"
	"syscall"

	"sigs.k8s.io/yaml"

	"github.com/causeway-mesh/causeway/deploy/oci"
	"github.com/causeway-mesh/causeway/xds/envoy"
)

// nonRoot is whom the images run as: the number that "nonroot" has in other images too.
const nonRoot = "65532:65532"

// passwd and group name it, for what looks itself up.
const (
	passwd = "root:x:0:0:root:/:/sbin/nologin\nnonroot:x:65532:65532:nonroot:/:/sbin/nologin\n"
	group  = "root:x:0:\nnonroot:x:65532:\n"
)

// authorities is where the images have the certificate authorities that are trusted by
// the world, as Debian has it. Any of the files of this machine becomes it.
const authorities = "/etc/ssl/certs/ca-certificates.crt"

// hubChart says which image of etcd it runs.
const hubChart = "deploy/helm/causeway-hub/values.yaml"

var tag = regexp.MustCompile(`^[A-Za-z0-9_][A-Za-z0-9_.-]{0,100}$`)

func main() {
	version := flag.String("version", "", "version, which is the images' tag too")
	out := flag.String("out", "dist", "folder for the archives")
	only := flag.String("only", "causeway,causeway-envoy,causeway-test", "images to build, by commas")
	flag.Parse()
	ctx, stop := signal.NotifyContext(context.Background(), os.Interrupt, syscall.SIGTERM)
	err := build(ctx, *version, *out, strings.Split(*only, ","))
	stop()
	if err != nil {
		fmt.Fprintln(os.Stderr, "images:", err)
		os.Exit(1)
	}
}

func build(ctx context.Context, version, out string, names []string) error {
	if !tag.MatchString(version) {
		return fmt.Errorf("-version %q can't be an image's tag", version)
	}
	tmp, err := os.MkdirTemp("", "causeway-images-")
	if err != nil {
		return err
	}
	defer func() { _ = os.RemoveAll(tmp) }()
	for _, name := range names {
		var img oci.Image
		switch name {
		case "causeway":
			img, err = program(ctx, tmp, name, "./cmd/causeway", version)
		case "causeway-test":
			img, err = program(ctx, tmp, name, "./test/workload", version)
		case "causeway-envoy":
			img, err = proxy(ctx, tmp, version)
		case "etcd":
			img, err = etcd(ctx, tmp, version)
		default:
			err = fmt.Errorf("no image is called %q", name)
		}
		if err != nil {
			return err
		}
		if img.Name == "" {
			img.Name = name + ":" + version
		}
		img.User = nonRoot
		if img.Labels == nil {
			img.Labels = map[string]string{}
		}
		img.Labels["org.opencontainers.image.title"] = name
		img.Labels["org.opencontainers.image.version"] = version
		img.Labels["org.opencontainers.image.licenses"] = "Apache-2.0"
		base, err := base()
		if err != nil {
			return err
		}
		img.Files = append(img.Files, base...)
		archive := filepath.Join(out, name+"-"+version+".tar")
		if err := oci.WriteFile(archive, img); err != nil {
			return err
		}
		fmt.Println(archive)
	}
	return nil
}

// base is what all images have.
func base() ([]oci.File, error) {
	files := []oci.File{
		{Path: "/etc/passwd", Mode: 0o644, Data: []byte(passwd)},
		{Path: "/etc/group", Mode: 0o644, Data: []byte(group)},
		{Path: "/tmp", Mode: fs.ModeDir | fs.ModeSticky | 0o777},
	}
	bundle := envoy.SystemRoots()
	if bundle == "" {
		return nil, errors.New("this machine has no bundle of certificate authorities; install ca-certificates")
	}
	return append(files, oci.File{Path: authorities, Mode: 0o644, Source: bundle}), nil
}

// program builds one of our commands. It is static, so it is all that its image needs.
func program(ctx context.Context, tmp, name, pkg, version string) (oci.Image, error) {
	binary := filepath.Join(tmp, name)
	cmd := exec.CommandContext(ctx, "go", "build", "-trimpath", "-buildvcs=false", "-ldflags", "-s -w -buildid= -X main.version="+version, "-o", binary, pkg)
	cmd.Env = append(os.Environ(), "CGO_ENABLED=0")
	cmd.Stderr = os.Stderr
	if err := cmd.Run(); err != nil {
		return oci.Image{}, fmt.Errorf("build %s: %w", pkg, err)
	}
	inside := "/usr/local/bin/" + name
	return oci.Image{
		Entrypoint: []string{inside}, Env: []string{"PATH=/usr/local/bin"},
		Files: []oci.File{{Path: inside, Mode: 0o755, Source: binary}},
	}, nil
}

// proxy is the Envoy that `make envoy` has fetched, or that CAUSEWAY_ENVOY or PATH names,
// with the program that runs it.
func proxy(ctx context.Context, tmp, version string) (oci.Image, error) {
	binary, err := envoy.Find("")
	if err != nil {
		return oci.Image{}, err
	}
	if version, untested := binary.Untested(); untested {
		return oci.Image{}, fmt.Errorf("%s is Envoy %s; images have %s alone, which `make envoy` fetches", binary.Path, version, envoy.Version)
	}
	libraries, err := oci.Libraries(binary.Path)
	if err != nil {
		return oci.Image{}, err
	}
	img, err := program(ctx, tmp, "causeway", "./cmd/causeway", version)
	if err != nil {
		return oci.Image{}, err
	}
	img.Labels = map[string]string{"dev.causeway.envoy": envoy.Version}
	img.Files = append(append(img.Files, libraries...), oci.File{Path: "/usr/local/bin/envoy", Mode: 0o755, Source: binary.Path})
	return img, nil
}

// etcd is the store of the chart causeway-hub.
func etcd(ctx context.Context, tmp, version string) (oci.Image, error) {
	data, err := os.ReadFile(hubChart)
	if err != nil {
		return oci.Image{}, err
	}
	var values struct {
		Etcd struct {
			Image struct{ Repository, Tag string }
		}
	}
	if err := yaml.Unmarshal(data, &values); err != nil {
		return oci.Image{}, fmt.Errorf("%s: %w", hubChart, err)
	}
	img, err := program(ctx, tmp, "etcd", "go.etcd.io/etcd/server/v3", version)
	img.Name = values.Etcd.Image.Repository + ":" + values.Etcd.Image.Tag
	return img, err
}
