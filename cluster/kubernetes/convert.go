package kubernetes

import (
	"fmt"
	"maps"
	"strconv"
	"time"
	"unique"

	corev1 "k8s.io/api/core/v1"
	discoveryv1 "k8s.io/api/discovery/v1"
	"k8s.io/apimachinery/pkg/api/meta"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
	"k8s.io/apimachinery/pkg/types"
	gatewayv1 "sigs.k8s.io/gateway-api/apis/v1"
	gatewayv1beta1 "sigs.k8s.io/gateway-api/apis/v1beta1"
	mcsv1beta1 "sigs.k8s.io/mcs-api/pkg/apis/v1beta1"

	"github.com/causeway-mesh/causeway/cluster"
)

// annotationApplied repeats the whole object as it was applied last.
const annotationApplied = corev1.LastAppliedConfigAnnotation

// Live is what the API server said last of an object whose status the agent
// writes. Immutable.
type Live struct {
	UID             types.UID
	ResourceVersion string
	Generation      int64
	// Deleting: it is only there until its finalizers have run.
	Deleting bool
	// Status is a pointer of the type that the kind's status has:
	// *gatewayv1.GatewayClassStatus, GatewayStatus, ListenerSetStatus, RouteStatus
	// (of every kind of route), PolicyStatus, *mcsv1beta1.ServiceExportStatus or
	// ServiceImportStatus, or *corev1.ServiceStatus.
	Status any
}

// item is an object on its way from the reflector to the state. It bears the
// metadata by which client-go files it.
type item struct {
	metav1.ObjectMeta
	object *cluster.Object // nil for hidden kinds
	live   *Live
	rv     uint64
	// changedAt is when somebody last wrote the object, to the second.
	changedAt time.Time
}

// convert trims an object to what is kept. It takes ownership of obj.
func convert(id cluster.ID, r *resource, obj any) (*item, error) {
	if it, ok := obj.(*item); ok {
		return it, nil
	}
	m, err := meta.Accessor(obj)
	if err != nil {
		return nil, fmt.Errorf("a %s from the API server: %w", r.kind, err)
	}
	it := &item{changedAt: lastWrite(m)}
	it.Namespace, it.Name, it.ResourceVersion = m.GetNamespace(), m.GetName(), m.GetResourceVersion()
	it.rv = versionNumber(it.ResourceVersion)
	created := m.GetCreationTimestamp().UTC()
	live := &Live{UID: m.GetUID(), ResourceVersion: it.ResourceVersion, Generation: m.GetGeneration(), Deleting: m.GetDeletionTimestamp() != nil}
	value, status, err := value(r, obj)
	if err != nil {
		return nil, err
	}
	if status != nil {
		live.Status, it.live = status, live
	}
	if !r.hidden {
		it.object = &cluster.Object{
			Ref:     cluster.Ref{Kind: r.kind, Namespace: it.Namespace, Name: it.Name},
			Cluster: id, Seniority: cluster.Seniority{Created: created}, Value: value,
		}
	}
	return it, nil
}

