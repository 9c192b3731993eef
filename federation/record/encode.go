package record

import (
	"fmt"
	"slices"
	"time"

	"google.golang.org/protobuf/proto"
	corev1 "k8s.io/api/core/v1"
	"k8s.io/apimachinery/pkg/util/intstr"
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

// EncodeTrust makes the record of a trust bundle.
func EncodeTrust(id cluster.ID, t Trust) (Record, error) {
	err := checkAuthorities(t.TrustDomain, t.Authorities)
	if err == nil {
		err = checkSealingKey(t.Sealing)
	}
	if err != nil {
		return Record{}, fmt.Errorf("trust bundle %q of cluster %q: %w", t.TrustDomain, id, err)
	}
	key, err := TrustKey(id, t.TrustDomain)
	return finish(key, err, &causewayv1.Trust{TrustDomain: t.TrustDomain, Authorities: t.Authorities, SealingKey: t.Sealing})
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
	service, err := document{Metadata: metadata{Generation: s.Generation}, Spec: &spec}.marshal(svc.Ref)
	if err != nil {
		return Record{}, err
	}
	export, err := document{Metadata: publicMeta(&e.ObjectMeta), Spec: &e.Spec}.marshal(exp.Ref)
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

// EncodeSlice makes the record of an EndpointSlice, with its Endpoints or its
// Counts, as it is.
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
	if c := s.Counts; c != nil {
		msg.Counts = &causewayv1.EndpointCounts{Ready: c.Ready, NotReady: c.NotReady, Leaving: c.Leaving}
	}
	key, err := SliceKey(o.Cluster, o.Namespace, s.Service, o.Name)
	return finish(key, err, msg)
}

// EncodeObject makes the record of an object of any other kind that crosses: a
// route, Gateway, ListenerSet, BackendTLSPolicy, ReferenceGrant or Namespace, or
// the CA certificates of a ConfigMap.
func EncodeObject(o *cluster.Object) (Record, error) {
	c, ok := codecs[o.Kind]
	if !ok {
		return Record{}, fmt.Errorf("%s has no record of its own: %w", o.Ref, ErrNotPublished)
	}
	d, err := c.encode(o.Value)
	if err != nil {
		return Record{}, fmt.Errorf("%s: %w", o.Ref, err)
	}
	doc, err := d.marshal(o.Ref)
	if err != nil {
		return Record{}, err
	}
	key, err := ObjectKey(o)
	return finish(key, err, &causewayv1.Object{
		Kind: string(o.Kind), Namespace: o.Namespace, Name: o.Name, Created: nanos(o.Seniority.Created), Json: doc,
	})
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
