package server

import (
	"errors"
	"fmt"
	"runtime"
	"slices"
	"strings"
	"sync"
	"weak"

	clusterv3 "github.com/envoyproxy/go-control-plane/envoy/config/cluster/v3"
	corev3 "github.com/envoyproxy/go-control-plane/envoy/config/core/v3"
	routev3 "github.com/envoyproxy/go-control-plane/envoy/config/route/v3"
	hcmv3 "github.com/envoyproxy/go-control-plane/envoy/extensions/filters/network/http_connection_manager/v3"
	tcpproxyv3 "github.com/envoyproxy/go-control-plane/envoy/extensions/filters/network/tcp_proxy/v3"
	udpproxyv3 "github.com/envoyproxy/go-control-plane/envoy/extensions/filters/udp/udp_proxy/v3"
	tlsv3 "github.com/envoyproxy/go-control-plane/envoy/extensions/transport_sockets/tls/v3"
	"google.golang.org/protobuf/proto"
	"google.golang.org/protobuf/reflect/protoreflect"
	"google.golang.org/protobuf/reflect/protoregistry"
	"google.golang.org/protobuf/types/known/anypb"

	"github.com/causeway-mesh/causeway/xds/translate"
)

// kind is a type of resource: its place in translate.Types.
type kind int

const (
	kindSecret kind = iota
	kindCluster
	kindEndpoint
	kindListener
	kindRoute
	kinds
)

func (k kind) url() string { return translate.Types[k] }

func (k kind) String() string { return k.url()[strings.LastIndexByte(k.url(), '.')+1:] }

// onDemand reports whether Envoy asks for resources of the kind by name, when
// something that refers to them makes it do so.
func (k kind) onDemand() bool { return k != kindCluster && k != kindListener }

func kindOf(typeURL string) (kind, bool) {
	i := slices.Index(translate.Types, typeURL)
	return kind(i), i >= 0
}

// key names a resource.
type key struct {
	kind kind
	name string
}

// facts is what the ledger needs to know of a resource's content. Immutable.
type facts struct {
	// err says why the resource can't be sent: it is not what it claims to be, or
	// breaks Envoy's validation rules.
	err error
	// refs names the resources that it refers to: sorted, each once.
	refs []key
}

// analyst finds the facts of resources, once for each resource however many
// proxies get it, and forgets them with the resource.
type analyst struct {
	resources memo[translate.Resource]
	parts     memo[translate.Part]
}

// memo remembers facts of values of one type.
type memo[T any] struct {
	found sync.Map // weak.Pointer[T] -> func() *facts
}

func (m *memo[T]) of(v *T, find func(*T) *facts) *facts {
	p := weak.Make(v)
	f, ok := m.found.Load(p)
	if !ok {
		var loaded bool
		f, loaded = m.found.LoadOrStore(p, sync.OnceValue(func() *facts { return find(p.Value()) }))
		if !loaded {
			runtime.AddCleanup(v, func(p weak.Pointer[T]) { m.found.Delete(p) }, p)
		}
	}
	out := f.(func() *facts)()
	runtime.KeepAlive(v)
	return out
}

func (a *analyst) facts(k kind, r *translate.Resource) *facts {
	return a.resources.of(r, func(r *translate.Resource) *facts { return a.analyse(k, r) })
}

// analysePart unmarshals, validates and searches a part of a resource.
func analysePart(p *translate.Part) *facts {
	m, err := unpack(p.Body)
	if err != nil {
		return &facts{err: err}
	}
	s := search{refs: map[key]struct{}{}}
	s.errs = append(s.errs, validate(m))
	s.walk(m.ProtoReflect(), 0)
	return s.facts()
}

// analyse unmarshals, validates and searches a resource.
func (a *analyst) analyse(k kind, r *translate.Resource) *facts {
	switch {
	case r.Name == "" || len(r.Name) > maxName:
		return &facts{err: fmt.Errorf("its name has %d bytes; from 1 to %d are possible", len(r.Name), maxName)}
	case r.Version == "":
		return &facts{err: errors.New("it has no version")}
	case r.Body.GetTypeUrl() != k.url():
		return &facts{err: fmt.Errorf("it is a %q, not a %q", r.Body.GetTypeUrl(), k.url())}
	}
	body := r.Body
	if r.Head != nil {
		body = r.Head // the parts are looked at by themselves
	}
	m, err := unpack(body)
	if err != nil {
		return &facts{err: err}
	}
	s := search{refs: map[key]struct{}{}}
	s.errs = append(s.errs, validate(m))
	if name := nameOf(m); name != r.Name {
		s.errs = append(s.errs, fmt.Errorf("it is offered as %q but calls itself %q", r.Name, name))
	}
	if k != kindEndpoint { // nothing in there, and they are many
		s.walk(m.ProtoReflect(), 0)
	}
	for _, p := range r.Parts {
		f := a.parts.of(p, analysePart)
		s.errs = append(s.errs, f.err)
		for _, ref := range f.refs {
			s.refs[ref] = struct{}{}
		}
	}
	return s.facts()
}

