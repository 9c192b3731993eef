package lab

import (
	"bufio"
	"bytes"
	"context"
	"errors"
	"fmt"
	"io"
	"os"
	"os/exec"
	"path/filepath"
	"slices"
	"strings"
	"time"

	apierrors "k8s.io/apimachinery/pkg/api/errors"
	"k8s.io/apimachinery/pkg/api/meta"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
	"k8s.io/apimachinery/pkg/apis/meta/v1/unstructured"
	"k8s.io/apimachinery/pkg/runtime/schema"
	"k8s.io/apimachinery/pkg/types"
	utilyaml "k8s.io/apimachinery/pkg/util/yaml"
	"k8s.io/client-go/discovery"
	"k8s.io/client-go/dynamic"
	"k8s.io/client-go/rest"
	"k8s.io/client-go/restmapper"
	"sigs.k8s.io/yaml"
)

// fieldManager owns what the lab applies.
const fieldManager = "causeway-lab"

// applyTimeout is how long Apply waits for a kind or a namespace that is not there yet.
const applyTimeout = 2 * time.Minute

// Channel is a release channel of Gateway API.
type Channel string

// The channels. Going from one to the other within a cluster is refused by Gateway API's
// own admission policy.
const (
	Standard     Channel = "standard"
	Experimental Channel = "experimental"
)

// CRDs says which custom resource definitions a cluster gets. They come from the Go
// modules that Causeway is built with, so they are of these versions.
type CRDs struct {
	GatewayAPI Channel // empty: none
	MCS        bool    // ServiceExport and ServiceImport, v1alpha1 and v1beta1
}

// manifests returns the manifests, for Apply.
func (c CRDs) manifests(ctx context.Context) ([]byte, error) {
	var globs []string
	if c.GatewayAPI != "" {
		dir, err := ModuleDir(ctx, "sigs.k8s.io/gateway-api")
		if err != nil {
			return nil, err
		}
		globs = append(globs, filepath.Join(dir, "config", "crd", string(c.GatewayAPI), "*networking*.yaml"))
	}
	if c.MCS {
		dir, err := ModuleDir(ctx, "sigs.k8s.io/mcs-api")
		if err != nil {
			return nil, err
		}
		globs = append(globs, filepath.Join(dir, "config", "crd", "multicluster*.yaml"))
	}
	var out bytes.Buffer
	for _, glob := range globs {
		files, err := filepath.Glob(glob)
		if err != nil || len(files) == 0 {
			return nil, fmt.Errorf("no CRDs in %s", glob)
		}
		for _, f := range files {
			b, err := os.ReadFile(f)
			if err != nil {
				return nil, err
			}
			out.WriteString("\n---\n")
			out.Write(b)
		}
	}
	return out.Bytes(), nil
}

// ModuleDir is the folder of a module in the version that Causeway's go.mod has.
func ModuleDir(ctx context.Context, module string) (string, error) {
	root, err := SourceRoot()
	if err != nil {
		return "", err
	}
	cmd := exec.CommandContext(ctx, "go", "list", "-m", "-f", "{{.Dir}}", module)
	cmd.Dir = root
	out, err := outputOf(cmd)
	if err != nil {
		return "", err
	}
	dir := strings.TrimSpace(string(out))
	if dir == "" {
		return "", fmt.Errorf("module %s is not downloaded; run `go mod download`", module)
	}
	return dir, nil
}

// Apply applies manifests, which may be several documents of YAML, in their order,
// server-side and with force. A kind whose CustomResourceDefinition or a namespace which
// is on its way is waited for, and so is at the end that all CustomResourceDefinitions
// among them are served. Objects without a namespace go to default.
func Apply(ctx context.Context, config *rest.Config, manifests []byte) error {
	force := true
	return apply(ctx, config, manifests, metav1.PatchOptions{FieldManager: fieldManager, Force: &force})
}

// DryRun asks the API server whether it would take manifests, as `kubectl apply
// --dry-run=server` does; fields that it doesn't know are errors too.
func DryRun(ctx context.Context, config *rest.Config, manifests []byte) error {
	force := true
	return apply(ctx, config, manifests, metav1.PatchOptions{
		FieldManager: fieldManager, Force: &force, DryRun: []string{metav1.DryRunAll}, FieldValidation: metav1.FieldValidationStrict,
	})
}

