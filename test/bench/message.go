package main

import (
	"fmt"
	"strings"
	"sync"

	clusterv3 "github.com/envoyproxy/go-control-plane/envoy/config/cluster/v3"
	hcmv3 "github.com/envoyproxy/go-control-plane/envoy/extensions/filters/network/http_connection_manager/v3"
	tlsv3 "github.com/envoyproxy/go-control-plane/envoy/extensions/transport_sockets/tls/v3"
	"google.golang.org/protobuf/encoding/protowire"
	"google.golang.org/protobuf/proto"
	"google.golang.org/protobuf/reflect/protoreflect"
	"google.golang.org/protobuf/types/known/anypb"

	"github.com/causeway-mesh/causeway/xds/translate"
)

// discovery is a DeltaDiscoveryResponse, its resources left packed.
type discovery struct {
	typeURL, nonce string
	resources      []resource
	removed        []string
}

type resource struct {
	name, version string
	body          []byte // an Any
}

// fields calls f for each length-delimited field of a message.
func fields(b []byte, f func(protowire.Number, []byte) error) error {
	for len(b) > 0 {
		num, typ, n := protowire.ConsumeTag(b)
		if n < 0 {
			return protowire.ParseError(n)
		}
		b = b[n:]
		if typ != protowire.BytesType {
			n = protowire.ConsumeFieldValue(num, typ, b)
			if n < 0 {
				return protowire.ParseError(n)
			}
			b = b[n:]
			continue
		}
		v, n := protowire.ConsumeBytes(b)
		if n < 0 {
			return protowire.ParseError(n)
		}
		if err := f(num, v); err != nil {
			return err
		}
		b = b[n:]
	}
	return nil
}

func parseDiscovery(raw []byte) (d discovery, err error) {
	err = fields(raw, func(num protowire.Number, v []byte) error {
		switch num {
		case 2:
			var r resource
			d.resources = append(d.resources, r)
			into := &d.resources[len(d.resources)-1]
			return fields(v, func(num protowire.Number, v []byte) error {
				switch num {
				case 1:
					into.version = string(v)
				case 2:
					into.body = v
				case 3:
					into.name = string(v)
				}
				return nil
			})
		case 4:
			d.typeURL = string(v)
		case 5:
			d.nonce = string(v)
		case 6:
			d.removed = append(d.removed, string(v))
		}
		return nil
	})
	return d, err
}

// backendOf is translate.EndpointsName of the backend of which a resource of this
// name holds endpoints. The rest says in which other networks they are.
func backendOf(name string) string {
	backend, _, _ := strings.Cut(name, "#")
	return backend
}

// reference names a resource that another makes Envoy ask for.
type reference struct{ typeURL, name string }

// references remembers what resources refer to, so that each content is looked
// at once however many proxies get it.
type references struct {
	found sync.Map // content -> []reference
}

type content struct{ typeURL, name, version string }

// refers reports whether resources of a type make Envoy ask for others.
func refers(typeURL string) bool {
	return typeURL == translate.TypeCluster || typeURL == translate.TypeListener
}

// of gives what a resource of such a type refers to.
func (l *references) of(typeURL string, r resource) ([]reference, error) {
	key := content{typeURL, r.name, r.version}
	if v, ok := l.found.Load(key); ok {
		return v.([]reference), nil
	}
	var packed anypb.Any
	if err := proto.Unmarshal(r.body, &packed); err != nil {
		return nil, err
	}
	set := map[reference]bool{}
	if err := search(&packed, set); err != nil {
		return nil, fmt.Errorf("%s %s: %w", typeURL, r.name, err)
	}
	var out []reference
	for ref := range set {
		out = append(out, ref)
	}
	l.found.Store(key, out)
	return out, nil
}

// search gathers what a message makes Envoy ask for.
func search(m proto.Message, into map[reference]bool) error {
	switch m := m.(type) {
	case *anypb.Any:
		inner, err := m.UnmarshalNew()
		if err != nil {
			return err
		}
		return search(inner, into)
	case *clusterv3.Cluster:
		if eds := m.GetEdsClusterConfig(); eds != nil {
			name := eds.GetServiceName()
			if name == "" {
				name = m.GetName()
			}
			into[reference{translate.TypeEndpoint, name}] = true
		}
	case *tlsv3.SdsSecretConfig:
		into[reference{translate.TypeSecret, m.GetName()}] = true
	case *hcmv3.Rds:
		into[reference{translate.TypeRoute, m.GetRouteConfigName()}] = true
	}
	var err error
	visit := func(v protoreflect.Value) {
		if e := search(v.Message().Interface(), into); e != nil {
			err = e
		}
	}
	m.ProtoReflect().Range(func(fd protoreflect.FieldDescriptor, v protoreflect.Value) bool {
		switch {
		case fd.IsMap():
			if fd.MapValue().Message() != nil {
				v.Map().Range(func(_ protoreflect.MapKey, v protoreflect.Value) bool { visit(v); return err == nil })
			}
		case fd.Message() == nil:
		case fd.IsList():
			for i := range v.List().Len() {
				visit(v.List().Get(i))
			}
		default:
			visit(v)
		}
		return err == nil
	})
	return err
}
