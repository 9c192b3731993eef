package record

import (
	"encoding/json"
	"fmt"
	"reflect"
	"strings"

	corev1 "k8s.io/api/core/v1"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
	kjson "k8s.io/apimachinery/pkg/util/json"
	gatewayv1 "sigs.k8s.io/gateway-api/apis/v1"
	gatewayv1beta1 "sigs.k8s.io/gateway-api/apis/v1beta1"

	"github.com/causeway-mesh/causeway/cluster"
	"github.com/causeway-mesh/causeway/federation/store"
)

// codec turns the objects of one kind into a document and back. Both ways apply
// the same checks and keep the same fields.
type codec struct {
	section store.Section
	encode  func(value any) (document, error)
	decode  func(data []byte, ref cluster.Ref) (any, error)
}

// codecs are those of the kinds that cross as an Object.
var codecs = map[cluster.Kind]codec{
	cluster.KindHTTPRoute: custom(store.SectionRoutes, func(v *gatewayv1.HTTPRoute) parts[gatewayv1.HTTPRouteSpec] {
		return parts[gatewayv1.HTTPRouteSpec]{&v.TypeMeta, &v.ObjectMeta, &v.Spec, &v.Status}
	}, gatewayVersion, checkHTTPRoute),
	cluster.KindGRPCRoute: custom(store.SectionRoutes, func(v *gatewayv1.GRPCRoute) parts[gatewayv1.GRPCRouteSpec] {
		return parts[gatewayv1.GRPCRouteSpec]{&v.TypeMeta, &v.ObjectMeta, &v.Spec, &v.Status}
	}, gatewayVersion, checkGRPCRoute),
	cluster.KindTLSRoute: custom(store.SectionRoutes, func(v *gatewayv1.TLSRoute) parts[gatewayv1.TLSRouteSpec] {
		return parts[gatewayv1.TLSRouteSpec]{&v.TypeMeta, &v.ObjectMeta, &v.Spec, &v.Status}
	}, gatewayVersion, checkTLSRoute),
	cluster.KindTCPRoute: custom(store.SectionRoutes, func(v *gatewayv1.TCPRoute) parts[gatewayv1.TCPRouteSpec] {
		return parts[gatewayv1.TCPRouteSpec]{&v.TypeMeta, &v.ObjectMeta, &v.Spec, &v.Status}
	}, gatewayVersion, checkTCPRoute),
	cluster.KindUDPRoute: custom(store.SectionRoutes, func(v *gatewayv1.UDPRoute) parts[gatewayv1.UDPRouteSpec] {
		return parts[gatewayv1.UDPRouteSpec]{&v.TypeMeta, &v.ObjectMeta, &v.Spec, &v.Status}
	}, gatewayVersion, checkUDPRoute),
	cluster.KindGateway: custom(store.SectionGateways, func(v *gatewayv1.Gateway) parts[gatewayv1.GatewaySpec] {
		return parts[gatewayv1.GatewaySpec]{&v.TypeMeta, &v.ObjectMeta, &v.Spec, &v.Status}
	}, gatewayVersion, checkGateway),
	cluster.KindListenerSet: custom(store.SectionGateways, func(v *gatewayv1.ListenerSet) parts[gatewayv1.ListenerSetSpec] {
		return parts[gatewayv1.ListenerSetSpec]{&v.TypeMeta, &v.ObjectMeta, &v.Spec, &v.Status}
	}, gatewayVersion, checkListenerSet),
	cluster.KindBackendTLSPolicy: custom(store.SectionPolicies, func(v *gatewayv1.BackendTLSPolicy) parts[gatewayv1.BackendTLSPolicySpec] {
		return parts[gatewayv1.BackendTLSPolicySpec]{&v.TypeMeta, &v.ObjectMeta, &v.Spec, &v.Status}
	}, gatewayVersion, checkBackendTLSPolicy),
	cluster.KindReferenceGrant: custom(store.SectionGrants, func(v *gatewayv1beta1.ReferenceGrant) parts[gatewayv1beta1.ReferenceGrantSpec] {
		return parts[gatewayv1beta1.ReferenceGrantSpec]{&v.TypeMeta, &v.ObjectMeta, &v.Spec, nil}
	}, gatewayv1beta1.GroupVersion.String(), checkReferenceGrant),
	cluster.KindConfigMap:  {store.SectionPolicies, encodeConfigMap, decodeConfigMap},
	cluster.KindNamespace:  {store.SectionNamespaces, encodeNamespace, decodeNamespace},
	cluster.KindGatewayRun: {store.SectionRuns, encodeRun, decodeRun},
}

var gatewayVersion = gatewayv1.GroupVersion.String()

// parts are the fields that all objects have in common; status is nil where the
// kind has none.
type parts[S any] struct {
	tm     *metav1.TypeMeta
	om     *metav1.ObjectMeta
	spec   *S
	status any
}

// custom makes the codec of a kind of which metadata and spec cross.
func custom[T, S any](section store.Section, of func(*T) parts[S], apiVersion string, check func(*S) error) codec {
	return codec{section,
		func(value any) (document, error) {
			v, ok := value.(*T)
			if !ok {
				return document{}, fmt.Errorf("holds a %T", value)
			}
			p := of(v)
			return document{Metadata: publicMeta(p.om), Spec: p.spec}, check(p.spec)
		},
		func(data []byte, ref cluster.Ref) (any, error) {
			v := new(T)
			p := of(v)
			if err := unmarshal(data, ref, v, p.om, p.status); err != nil {
				return nil, err
			}
			*p.tm = typeMeta(apiVersion, ref.Kind)
			return v, check(p.spec)
		},
	}
}

