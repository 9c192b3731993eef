package file

import (
	"cmp"
	"fmt"
	"slices"
	"strings"
	"time"
	"unicode/utf8"

	"go.yaml.in/yaml/v3"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
	"k8s.io/apimachinery/pkg/util/validation"
	"k8s.io/apimachinery/pkg/util/validation/field"

	"github.com/causeway-mesh/causeway/cluster"
)

// maxProblemsPerObject keeps one broken object from filling the list.
const maxProblemsPerObject = 10

// parsed is one object as a document gave it. Immutable.
type parsed struct {
	ref     cluster.Ref
	value   any
	created time.Time // zero unless the manifest gives it
	line    int
}

// problem is a cluster.Problem whose file isn't known yet.
type problem struct {
	line    int
	object  string
	message string
}

// content is what a file says. Immutable.
type content struct {
	objects  []*parsed
	problems []problem
	// broken names the objects whose documents are wrong; lost is set when a
	// document is so wrong that its object can't even be named.
	broken map[cluster.Ref]bool
	lost   bool
	// meta is what cluster.yaml says; nil for any other file.
	meta *cluster.Meta
}

// reader turns bytes into objects. It does no I/O.
type reader struct {
	schemas    *Schemas
	maxObjects int
}

// file reads one manifest file.
func (r *reader) file(name string, data []byte) content {
	c := content{broken: map[cluster.Ref]bool{}}
	var roots []*yaml.Node
	if strings.HasSuffix(strings.ToLower(name), ".json") {
		roots, c.problems = parseJSON(data)
	} else {
		roots, c.problems = parseYAML(data)
	}
	c.lost = len(c.problems) > 0
	if name == metaFile {
		r.meta(roots, &c)
		return c
	}
	for _, root := range roots {
		if len(c.problems) >= maxProblems {
			c.lost = true // the rest is not even looked at
			break
		}
		r.root(root, "", "", &c)
	}
	return c
}

// meta reads cluster.yaml.
func (r *reader) meta(roots []*yaml.Node, c *content) {
	meta := &cluster.Meta{}
	for i, root := range roots {
		v, problems := convert(root)
		d := &document{node: root, line: root.Line, problems: problems}
		obj, isMap := v.(map[string]any)
		switch {
		case problems != nil || v == nil:
		case i > 0:
			d.fail("", "%s holds one document only", metaFile)
		case !isMap:
			d.fail("", "%s must be a mapping with region, zone and network", metaFile)
		case stringAt(obj, "apiVersion") != "":
			d.fail("apiVersion", "%s at the top of a cluster's folder holds region, zone and network, not a manifest: rename the file", metaFile)
		default:
			var keys struct {
				Region  string `json:"region"`
				Zone    string `json:"zone"`
				Network string `json:"network"`
			}
			d.strict("", obj, &keys)
			for key, value := range map[string]string{"region": keys.Region, "zone": keys.Zone, "network": keys.Network} {
				for _, why := range validation.IsValidLabelValue(value) {
					d.fail(key, "%s: %s", key, why)
				}
			}
			meta.Region, meta.Zone, meta.Network = keys.Region, keys.Zone, keys.Network
		}
		c.problems = append(c.problems, d.problems...)
	}
	if c.lost = len(c.problems) > 0; !c.lost {
		c.meta = meta
	}
}

// root reads one document, or one item of a list whose kinds are the default.
func (r *reader) root(root *yaml.Node, apiVersion, kind string, c *content) {
	if len(c.objects)+len(c.broken) > r.maxObjects {
		return // the folder's own bound reports it
	}
	v, problems := convert(root)
	if v == nil && problems == nil {
		return // a document of comments
	}
	d := &document{node: root, line: root.Line, problems: problems}
	obj, isMap := v.(map[string]any)
	if problems != nil {
		// The object's name is still wanted, to keep its last good state.
		obj = identity(root)
	} else if !isMap {
		d.fail("", "a manifest must be a mapping with apiVersion, kind and metadata")
	}
	if obj != nil {
		if apiVersion != "" {
			defaultTo(obj, "apiVersion", apiVersion)
			defaultTo(obj, "kind", kind)
		}
		if problems == nil && strings.HasSuffix(stringAt(obj, "kind"), "List") && obj["items"] != nil {
			r.list(d, obj, c)
			c.problems = append(c.problems, d.problems...)
			c.lost = c.lost || len(d.problems) > 0
			return
		}
		d.obj = obj
		r.object(d)
	}
	for i := range d.problems {
		// Those of the conversion were found before the name was.
		d.problems[i].object = d.name()
	}
	c.problems = append(c.problems, d.problems...)
	switch {
	case len(d.problems) > 0 && d.ref.Name != "" && d.ref.Kind != "":
		c.broken[d.ref] = true
	case len(d.problems) > 0:
		c.lost = true
	case d.out != nil:
		c.objects = append(c.objects, d.out)
	}
}

// list reads the items of a List, or of a list of one kind.
func (r *reader) list(d *document, obj map[string]any, c *content) {
	apiVersion, kind := stringAt(obj, "apiVersion"), strings.TrimSuffix(stringAt(obj, "kind"), "List")
	if kind == "" {
		apiVersion = "" // a plain List: its items say what they are
	}
	_, items := child(d.node, "items")
	if items == nil || items.Kind != yaml.SequenceNode {
		d.fail("items", "items must be a list")
		return
	}
	for _, item := range items.Content {
		for item.Kind == yaml.AliasNode {
			item = item.Alias
		}
		r.root(item, apiVersion, kind, c)
	}
}

