package record

import (
	"fmt"
	"net/netip"
	"time"

	"google.golang.org/protobuf/proto"
	corev1 "k8s.io/api/core/v1"
	mcsv1beta1 "sigs.k8s.io/mcs-api/pkg/apis/v1beta1"

	causewayv1 "github.com/causeway-mesh/causeway/api/causeway/v1"
	"github.com/causeway-mesh/causeway/cluster"
	"github.com/causeway-mesh/causeway/federation/store"
)

// Content is what one record says. Exactly one of Meta, Trust, Agent and
// Objects is set. All of it belongs to the caller and aliases nothing of the
// store's, save the bytes of a Trust.
type Content struct {
	Cluster cluster.ID // from the key
	Meta    *cluster.Meta
	Trust   *Trust
	Agent   string // holder of a liveness key
	// Objects are one, or a Service and its ServiceExport.
	Objects []*cluster.Object
}

// Trust is a trust bundle.
type Trust struct {
	TrustDomain string
	Authorities [][]byte // X.509, DER; shared with the store's value: never modified
	// Sealing is the public key to which others seal what is for this cluster alone; empty:
	// there is none.
	Sealing []byte
}

// Decode reads a record that another cluster wrote. The error is an *Error.
func Decode(kv store.KV) (Content, error) {
	k, err := store.ParseKey(kv.Key)
	if err != nil {
		return Content{}, keyError(kv, store.Key{}, err)
	}
	refs, err := Refs(k)
	if err != nil {
		return Content{}, keyError(kv, k, err)
	}
	c, err := decode(kv, k, refs)
	if err != nil {
		return Content{}, keyError(kv, k, err)
	}
	c.Cluster = cluster.ID(k.Cluster)
	return c, nil
}

func decode(kv store.KV, k store.Key, refs []cluster.Ref) (c Content, err error) {
	if len(kv.Value) > MaxValueBytes {
		return c, fmt.Errorf("value has %d bytes, at most %d are read", len(kv.Value), MaxValueBytes)
	}
	d := decoder{kv: kv, key: k}
	switch k.Section {
	case store.SectionMeta:
		c.Meta, err = d.meta()
	case store.SectionTrust:
		c.Trust, err = d.trust()
	case store.SectionAlive:
		c.Agent, err = d.alive()
	case store.SectionServices:
		c.Objects, err = d.service(refs[0], refs[1])
	case store.SectionEndpoints:
		c.Objects, err = d.slice(refs[0])
	case store.SectionSecrets:
		c.Objects, err = d.sealed(refs[0])
	default:
		c.Objects, err = d.object(refs[0])
	}
	return c, err
}

type decoder struct {
	kv  store.KV
	key store.Key
}

func (d decoder) read(into proto.Message) error {
	if err := (proto.UnmarshalOptions{DiscardUnknown: true}).Unmarshal(d.kv.Value, into); err != nil {
		return fmt.Errorf("value is no %s: %w", into.ProtoReflect().Descriptor().Name(), err)
	}
	return nil
}

func (d decoder) meta() (*cluster.Meta, error) {
	var msg causewayv1.Meta
	if err := d.read(&msg); err != nil {
		return nil, err
	}
	if msg.Cluster != d.key.Cluster {
		return nil, fmt.Errorf("value is of cluster %q, its key of %q", shorten(msg.Cluster), d.key.Cluster)
	}
	m := cluster.Meta{Region: msg.Region, Zone: msg.Zone, Network: msg.Network, TrustDomain: msg.TrustDomain}
	if len(msg.Crossing) > maxCrossing {
		return nil, tooMany("crossing gateways", len(msg.Crossing), maxCrossing)
	}
	m.Crossing = sortedSet(msg.Crossing)
	if err := checkMeta(m); err != nil {
		return nil, err
	}
	return &m, nil
}

func (d decoder) trust() (*Trust, error) {
	var msg causewayv1.Trust
	if err := d.read(&msg); err != nil {
		return nil, err
	}
	if msg.TrustDomain != d.key.Names[0] {
		return nil, fmt.Errorf("value is of trust domain %q, its key of %q", shorten(msg.TrustDomain), d.key.Names[0])
	}
	if err := checkAuthorities(msg.TrustDomain, msg.Authorities); err != nil {
		return nil, err
	}
	if err := checkSealingKey(msg.SealingKey); err != nil {
		return nil, err
	}
	return &Trust{TrustDomain: msg.TrustDomain, Authorities: msg.Authorities, Sealing: msg.SealingKey}, nil
}

func (d decoder) alive() (string, error) {
	var msg causewayv1.Alive
	if err := d.read(&msg); err != nil {
		return "", err
	}
	if msg.Agent != d.key.Names[0] {
		return "", fmt.Errorf("value is of agent %q, its key of %q", shorten(msg.Agent), d.key.Names[0])
	}
	return msg.Agent, nil
}