func encodeNamespace(value any) (document, error) {
	v, ok := value.(*corev1.Namespace)
	if !ok {
		return document{}, fmt.Errorf("holds a %T", value)
	}
	return document{Metadata: metadata{Labels: v.Labels}}, nil
}

func decodeNamespace(data []byte, ref cluster.Ref) (any, error) {
	var v corev1.Namespace
	if err := unmarshal(data, ref, &v, &v.ObjectMeta, nil); err != nil {
		return nil, err
	}
	return &corev1.Namespace{TypeMeta: typeMeta("v1", ref.Kind), ObjectMeta: metav1.ObjectMeta{Name: v.Name, Labels: v.Labels}}, nil
}

// CAKey is the one key of a ConfigMap that crosses: the certificates by which a
// BackendTLSPolicy judges backends.
const CAKey = "ca.crt"

func encodeConfigMap(value any) (document, error) {
	v, ok := value.(*corev1.ConfigMap)
	if !ok {
		return document{}, fmt.Errorf("holds a %T", value)
	}
	return document{Data: map[string]string{CAKey: certificates(v)}}, checkCA(v)
}

func decodeConfigMap(data []byte, ref cluster.Ref) (any, error) {
	var v corev1.ConfigMap
	if err := unmarshal(data, ref, &v, &v.ObjectMeta, nil); err != nil {
		return nil, err
	}
	// An older or a hostile writer may say more than crosses.
	out := &corev1.ConfigMap{TypeMeta: typeMeta("v1", ref.Kind), ObjectMeta: metav1.ObjectMeta{Namespace: v.Namespace, Name: v.Name},
		Data: map[string]string{CAKey: certificates(&v)}}
	return out, checkCA(&v)
}

// metadata is what crosses of an object's ObjectMeta. The creationTimestamp is
// a field of the record, where it keeps its full precision.
type metadata struct {
	Name        string            `json:"name"`
	Namespace   string            `json:"namespace,omitempty"`
	Labels      map[string]string `json:"labels,omitempty"`
	Annotations map[string]string `json:"annotations,omitempty"`
	Generation  int64             `json:"generation,omitempty"`
}

type document struct {
	Metadata metadata          `json:"metadata"`
	Spec     any               `json:"spec,omitempty"`
	Data     map[string]string `json:"data,omitempty"`
}

// publicMeta leaves out kubectl's copy of the whole object.
func publicMeta(om *metav1.ObjectMeta) metadata {
	md := metadata{Labels: om.Labels, Generation: om.Generation}
	for k, v := range om.Annotations {
		if k == corev1.LastAppliedConfigAnnotation {
			continue
		}
		if md.Annotations == nil {
			md.Annotations = make(map[string]string, len(om.Annotations))
		}
		md.Annotations[k] = v
	}
	return md
}

func (d document) marshal(ref cluster.Ref) ([]byte, error) {
	d.Metadata.Name, d.Metadata.Namespace = ref.Name, ref.Namespace
	if err := checkMetadata(d.Metadata.Labels, d.Metadata.Annotations); err != nil {
		return nil, fmt.Errorf("%s: %w", ref, err)
	}
	b, err := json.Marshal(d)
	if err != nil {
		return nil, fmt.Errorf("%s: %w", ref, err)
	}
	return b, nil
}

// unmarshal reads an object's JSON and reduces it to what crosses. om and
// status point into the object; status may be nil.
func unmarshal(data []byte, ref cluster.Ref, into any, om *metav1.ObjectMeta, status any) error {
	if err := kjson.Unmarshal(data, into); err != nil {
		return fmt.Errorf("JSON of %s: %w", ref, err)
	}
	if err := sameName(ref, ref.Kind, om.Namespace, om.Name); err != nil {
		return err
	}
	if err := checkMetadata(om.Labels, om.Annotations); err != nil {
		return fmt.Errorf("%s: %w", ref, err)
	}
	*om = metav1.ObjectMeta{Name: om.Name, Namespace: om.Namespace, Labels: om.Labels, Annotations: om.Annotations, Generation: om.Generation}
	if status != nil {
		reflect.ValueOf(status).Elem().SetZero()
	}
	return nil
}

func typeMeta(apiVersion string, kind cluster.Kind) metav1.TypeMeta {
	return metav1.TypeMeta{APIVersion: apiVersion, Kind: string(kind)}
}

// keyName is how keys of sections with several kinds spell a kind.
func keyName(kind cluster.Kind) string { return strings.ToLower(string(kind)) }

// keyKinds finds the kind that a key's first name means in its section.
var keyKinds = func() map[store.Section]map[string]cluster.Kind {
	out := map[store.Section]map[string]cluster.Kind{}
	for kind, c := range codecs {
		if out[c.section] == nil {
			out[c.section] = map[string]cluster.Kind{}
		}
		out[c.section][keyName(kind)] = kind
	}
	return out
}()