func (s *search) facts() *facts {
	out := &facts{err: errors.Join(s.errs...)}
	for ref := range s.refs {
		out.refs = append(out.refs, ref)
	}
	slices.SortFunc(out.refs, func(a, b key) int {
		if a.kind != b.kind {
			return int(a.kind - b.kind)
		}
		return strings.Compare(a.name, b.name)
	})
	return out
}

// nameOf is what a resource calls itself.
func nameOf(m proto.Message) string {
	switch m := m.(type) {
	case interface{ GetClusterName() string }:
		return m.GetClusterName()
	case interface{ GetName() string }:
		return m.GetName()
	}
	return ""
}

func unpack(body *anypb.Any) (proto.Message, error) {
	m, err := body.UnmarshalNew()
	if err != nil {
		return nil, fmt.Errorf("unmarshal %s: %w", body.GetTypeUrl(), err)
	}
	return m, nil
}

func validate(m proto.Message) error {
	if v, ok := m.(interface{ ValidateAll() error }); ok {
		return v.ValidateAll()
	}
	return nil
}

// maxDepth bounds the nesting of messages; Envoy's own bound is 100.
const maxDepth = 100

// search walks through a message and what is packed inside it, validates the
// packed parts and gathers references. Packed types that this binary does not
// know are left for Envoy to judge.
type search struct {
	refs map[key]struct{}
	errs []error
}

func (s *search) add(k kind, name string) {
	if name != "" {
		s.refs[key{k, name}] = struct{}{}
	}
}

func (s *search) walk(m protoreflect.Message, depth int) {
	if depth > maxDepth {
		s.errs = append(s.errs, fmt.Errorf("it is nested more than %d deep", maxDepth))
		return
	}
	if packed, ok := m.Interface().(*anypb.Any); ok {
		if _, err := protoregistry.GlobalTypes.FindMessageByURL(packed.GetTypeUrl()); err != nil {
			return
		}
		inner, err := unpack(packed)
		if err == nil {
			err = validate(inner)
			s.walk(inner.ProtoReflect(), depth+1)
		}
		if err != nil {
			s.errs = append(s.errs, err)
		}
		return
	}
	s.visit(m.Interface())
	m.Range(func(fd protoreflect.FieldDescriptor, v protoreflect.Value) bool {
		switch {
		case fd.IsMap():
			if fd.MapValue().Message() != nil {
				v.Map().Range(func(_ protoreflect.MapKey, v protoreflect.Value) bool {
					s.walk(v.Message(), depth+1)
					return true
				})
			}
		case fd.Message() == nil:
		case fd.IsList():
			for i := range v.List().Len() {
				s.walk(v.List().Get(i).Message(), depth+1)
			}
		default:
			s.walk(v.Message(), depth+1)
		}
		return true
	})
}

// fromUs reports whether Envoy gets what a reference names over this stream.
func fromUs(c *corev3.ConfigSource) bool { return c.GetAds() != nil || c.GetSelf() != nil }

func (s *search) visit(m proto.Message) {
	switch m := m.(type) {
	case *clusterv3.Cluster:
		if m.GetType() == clusterv3.Cluster_EDS && fromUs(m.GetEdsClusterConfig().GetEdsConfig()) {
			s.add(kindEndpoint, edsName(m))
		}
	case *corev3.EnvoyInternalAddress:
		s.add(kindListener, m.GetServerListenerName())
	case *tlsv3.SdsSecretConfig:
		if fromUs(m.GetSdsConfig()) {
			s.add(kindSecret, m.GetName())
		}
	case *hcmv3.Rds:
		if fromUs(m.GetConfigSource()) {
			s.add(kindRoute, m.GetRouteConfigName())
		}
	case *routev3.RouteAction:
		s.add(kindCluster, m.GetCluster())
	case *routev3.WeightedCluster_ClusterWeight:
		s.add(kindCluster, m.GetName())
	case *routev3.RouteAction_RequestMirrorPolicy:
		s.add(kindCluster, m.GetCluster())
	case *tcpproxyv3.TcpProxy:
		s.add(kindCluster, m.GetCluster())
	case *tcpproxyv3.TcpProxy_WeightedCluster_ClusterWeight:
		s.add(kindCluster, m.GetName())
	case *udpproxyv3.UdpProxyConfig:
		s.add(kindCluster, m.GetCluster()) //nolint:staticcheck // still honoured by Envoy
	case *udpproxyv3.Route:
		s.add(kindCluster, m.GetCluster())
	case *corev3.GrpcService_EnvoyGrpc:
		s.add(kindCluster, m.GetClusterName())
	case *corev3.HttpUri:
		s.add(kindCluster, m.GetCluster())
	}
}

func edsName(c *clusterv3.Cluster) string {
	if n := c.GetEdsClusterConfig().GetServiceName(); n != "" {
		return n
	}
	return c.GetName()
}