func (d decoder) service(svc, exp cluster.Ref) ([]*cluster.Object, error) {
	var msg causewayv1.ExportedService
	if err := d.read(&msg); err != nil {
		return nil, err
	}
	if err := sameName(svc, svc.Kind, msg.Namespace, msg.Name); err != nil {
		return nil, err
	}
	var s corev1.Service
	if err := unmarshal(msg.Service, svc, &s, &s.ObjectMeta, &s.Status); err != nil {
		return nil, err
	}
	// An older or a hostile writer may say more than crosses.
	s.TypeMeta, s.Spec, s.Labels, s.Annotations = typeMeta("v1", svc.Kind), publicService(&s.Spec), nil, nil
	if err := Exportable(&s); err != nil {
		return nil, err
	}
	if err := checkService(&s.Spec); err != nil {
		return nil, err
	}
	var e mcsv1beta1.ServiceExport
	if err := unmarshal(msg.Export, exp, &e, &e.ObjectMeta, &e.Status); err != nil {
		return nil, err
	}
	e.TypeMeta = typeMeta(mcsv1beta1.GroupVersion.String(), exp.Kind)
	if err := checkExport(&e.Spec); err != nil {
		return nil, err
	}
	return []*cluster.Object{d.made(svc, msg.ServiceCreated, &s), d.made(exp, msg.ExportCreated, &e)}, nil
}

func (d decoder) slice(ref cluster.Ref) ([]*cluster.Object, error) {
	var msg causewayv1.EndpointSlice
	if err := d.read(&msg); err != nil {
		return nil, err
	}
	if err := sameName(ref, ref.Kind, msg.Namespace, msg.Name); err != nil {
		return nil, err
	}
	if msg.Service != d.key.Names[1] {
		return nil, fmt.Errorf("value is a slice of Service %q, its key of %q", shorten(msg.Service), d.key.Names[1])
	}
	if n := len(msg.Endpoints); n > maxEndpoints {
		return nil, tooMany("endpoints", n, maxEndpoints)
	}
	if n := len(msg.Ports); n > maxSlicePorts {
		return nil, tooMany("ports", n, maxSlicePorts)
	}
	s := &cluster.EndpointSlice{Service: msg.Service}
	for _, p := range msg.Ports {
		if p.Port > 65535 {
			return nil, fmt.Errorf("port %d is not from 1 to 65535", p.Port)
		}
		s.Ports = append(s.Ports, cluster.EndpointPort{Name: p.Name, Port: uint16(p.Port), Protocol: p.Protocol, AppProtocol: p.AppProtocol})
	}
	for _, e := range msg.Endpoints {
		addr, ok := netip.AddrFromSlice(e.Address)
		if !ok {
			return nil, fmt.Errorf("an endpoint's address has %d bytes, not 4 or 16", len(e.Address))
		}
		s.Endpoints = append(s.Endpoints, cluster.Endpoint{
			Addr: addr, Pod: e.Pod, Hostname: e.Hostname, Zone: e.Zone,
			Ready: e.Ready, Serving: e.Serving, Terminating: e.Terminating,
		})
	}
	if c := msg.Counts; c != nil {
		s.Counts = &cluster.EndpointCounts{Ready: c.Ready, NotReady: c.NotReady, Leaving: c.Leaving}
	}
	if err := checkSlice(s); err != nil {
		return nil, err
	}
	o := d.made(ref, 0, s)
	o.Seniority = cluster.Seniority{}
	return []*cluster.Object{o}, nil
}

func (d decoder) object(ref cluster.Ref) ([]*cluster.Object, error) {
	var msg causewayv1.Object
	if err := d.read(&msg); err != nil {
		return nil, err
	}
	if err := sameName(ref, cluster.Kind(msg.Kind), msg.Namespace, msg.Name); err != nil {
		return nil, err
	}
	value, err := codecs[ref.Kind].decode(msg.Json, ref) // Refs gives no kind without one
	if err != nil {
		return nil, err
	}
	return []*cluster.Object{d.made(ref, msg.Created, value)}, nil
}

func (d decoder) made(ref cluster.Ref, created int64, value any) *cluster.Object {
	o := &cluster.Object{Ref: ref, Cluster: cluster.ID(d.key.Cluster), Value: value, Seniority: cluster.Seniority{Revision: d.kv.CreateRevision}}
	// What could not be published was not claimed either.
	if t := time.Unix(0, created).UTC(); nanos(t) == created && created != 0 {
		o.Seniority.Created = t
	}
	return o
}

func sameName(ref cluster.Ref, kind cluster.Kind, namespace, name string) error {
	if kind != ref.Kind || namespace != ref.Namespace || name != ref.Name {
		return fmt.Errorf("value is of %s, its key of %s", shorten(cluster.Ref{Kind: kind, Namespace: namespace, Name: name}.String()), ref)
	}
	return nil
}
