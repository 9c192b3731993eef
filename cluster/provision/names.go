package provision

import (
	"crypto/sha256"
	"encoding/base32"
	"fmt"
	"slices"
	"strings"

	corev1 "k8s.io/api/core/v1"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"

	"github.com/causeway-mesh/causeway/cluster/kubernetes"
)

// How our objects are known, beside kubernetes.LabelDerived.
const (
	// LabelManagedBy is on everything that we make.
	LabelManagedBy = "app.kubernetes.io/managed-by"
	// Manager is its value, whom endpointslice.kubernetes.io/managed-by names, and whom
	// the API server's managed fields do.
	Manager = "causeway.dev"
	// AnnotationExported, on a ServiceImport, is a hash of the exported labels and
	// annotations that it was given: they are taken away again when they aren't exported
	// any more, and others' are left alone.
	AnnotationExported = "causeway.dev/exported"

	derived = "true" // the value of kubernetes.LabelDerived
)

// ours reports whether we made an object.
func ours(o metav1.Object) bool { return o.GetLabels()[LabelManagedBy] == Manager }

// oursDerived reports whether we derived a Service or EndpointSlice.
func oursDerived(o metav1.Object) bool {
	return ours(o) && o.GetLabels()[kubernetes.LabelDerived] != ""
}

// ServiceName is the name of the derived Service of an import: "causeway-" and a hash
// of namespace and name, always the same. It is in the import's namespace.
func ServiceName(n Name) string { return "causeway-" + hash(10, n.Namespace, n.Name) }

// hash is made of some text and fit for names: letters and digits.
func hash(length int, parts ...string) string {
	sum := sha256.Sum256([]byte(strings.Join(parts, "\x00")))
	return strings.ToLower(base32.StdEncoding.EncodeToString(sum[:]))[:length]
}

// named gives every port a name of its own where there are several, as a Service
// asks: one without (an export of a single port, united with others) gets its
// protocol and number.
func named(in []Port) []Port {
	out := slices.Clone(in)
	if len(out) < 2 {
		return out
	}
	for i := range out {
		if out[i].Name != "" {
			continue
		}
		name := fmt.Sprintf("%s-%d", strings.ToLower(string(out[i].Protocol)), out[i].Number)
		for slices.ContainsFunc(out, func(p Port) bool { return p.Name == name }) {
			name += "-x"
		}
		out[i].Name = name
	}
	return out
}

// plainPort reports whether crossing gateways can take the port's clients.
func plainPort(p Port) bool {
	return p.Protocol == corev1.ProtocolTCP || p.Protocol == corev1.ProtocolUDP
}

func compareNames(a, b Name) int { return strings.Compare(a.String(), b.String()) }