// value gives what is delivered of an object, and its status if that is kept.
func value(r *resource, obj any) (value, status any, err error) {
	typed := metav1.TypeMeta{APIVersion: r.apiVersion(), Kind: string(r.kind)}
	switch o := obj.(type) {
	case *corev1.Namespace:
		return &corev1.Namespace{TypeMeta: typed, ObjectMeta: trim(o.ObjectMeta)}, nil, nil
	case *corev1.Service:
		if len(o.Status.LoadBalancer.Ingress) > 0 {
			status = &corev1.ServiceStatus{LoadBalancer: o.Status.LoadBalancer}
		}
		return &corev1.Service{TypeMeta: typed, ObjectMeta: trim(o.ObjectMeta), Spec: o.Spec}, status, nil
	case *discoveryv1.EndpointSlice:
		return pack(o), nil, nil
	case *corev1.Secret:
		return &corev1.Secret{TypeMeta: typed, ObjectMeta: trim(o.ObjectMeta), Type: o.Type, Data: only(o.Data, corev1.TLSCertKey, corev1.TLSPrivateKeyKey)}, nil, nil
	case *corev1.ConfigMap:
		return &corev1.ConfigMap{TypeMeta: typed, ObjectMeta: trim(o.ObjectMeta), Data: o.Data, BinaryData: only(o.BinaryData, authoritiesKey)}, nil, nil
	case *mcsv1beta1.ServiceExport:
		return &mcsv1beta1.ServiceExport{TypeMeta: typed, ObjectMeta: trim(o.ObjectMeta), Spec: o.Spec}, &o.Status, nil
	case *mcsv1beta1.ServiceImport:
		return nil, &o.Status, nil
	case *gatewayv1.GatewayClass:
		return &gatewayv1.GatewayClass{TypeMeta: typed, ObjectMeta: trim(o.ObjectMeta), Spec: o.Spec}, &o.Status, nil
	case *gatewayv1.Gateway:
		return &gatewayv1.Gateway{TypeMeta: typed, ObjectMeta: trim(o.ObjectMeta), Spec: o.Spec}, &o.Status, nil
	case *gatewayv1.ListenerSet:
		return &gatewayv1.ListenerSet{TypeMeta: typed, ObjectMeta: trim(o.ObjectMeta), Spec: o.Spec}, &o.Status, nil
	case *gatewayv1.HTTPRoute:
		return &gatewayv1.HTTPRoute{TypeMeta: typed, ObjectMeta: trim(o.ObjectMeta), Spec: o.Spec}, &o.Status.RouteStatus, nil
	case *gatewayv1.GRPCRoute:
		return &gatewayv1.GRPCRoute{TypeMeta: typed, ObjectMeta: trim(o.ObjectMeta), Spec: o.Spec}, &o.Status.RouteStatus, nil
	case *gatewayv1.TLSRoute:
		return &gatewayv1.TLSRoute{TypeMeta: typed, ObjectMeta: trim(o.ObjectMeta), Spec: o.Spec}, &o.Status.RouteStatus, nil
	case *gatewayv1.TCPRoute:
		return &gatewayv1.TCPRoute{TypeMeta: typed, ObjectMeta: trim(o.ObjectMeta), Spec: o.Spec}, &o.Status.RouteStatus, nil
	case *gatewayv1.UDPRoute:
		return &gatewayv1.UDPRoute{TypeMeta: typed, ObjectMeta: trim(o.ObjectMeta), Spec: o.Spec}, &o.Status.RouteStatus, nil
	case *gatewayv1.BackendTLSPolicy:
		return &gatewayv1.BackendTLSPolicy{TypeMeta: typed, ObjectMeta: trim(o.ObjectMeta), Spec: o.Spec}, &o.Status, nil
	case *gatewayv1beta1.ReferenceGrant:
		return &gatewayv1beta1.ReferenceGrant{TypeMeta: typed, ObjectMeta: trim(o.ObjectMeta), Spec: o.Spec}, nil, nil
	}
	return nil, nil, fmt.Errorf("the API server gave a %T for a %s", obj, r.kind)
}

// trim keeps what resolution reads, and generations, which conditions repeat.
func trim(m metav1.ObjectMeta) metav1.ObjectMeta {
	out := metav1.ObjectMeta{Name: m.Name, Namespace: m.Namespace, Labels: m.Labels, Annotations: m.Annotations, CreationTimestamp: m.CreationTimestamp, Generation: m.Generation}
	if _, ok := m.Annotations[annotationApplied]; ok {
		out.Annotations = maps.Clone(m.Annotations)
		delete(out.Annotations, annotationApplied)
	}
	if len(out.Annotations) == 0 {
		out.Annotations = nil
	}
	return out
}

// authoritiesKey is where a ConfigMap holds certificate authorities (Gateway API).
const authoritiesKey = "ca.crt"

func only[V any](m map[string]V, keys ...string) map[string]V {
	var out map[string]V
	for _, k := range keys {
		if v, ok := m[k]; ok {
			if out == nil {
				out = map[string]V{}
			}
			out[k] = v
		}
	}
	return out
}

// pack keeps of an EndpointSlice what resolution needs. Names instead of
// addresses (FQDN), which nobody looks up, are left out.
func pack(o *discoveryv1.EndpointSlice) *cluster.EndpointSlice {
	out := &cluster.EndpointSlice{Service: o.Labels[cluster.LabelServiceName]}
	for i := range o.Ports {
		if p, ok := cluster.PackPort(&o.Ports[i]); ok {
			p.Name, p.Protocol, p.AppProtocol = intern(p.Name), intern(p.Protocol), intern(p.AppProtocol)
			out.Ports = append(out.Ports, p)
		}
	}
	for i := range o.Endpoints {
		e := cluster.PackEndpoint(&o.Endpoints[i])
		e.Zone, e.Node = intern(e.Zone), intern(e.Node)
		for _, text := range o.Endpoints[i].Addresses {
			if addr, err := cluster.ParseEndpointAddress(text, o.AddressType); err == nil {
				e.Addr = addr
				out.Endpoints = append(out.Endpoints, e)
			}
		}
	}
	return out
}

// intern gives one copy of what thousands of objects say.
func intern(s string) string { return unique.Make(s).Value() }

func lastWrite(m metav1.Object) time.Time {
	at := m.GetCreationTimestamp().Time
	for _, f := range m.GetManagedFields() {
		if f.Time != nil && f.Time.After(at) {
			at = f.Time.Time
		}
	}
	return at
}

// versionNumber reads a resourceVersion. They are numbers that grow (KEP-5504);
// one that isn't is older than all.
func versionNumber(rv string) uint64 {
	n, _ := strconv.ParseUint(rv, 10, 64)
	return n
}
