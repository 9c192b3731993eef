package file

import (
	"context"
	"encoding/json"
	"fmt"
	"reflect"
	"sync"

	"k8s.io/apiextensions-apiserver/pkg/apis/apiextensions"
	apiextensionsv1 "k8s.io/apiextensions-apiserver/pkg/apis/apiextensions/v1"
	"k8s.io/apiextensions-apiserver/pkg/apiserver/schema"
	"k8s.io/apiextensions-apiserver/pkg/apiserver/schema/cel"
	"k8s.io/apiextensions-apiserver/pkg/apiserver/schema/defaulting"
	"k8s.io/apiextensions-apiserver/pkg/apiserver/schema/listtype"
	"k8s.io/apiextensions-apiserver/pkg/apiserver/schema/pruning"
	"k8s.io/apiextensions-apiserver/pkg/apiserver/validation"
	celconfig "k8s.io/apiserver/pkg/apis/cel"
	mcscrd "sigs.k8s.io/mcs-api/config/crd"
	"sigs.k8s.io/yaml"

	"github.com/causeway-mesh/causeway/cluster/file/crds"
)

// Schemas judges objects of the Gateway API and of Multi-Cluster Services as an
// API server with their CustomResourceDefinitions would: unknown fields,
// defaults, types, list keys and CEL rules. A kind's schema is compiled when its first object
// is read. All methods may be called from any goroutine, so the sources of one
// process can share one.
type Schemas struct {
	mu    sync.Mutex
	kinds map[string]*kindSchema // by plural, "/", version
}

// NewSchemas compiles nothing yet.
func NewSchemas() *Schemas {
	return &Schemas{kinds: map[string]*kindSchema{}}
}

// kindSchema is compiled and immutable.
type kindSchema struct {
	source     *apiextensionsv1.JSONSchemaProps
	structural *schema.Structural
	openAPI    validation.SchemaValidator
	rules      *cel.Validator
}

// of gives the schema of one version of a kind.
func (s *Schemas) of(plural, version string) (*kindSchema, error) {
	s.mu.Lock()
	defer s.mu.Unlock()
	if k, ok := s.kinds[plural+"/"+version]; ok {
		return k, nil
	}
	crd, err := load(plural)
	if err != nil {
		return nil, fmt.Errorf("schema of %s: %w", plural, err)
	}
	for _, v := range crd.Spec.Versions {
		if v.Name != version || !v.Served || v.Schema == nil {
			continue
		}
		k, err := s.compile(plural, v.Schema.OpenAPIV3Schema)
		if err != nil {
			return nil, fmt.Errorf("schema of %s %s: %w", plural, version, err)
		}
		s.kinds[plural+"/"+version] = k
		return k, nil
	}
	return nil, fmt.Errorf("schema of %s: version %s is not served", plural, version)
}

func load(plural string) (*apiextensionsv1.CustomResourceDefinition, error) {
	var crd apiextensionsv1.CustomResourceDefinition
	if plural == "serviceexports" {
		if err := yaml.Unmarshal(mcscrd.ServiceExportCRD, &crd); err != nil {
			return nil, fmt.Errorf("parse the embedded definition: %w", err)
		}
		return &crd, nil
	}
	data, err := crds.Files.ReadFile(plural + ".json")
	if err != nil {
		return nil, err
	}
	if err := json.Unmarshal(data, &crd); err != nil {
		return nil, fmt.Errorf("parse the embedded definition: %w", err)
	}
	return &crd, nil
}

// compile reuses what another version with the same schema has compiled, since
// the versions of a kind rarely differ and rules are dear to compile.
func (s *Schemas) compile(plural string, source *apiextensionsv1.JSONSchemaProps) (*kindSchema, error) {
	for key, k := range s.kinds {
		if len(key) > len(plural) && key[:len(plural)+1] == plural+"/" && reflect.DeepEqual(k.source, source) {
			return k, nil
		}
	}
	var internal apiextensions.JSONSchemaProps
	if err := apiextensionsv1.Convert_v1_JSONSchemaProps_To_apiextensions_JSONSchemaProps(source, &internal, nil); err != nil {
		return nil, err
	}
	structural, err := schema.NewStructural(&internal)
	if err != nil {
		return nil, err
	}
	openAPI, _, err := validation.NewSchemaValidator(&internal)
	if err != nil {
		return nil, err
	}
	return &kindSchema{
		source:     source,
		structural: structural,
		openAPI:    openAPI,
		rules:      cel.NewValidator(structural, true, celconfig.PerCallLimit),
	}, nil
}

// admit defaults the document's object in place and reports what an API server
// would refuse.
func (k *kindSchema) admit(d *document) {
	unknown := pruning.PruneWithOptions(d.obj, k.structural, true, schema.UnknownFieldPathOptions{TrackUnknownFieldPaths: true})
	for i, path := range unknown {
		if i == maxProblemsPerObject {
			break // no more are kept, and hints take time
		}
		hint := ""
		if near := nearField(k.structural, path); near != "" {
			hint = fmt.Sprintf("; did you mean %q?", near)
		}
		d.fail(path, "unknown field %q%s", path, hint)
	}
	// Its own controller writes the status; an API server drops what a manifest says.
	delete(d.obj, "status")
	if len(d.problems) > 0 {
		return
	}
	defaulting.PruneNonNullableNullsWithoutDefaults(d.obj, k.structural)
	defaulting.Default(d.obj, k.structural)
	d.fails(validation.ValidateCustomResource(nil, d.obj, k.openAPI))
	d.fails(listtype.ValidateListSetsAndMaps(nil, k.structural, d.obj))
	if len(d.problems) > 0 {
		return // the rules assume an object of the right types
	}
	errs, _ := k.rules.Validate(context.Background(), nil, k.structural, d.obj, nil, celconfig.RuntimeCELCostBudget)
	d.fails(errs)
}
