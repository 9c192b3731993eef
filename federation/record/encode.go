package record

import (
	"encoding/json"
	"fmt"
	"slices"
	"time"

	"google.golang.org/protobuf/proto"
	corev1 "k8s.io/api/core/v1"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
	"k8s.io/apimachinery/pkg/util/intstr"
	gatewayv1 "sigs.k8s.io/gateway-api/apis/v1"
	gatewayv1beta1 "sigs.k8s.io/gateway-api/apis/v1beta1"
	mcsv1beta1 "sigs.k8s.io/mcs-api/pkg/apis/v1beta1"

	causewayv1 "github.com/causeway-mesh/causeway/api/causeway/v1"
	"github.com/causeway-mesh/causeway/cluster"
)

// Record is one key with its value.
type Record struct {
	Key   string
	Value []byte
}

// MaxValueBytes bounds a value; it fits into one transaction of the store.
const MaxValueBytes = 1 << 20

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
	Metadata metadata `json:"metadata"`
	Spec     any      `json:"spec,omitempty"`
}

// EncodeMeta makes the record of a cluster's Meta.
func EncodeMeta(id cluster.ID, m cluster.Meta) (Record, error) {
	m.Crossing = sortedSet(m.Crossing)
	if err := checkMeta(m); err != nil {
		return Record{}, fmt.Errorf("meta of cluster %q: %w", id, err)
	}
	key, err := MetaKey(id)
	return finish(key, err, &causewayv1.Meta{
		Cluster: string(id), Region: m.Region, Zone: m.Zone, Network: m.Network, TrustDomain: m.TrustDomain, Crossing: m.Crossing,
	})
}

// EncodeTrust makes the record of a trust bundle: X.509 authorities in DER.
func EncodeTrust(id cluster.ID, trustDomain string, authorities [][]byte) (Record, error) {
	if err := checkAuthorities(trustDomain, authorities); err != nil {
		return Record{}, fmt.Errorf("trust bundle %q of cluster %q: %w", trustDomain, id, err)
	}
	key, err := TrustKey(id, trustDomain)
	return finish(key, err, &causewayv1.Trust{TrustDomain: trustDomain, Authorities: authorities})
}

// EncodeAlive makes the record that an agent holds while it lives.
func EncodeAlive(id cluster.ID, agent string) (Record, error) {
	key, err := AliveKey(id, agent)
	return finish(key, err, &causewayv1.Alive{Agent: agent})
}

// Exportable tells why a Service may not be exported (KEP-1645), nil if it may.
func Exportable(svc *corev1.Service) error {
	if svc.Spec.Type == corev1.ServiceTypeExternalName {
		return fmt.Errorf("a Service of type ExternalName can't be exported: export the Service that it points to, or give it a selector")
	}
	return nil
}

// EncodeService makes the record of an exported Service.
func EncodeService(svc, exp *cluster.Object) (Record, error) {
	s, ok := svc.Value.(*corev1.Service)
	if !ok {
		return Record{}, fmt.Errorf("%s holds a %T", svc.Ref, svc.Value)
	}
	e, ok := exp.Value.(*mcsv1beta1.ServiceExport)
	if !ok {
		return Record{}, fmt.Errorf("%s holds a %T", exp.Ref, exp.Value)
	}
	if svc.Namespace != exp.Namespace || svc.Name != exp.Name || svc.Cluster != exp.Cluster {
		return Record{}, fmt.Errorf("%s of cluster %q is not the export of %s of cluster %q", exp.Ref, exp.Cluster, svc.Ref, svc.Cluster)
	}
	if err := Exportable(s); err != nil {
		return Record{}, fmt.Errorf("%s: %w", svc.Ref, err)
	}
	spec := publicService(&s.Spec)
	if err := checkService(&spec); err != nil {
		return Record{}, fmt.Errorf("%s: %w", svc.Ref, err)
	}
	if err := checkExport(&e.Spec); err != nil {
		return Record{}, fmt.Errorf("%s: %w", exp.Ref, err)
	}
	service, err := marshal(svc.Ref, metav1.ObjectMeta{Generation: s.Generation}, &spec)
	if err != nil {
		return Record{}, err
	}
	export, err := marshal(exp.Ref, e.ObjectMeta, &e.Spec)
	if err != nil {
		return Record{}, err
	}
	key, err := ServiceKey(svc.Cluster, svc.Namespace, svc.Name)
	return finish(key, err, &causewayv1.ExportedService{
		Namespace: svc.Namespace, Name: svc.Name,
		ServiceCreated: nanos(svc.Seniority.Created), ExportCreated: nanos(exp.Seniority.Created),
		Service: service, Export: export,
	})
}

