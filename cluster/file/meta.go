package file

import (
	"encoding/json"
	"errors"
	"fmt"
	"regexp"
	"strings"

	apivalidation "k8s.io/apimachinery/pkg/api/validation"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
	"k8s.io/apimachinery/pkg/util/validation/field"
	kjson "sigs.k8s.io/json"
)

// meta reads and judges the object's metadata, with what only an API server
// sets left out.
func (d *document) meta(validName apivalidation.ValidateNameFunc) metav1.ObjectMeta {
	var om metav1.ObjectMeta
	raw, has := d.obj["metadata"]
	if _, isMap := raw.(map[string]any); has && !isMap && raw != nil {
		d.fail("metadata", "metadata: must be a mapping")
		return om
	}
	d.strict("metadata", raw, &om)
	d.settle(&om, validName)
	return om
}

// settle defaults and validates metadata that has been decoded.
func (d *document) settle(om *metav1.ObjectMeta, validName apivalidation.ValidateNameFunc) {
	om.ManagedFields, om.UID, om.ResourceVersion, om.Generation = nil, "", "", 0
	om.DeletionTimestamp, om.DeletionGracePeriodSeconds = nil, nil
	if len(d.problems) > 0 {
		return
	}
	if om.Name == "" {
		hint := ""
		if om.GenerateName != "" {
			hint = ": generateName makes a new object at each read, so it has no meaning in a file"
		}
		d.fail("metadata", "metadata.name: is missing%s", hint)
		return
	}
	if d.kind.namespaced && om.Namespace == "" {
		om.Namespace = metav1.NamespaceDefault
	}
	d.fails(apivalidation.ValidateObjectMeta(om, d.kind.namespaced, validName, field.NewPath("metadata")))
}

// strict decodes a part of the object as `kubectl apply` would: field names in
// their exact case, and none that the type doesn't have.
func (d *document) strict(at string, part, into any) {
	if part == nil {
		return
	}
	raw, err := json.Marshal(part)
	if err != nil {
		d.fail(at, "%v", err)
		return
	}
	unknown, err := kjson.UnmarshalStrict(raw, into, kjson.DisallowUnknownFields)
	if err != nil {
		path, why := explainDecode(err)
		path = joinPath(at, path)
		if path != "" {
			why = path + ": " + why
		}
		d.fail(path, "%s", why)
		return
	}
	for _, err := range unknown {
		path := at
		var f kjson.FieldError
		if errors.As(err, &f) {
			path = joinPath(at, f.FieldPath())
		}
		d.fail(path, "unknown field %q", path)
	}
}

func joinPath(a, b string) string {
	if a == "" || b == "" || strings.HasPrefix(b, "[") {
		return a + b
	}
	return a + "." + b
}

var (
	wrongField = regexp.MustCompile(`^json: cannot unmarshal (\S+).* into Go struct field (\w+)\.(\S+) of type (.*)$`)
	wrongValue = regexp.MustCompile(`^json: cannot unmarshal (\S+).* into Go value of type (.*)$`)
)

// explainDecode turns a decoder's error, which speaks of Go types, into words
// about the manifest. It never repeats the value, which may be secret.
func explainDecode(err error) (path, why string) {
	text := err.Error()
	if m := wrongField.FindStringSubmatch(text); m != nil {
		return m[3], fmt.Sprintf("must be %s, not %s", wanted(m[4]), given(m[1]))
	}
	if m := wrongValue.FindStringSubmatch(text); m != nil {
		return "", fmt.Sprintf("must be %s, not %s", wanted(m[2]), given(m[1]))
	}
	return "", strings.TrimPrefix(text, "json: ")
}

func given(jsonKind string) string {
	switch jsonKind {
	case "object":
		return "a mapping"
	case "array":
		return "a list"
	case "bool":
		return "a boolean (put it in quotes if it is text)"
	case "number":
		return "a number (put it in quotes if it is text, and leave decimals out if it is not)"
	case "string":
		return "text"
	}
	return jsonKind
}

func wanted(goType string) string {
	goType = strings.TrimLeft(goType, "*")
	switch {
	case goType == "string":
		return "text"
	case goType == "bool":
		return "true or false"
	case strings.HasPrefix(goType, "int"), strings.HasPrefix(goType, "uint"):
		return "an integer"
	case goType == "[]uint8":
		return "base64 text"
	case strings.HasPrefix(goType, "[]"):
		return "a list"
	case strings.HasPrefix(goType, "map["), strings.Contains(goType, "."):
		return "a mapping"
	}
	return goType
}

func groupOf(apiVersion string) string {
	group, _, ok := strings.Cut(apiVersion, "/")
	if !ok {
		return ""
	}
	return group
}