// object finds out what the document is about and reads it.
func (r *reader) object(d *document) {
	apiVersion, kind := stringAt(d.obj, "apiVersion"), stringAt(d.obj, "kind")
	if apiVersion == "" || kind == "" {
		if len(d.problems) == 0 {
			d.fail("", "apiVersion and kind are missing: is this a Kubernetes manifest?")
		}
		return
	}
	group, version, ok := strings.Cut(apiVersion, "/")
	if !ok {
		group, version = "", apiVersion
	}
	k, known := kinds[groupKind{group, kind}]
	meta, _ := d.obj["metadata"].(map[string]any)
	d.ref = cluster.Ref{Kind: cluster.Kind(kind), Namespace: stringAt(meta, "namespace"), Name: stringAt(meta, "name")}
	switch {
	case known && !k.namespaced:
		d.ref.Namespace = ""
	case known && d.ref.Namespace == "":
		d.ref.Namespace = metav1.NamespaceDefault
	}
	switch {
	case len(d.problems) > 0:
		return
	case !known:
		if why := unhandled(group, kind); why != "" {
			d.fail("kind", "%s", why)
		}
		return
	case !slices.Contains(k.versions, version):
		d.fail("apiVersion", "%s %s is not served: use %s", kind, apiVersion, joinVersions(group, k.versions))
		return
	}
	d.version, d.kind = version, k
	value, om := k.read(r, d)
	if len(d.problems) > 0 {
		return
	}
	d.out = &parsed{ref: d.ref, value: value, created: om.CreationTimestamp.UTC(), line: d.line}
	if om.CreationTimestamp.IsZero() {
		d.out.created = time.Time{}
	}
}

// document is one object while it is read.
type document struct {
	node     *yaml.Node
	line     int
	obj      map[string]any
	version  string
	kind     kindReader
	ref      cluster.Ref
	problems []problem
	out      *parsed
}

// fail adds a problem at a field; the path may be empty.
func (d *document) fail(path, format string, args ...any) {
	if len(d.problems) >= maxProblemsPerObject {
		return
	}
	d.problems = append(d.problems, problem{line: lineOf(d.node, path), object: d.name(), message: clip(fmt.Sprintf(format, args...))})
}

// fails adds the problems that upstream's validation found.
func (d *document) fails(errs field.ErrorList) {
	// Validation goes through maps in any order; the list must not tell.
	slices.SortStableFunc(errs, func(a, b *field.Error) int {
		return cmp.Or(cmp.Compare(a.Field, b.Field), cmp.Compare(a.Detail, b.Detail))
	})
	for _, e := range errs {
		path := e.Field
		if path == "<nil>" {
			path = ""
		}
		body := e.ErrorBody()
		// Rules in CEL give the type in place of the value, which tells nothing.
		if e.Type == field.ErrorTypeInvalid && e.Detail != "" && (e.BadValue == "object" || e.BadValue == "array" || e.BadValue == "string" || e.BadValue == "integer") {
			body = e.Detail
		}
		if path != "" {
			body = path + ": " + body
		}
		d.fail(path, "%s", body)
	}
}

func (d *document) name() string {
	if d.ref.Kind == "" || d.ref.Name == "" {
		return ""
	}
	return d.ref.String()
}

// identity reads apiVersion, kind and metadata's name and namespace from a
// document that can't be converted as a whole; nil if it is no mapping.
func identity(root *yaml.Node) map[string]any {
	if root.Kind != yaml.MappingNode {
		return nil
	}
	text := func(n *yaml.Node, key string) string {
		if _, v := child(n, key); v != nil && v.Kind == yaml.ScalarNode {
			return v.Value
		}
		return ""
	}
	obj := map[string]any{"apiVersion": text(root, "apiVersion"), "kind": text(root, "kind")}
	if _, meta := child(root, "metadata"); meta != nil {
		obj["metadata"] = map[string]any{"name": text(meta, "name"), "namespace": text(meta, "namespace")}
	}
	return obj
}

func child(n *yaml.Node, key string) (k, v *yaml.Node) {
	if n.Kind == yaml.MappingNode {
		for i := 0; i+1 < len(n.Content); i += 2 {
			if n.Content[i].Value == key {
				return n.Content[i], n.Content[i+1]
			}
		}
	}
	return nil, nil
}

func stringAt(m map[string]any, key string) string {
	s, _ := m[key].(string)
	return s
}

func defaultTo(m map[string]any, key, value string) {
	if stringAt(m, key) == "" {
		m[key] = value
	}
}

func joinVersions(group string, versions []string) string {
	full := make([]string, 0, len(versions))
	for _, v := range versions {
		if group != "" {
			v = group + "/" + v
		}
		full = append(full, v)
	}
	return strings.Join(full, " or ")
}

// clip bounds a message, since messages quote what people wrote.
func clip(s string) string {
	const most = 500
	if len(s) <= most {
		return s
	}
	s = s[:most]
	for len(s) > 0 && !utf8.ValidString(s[len(s)-1:]) {
		s = s[:len(s)-1]
	}
	return s + "..."
}