// publicService keeps what the merge of exports and the choice of endpoints
// read (KEP-1645); addresses, node ports and the selector mean nothing elsewhere.
func publicService(s *corev1.ServiceSpec) corev1.ServiceSpec {
	out := corev1.ServiceSpec{
		Type: s.Type, SessionAffinity: s.SessionAffinity, SessionAffinityConfig: s.SessionAffinityConfig,
		InternalTrafficPolicy: s.InternalTrafficPolicy, TrafficDistribution: s.TrafficDistribution,
		IPFamilies: s.IPFamilies, IPFamilyPolicy: s.IPFamilyPolicy, PublishNotReadyAddresses: s.PublishNotReadyAddresses,
	}
	if s.ClusterIP == corev1.ClusterIPNone {
		out.ClusterIP = corev1.ClusterIPNone
	}
	for _, p := range s.Ports {
		out.Ports = append(out.Ports, corev1.ServicePort{Name: p.Name, Protocol: p.Protocol, AppProtocol: p.AppProtocol, Port: p.Port, TargetPort: intstr.IntOrString{}})
	}
	return out
}

// EncodeSlice makes the record of an EndpointSlice.
func EncodeSlice(o *cluster.Object) (Record, error) {
	s, ok := o.Value.(*cluster.EndpointSlice)
	if !ok {
		return Record{}, fmt.Errorf("%s holds a %T", o.Ref, o.Value)
	}
	if err := checkSlice(s); err != nil {
		return Record{}, fmt.Errorf("%s: %w", o.Ref, err)
	}
	msg := &causewayv1.EndpointSlice{Namespace: o.Namespace, Name: o.Name, Service: s.Service}
	for _, p := range s.Ports {
		msg.Ports = append(msg.Ports, &causewayv1.EndpointPort{Name: p.Name, Port: uint32(p.Port), Protocol: p.Protocol, AppProtocol: p.AppProtocol})
	}
	for i := range s.Endpoints {
		e := &s.Endpoints[i]
		msg.Endpoints = append(msg.Endpoints, &causewayv1.Endpoint{
			Address: e.Addr.AsSlice(), Pod: e.Pod, Hostname: e.Hostname, Zone: e.Zone,
			Ready: e.Ready, Serving: e.Serving, Terminating: e.Terminating,
		})
	}
	key, err := SliceKey(o.Cluster, o.Namespace, s.Service, o.Name)
	return finish(key, err, msg)
}

// EncodeObject makes the record of an HTTPRoute, Gateway, ReferenceGrant or
// Namespace; other kinds are an error.
func EncodeObject(o *cluster.Object) (Record, error) {
	var om metav1.ObjectMeta
	var spec any
	var err error
	switch v := o.Value.(type) {
	case *gatewayv1.HTTPRoute:
		om, spec, err = v.ObjectMeta, &v.Spec, checkHTTPRoute(&v.Spec)
	case *gatewayv1.Gateway:
		om, spec, err = v.ObjectMeta, &v.Spec, checkGateway(&v.Spec)
	case *gatewayv1beta1.ReferenceGrant:
		om, spec, err = v.ObjectMeta, &v.Spec, checkBounds(&v.Spec)
	case *corev1.Namespace:
		om = metav1.ObjectMeta{Labels: v.Labels}
	default:
		err = fmt.Errorf("holds a %T, which has no record", o.Value)
	}
	if err != nil {
		return Record{}, fmt.Errorf("%s: %w", o.Ref, err)
	}
	doc, err := marshal(o.Ref, om, spec)
	if err != nil {
		return Record{}, err
	}
	key, err := ObjectKey(o)
	return finish(key, err, &causewayv1.Object{
		Kind: string(o.Kind), Namespace: o.Namespace, Name: o.Name, Created: nanos(o.Seniority.Created), Json: doc,
	})
}

func marshal(ref cluster.Ref, om metav1.ObjectMeta, spec any) ([]byte, error) {
	md := metadata{Name: ref.Name, Namespace: ref.Namespace, Labels: om.Labels, Generation: om.Generation}
	for k, v := range om.Annotations {
		if k == corev1.LastAppliedConfigAnnotation {
			continue
		}
		if md.Annotations == nil {
			md.Annotations = make(map[string]string, len(om.Annotations))
		}
		md.Annotations[k] = v
	}
	if err := checkMetadata(md.Labels, md.Annotations); err != nil {
		return nil, fmt.Errorf("%s: %w", ref, err)
	}
	b, err := json.Marshal(document{Metadata: md, Spec: spec})
	if err != nil {
		return nil, fmt.Errorf("%s: %w", ref, err)
	}
	return b, nil
}

func finish(key string, err error, msg proto.Message) (Record, error) {
	if err != nil {
		return Record{}, err
	}
	value, err := proto.MarshalOptions{Deterministic: true}.Marshal(msg)
	if err != nil {
		return Record{}, fmt.Errorf("record %s: %w", key, err)
	}
	if len(value) > MaxValueBytes {
		return Record{}, fmt.Errorf("record %s has %d bytes, at most %d can be published: shorten the object, its annotations first", key, len(value), MaxValueBytes)
	}
	return Record{Key: key, Value: value}, nil
}

// nanos is 0 for the zero time, and for times that int64 can't hold.
func nanos(t time.Time) int64 {
	if t.Year() < 1678 || t.Year() > 2261 {
		return 0
	}
	return t.UnixNano()
}

func sortedSet(in []string) []string {
	out := slices.Clone(in)
	slices.Sort(out)
	return slices.Compact(out)
}
