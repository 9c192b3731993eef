package main

import (
	"fmt"
	"slices"
	"strings"
	"sync"

	"google.golang.org/protobuf/encoding/protowire"
	"google.golang.org/protobuf/proto"
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

// references remembers what resources refer to, so that each content is looked
// at once however many proxies get it.
type references struct {
	found sync.Map // content -> []translate.Ref
}

type content struct{ typeURL, name, version string }

// of gives what a resource makes Envoy ask for by name.
func (l *references) of(typeURL string, r resource) ([]translate.Ref, error) {
	key := content{typeURL, r.name, r.version}
	if v, ok := l.found.Load(key); ok {
		return v.([]translate.Ref), nil
	}
	var packed anypb.Any
	if err := proto.Unmarshal(r.body, &packed); err != nil {
		return nil, err
	}
	m, err := packed.UnmarshalNew()
	if err != nil {
		return nil, fmt.Errorf("%s %s: %w", typeURL, r.name, err)
	}
	out := slices.DeleteFunc(translate.FactsOf(m).Refs, func(ref translate.Ref) bool { return !ref.Kind.OnDemand() })
	l.found.Store(key, out)
	return out, nil
}