func apply(ctx context.Context, config *rest.Config, manifests []byte, how metav1.PatchOptions) error {
	ctx, cancel := context.WithTimeout(ctx, applyTimeout)
	defer cancel()
	disco, err := discovery.NewDiscoveryClientForConfig(config)
	if err != nil {
		return err
	}
	client, err := dynamic.NewForConfig(config)
	if err != nil {
		return err
	}
	kinds := &mapper{disco: disco}
	var served []*unstructured.Unstructured
	docs := utilyaml.NewYAMLReader(bufio.NewReader(bytes.NewReader(manifests)))
	for {
		doc, err := docs.Read()
		if errors.Is(err, io.EOF) {
			break
		}
		if err != nil {
			return fmt.Errorf("read manifests: %w", err)
		}
		u := &unstructured.Unstructured{}
		if err := yaml.Unmarshal(doc, &u.Object); err != nil {
			return fmt.Errorf("read manifests: %w", err)
		}
		if len(u.Object) == 0 {
			continue
		}
		what := fmt.Sprintf("%s %s/%s", u.GetKind(), u.GetNamespace(), u.GetName())
		if err := await(ctx, what, 100*time.Millisecond, func(ctx context.Context) error {
			return applyOne(ctx, client, kinds, u, how)
		}); err != nil {
			return fmt.Errorf("apply %s: %w", what, err)
		}
		if u.GetKind() == "CustomResourceDefinition" && len(how.DryRun) == 0 {
			served = append(served, u)
		}
	}
	return await(ctx, "the new kinds to be served", 50*time.Millisecond, func(context.Context) error { return areServed(disco, served) })
}

// areServed says which resource of the CustomResourceDefinitions is not to be had yet.
func areServed(disco discovery.DiscoveryInterface, crds []*unstructured.Unstructured) error {
	known := map[string]*metav1.APIResourceList{}
	for _, crd := range crds {
		group, _, _ := unstructured.NestedString(crd.Object, "spec", "group")
		plural, _, _ := unstructured.NestedString(crd.Object, "spec", "names", "plural")
		versions, _, _ := unstructured.NestedSlice(crd.Object, "spec", "versions")
		for _, v := range versions {
			v, _ := v.(map[string]any)
			if v["served"] != true {
				continue
			}
			gv := fmt.Sprintf("%s/%v", group, v["name"])
			if known[gv] == nil {
				list, err := disco.ServerResourcesForGroupVersion(gv)
				if err != nil {
					return err
				}
				known[gv] = list
			}
			if !slices.ContainsFunc(known[gv].APIResources, func(r metav1.APIResource) bool { return r.Name == plural }) {
				return fmt.Errorf("%s has no %s yet", gv, plural)
			}
		}
	}
	return nil
}

func applyOne(ctx context.Context, client dynamic.Interface, kinds *mapper, u *unstructured.Unstructured, how metav1.PatchOptions) error {
	m, err := kinds.mapping(u.GroupVersionKind())
	if err != nil {
		return err
	}
	var to dynamic.ResourceInterface = client.Resource(m.Resource)
	if m.Scope.Name() == meta.RESTScopeNameNamespace {
		ns := u.GetNamespace()
		if ns == "" {
			ns = metav1.NamespaceDefault
		}
		to = client.Resource(m.Resource).Namespace(ns)
	}
	data, err := u.MarshalJSON()
	if err != nil {
		return err
	}
	_, err = to.Patch(ctx, u.GetName(), types.ApplyPatchType, data, how)
	if apierrors.IsInvalid(err) || apierrors.IsBadRequest(err) {
		return &terminal{err}
	}
	return err
}

// mapper finds the resources of kinds, and asks the API server again for one that it has not got.
type mapper struct {
	disco discovery.DiscoveryInterface
	known meta.RESTMapper
}

func (m *mapper) mapping(kind schema.GroupVersionKind) (*meta.RESTMapping, error) {
	if m.known != nil {
		if r, err := m.known.RESTMapping(kind.GroupKind(), kind.Version); err == nil {
			return r, nil
		}
	}
	groups, err := restmapper.GetAPIGroupResources(m.disco)
	if err != nil {
		return nil, err
	}
	m.known = restmapper.NewDiscoveryRESTMapper(groups)
	return m.known.RESTMapping(kind.GroupKind(), kind.Version)
}

// ApplyCRDs adds custom resource definitions to a cluster that runs.
func ApplyCRDs(ctx context.Context, config *rest.Config, c CRDs) error {
	manifests, err := c.manifests(ctx)
	if err != nil {
		return err
	}
	return Apply(ctx, config, manifests)
}
