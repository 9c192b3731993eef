package translate

import (
	"cmp"
	"errors"
	"fmt"
	"slices"
	"strings"

	clusterv3 "github.com/envoyproxy/go-control-plane/envoy/config/cluster/v3"
	corev3 "github.com/envoyproxy/go-control-plane/envoy/config/core/v3"
	endpointv3 "github.com/envoyproxy/go-control-plane/envoy/config/endpoint/v3"
	routev3 "github.com/envoyproxy/go-control-plane/envoy/config/route/v3"
	hcmv3 "github.com/envoyproxy/go-control-plane/envoy/extensions/filters/network/http_connection_manager/v3"
	tcpproxyv3 "github.com/envoyproxy/go-control-plane/envoy/extensions/filters/network/tcp_proxy/v3"
	udpproxyv3 "github.com/envoyproxy/go-control-plane/envoy/extensions/filters/udp/udp_proxy/v3"
	tlsv3 "github.com/envoyproxy/go-control-plane/envoy/extensions/transport_sockets/tls/v3"
	"google.golang.org/protobuf/proto"
	"google.golang.org/protobuf/reflect/protoreflect"
	"google.golang.org/protobuf/reflect/protoregistry"
	"google.golang.org/protobuf/types/known/anypb"
)

// Kind is a type of resource: its place in Types.
type Kind int

// The kinds, in the order of Types.
const (
	KindSecret Kind = iota
	KindCluster
	KindEndpoint
	KindListener
	KindRoute
	Kinds // how many there are
)

// URL is the kind's TypeURL.
func (k Kind) URL() string { return Types[k] }

// String is the last part of the URL.
func (k Kind) String() string { return k.URL()[strings.LastIndexByte(k.URL(), '.')+1:] }

// OnDemand reports whether Envoy asks for resources of the kind by name, when
// something that refers to them makes it do so.
func (k Kind) OnDemand() bool { return k != KindCluster && k != KindListener }

// KindOf is the kind of a TypeURL. A false second result means that it is not served.
func KindOf(typeURL string) (Kind, bool) {
	i := slices.Index(Types, typeURL)
	return Kind(i), i >= 0
}

// Ref names a resource.
type Ref struct {
	Kind Kind
	Name string
}

// Compare orders by kind, then by name.
func (r Ref) Compare(o Ref) int {
	return cmp.Or(cmp.Compare(r.Kind, o.Kind), cmp.Compare(r.Name, o.Name))
}

// Facts is what a server needs to know of a resource's content. It is found when the
// resource is made, of the message at hand: servers need not unmarshal anything. Immutable.
type Facts struct {
	// Name is what the resource calls itself.
	Name string
	// Err says that Envoy would refuse the resource: it breaks the validation rules of
	// the protocol's definition.
	Err error
	// Refs names the resources that it makes Envoy use or ask for: sorted, each once.
	Refs []Ref
}

// FactsOf looks at a resource and at what is packed inside it. What is known of its
// parts, which m has none of, is added.
func FactsOf(m proto.Message, parts ...*Facts) *Facts {
	s := search{refs: map[Ref]struct{}{}, errs: []error{validate(m)}}
	if _, ok := m.(*endpointv3.ClusterLoadAssignment); !ok { // nothing in there, and they are many
		s.walk(m.ProtoReflect(), 0)
	}
	for _, p := range parts {
		s.errs = append(s.errs, p.Err)
		for _, ref := range p.Refs {
			s.refs[ref] = struct{}{}
		}
	}
	out := &Facts{Name: nameOf(m), Err: errors.Join(s.errs...)}
	for ref := range s.refs {
		out.Refs = append(out.Refs, ref)
	}
	slices.SortFunc(out.Refs, Ref.Compare)
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
	refs map[Ref]struct{}
	errs []error
}

func (s *search) add(k Kind, name string) {
	if name != "" {
		s.refs[Ref{k, name}] = struct{}{}
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
		inner, err := packed.UnmarshalNew()
		if err != nil {
			s.errs = append(s.errs, fmt.Errorf("unmarshal %s: %w", packed.GetTypeUrl(), err))
			return
		}
		s.errs = append(s.errs, validate(inner))
		s.walk(inner.ProtoReflect(), depth+1)
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
			s.add(KindEndpoint, edsName(m))
		}
	case *corev3.EnvoyInternalAddress:
		s.add(KindListener, m.GetServerListenerName())
	case *tlsv3.SdsSecretConfig:
		if fromUs(m.GetSdsConfig()) {
			s.add(KindSecret, m.GetName())
		}
	case *hcmv3.Rds:
		if fromUs(m.GetConfigSource()) {
			s.add(KindRoute, m.GetRouteConfigName())
		}
	case *routev3.RouteAction:
		s.add(KindCluster, m.GetCluster())
	case *routev3.WeightedCluster_ClusterWeight:
		s.add(KindCluster, m.GetName())
	case *routev3.RouteAction_RequestMirrorPolicy:
		s.add(KindCluster, m.GetCluster())
	case *tcpproxyv3.TcpProxy:
		s.add(KindCluster, m.GetCluster())
	case *tcpproxyv3.TcpProxy_WeightedCluster_ClusterWeight:
		s.add(KindCluster, m.GetName())
	case *udpproxyv3.UdpProxyConfig:
		s.add(KindCluster, m.GetCluster()) //nolint:staticcheck // still honoured by Envoy
	case *udpproxyv3.Route:
		s.add(KindCluster, m.GetCluster())
	case *corev3.GrpcService_EnvoyGrpc:
		s.add(KindCluster, m.GetClusterName())
	case *corev3.HttpUri:
		s.add(KindCluster, m.GetCluster())
	}
}

func edsName(c *clusterv3.Cluster) string {
	if n := c.GetEdsClusterConfig().GetServiceName(); n != "" {
		return n
	}
	return c.GetName()
}
