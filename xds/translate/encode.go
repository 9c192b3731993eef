package translate

import (
	"crypto/sha256"
	"encoding/base64"
	"fmt"
	"time"

	corev3 "github.com/envoyproxy/go-control-plane/envoy/config/core/v3"
	routev3 "github.com/envoyproxy/go-control-plane/envoy/config/route/v3"
	"google.golang.org/protobuf/encoding/protowire"
	"google.golang.org/protobuf/proto"
	"google.golang.org/protobuf/types/known/anypb"
	"google.golang.org/protobuf/types/known/durationpb"
	"google.golang.org/protobuf/types/known/wrapperspb"
)

// packError is what pack panics with, and makeUnit recovers from.
type packError struct{ err error }

// pack marshals a message so that equal messages give equal bytes. A message that
// can't be marshalled (a name that is not UTF-8) stops the unit that is being
// made, and no other: pack panics with a packError.
func pack(m proto.Message) *anypb.Any {
	b, err := proto.MarshalOptions{Deterministic: true}.Marshal(m)
	if err != nil {
		panic(packError{fmt.Errorf("marshal %T: %w", m, err)})
	}
	return &anypb.Any{TypeUrl: "type.googleapis.com/" + string(m.ProtoReflect().Descriptor().FullName()), Value: b}
}

// newResource marshals a resource, hashes it and looks at it.
func newResource(name, subject string, m proto.Message) *Resource {
	body := pack(m)
	return &Resource{Name: name, Version: versionOf(body), Body: body, Facts: FactsOf(m), Subject: subject}
}

// part is a message within a resource, marshalled and looked at once and shared by
// successive versions. Immutable.
type part struct {
	value []byte
	facts *Facts
}

func newPart(m proto.Message) *part {
	return &part{pack(m).Value, FactsOf(m)}
}

func versionOf(body *anypb.Any) string {
	sum := sha256.Sum256(body.Value)
	return base64.RawURLEncoding.EncodeToString(sum[:8])
}

// virtualHosts is the number of that field in a RouteConfiguration.
const virtualHosts protowire.Number = 2

// newRoutes is newResource for routes whose virtual hosts, which head has none of,
// are marshalled already: the cost of one host's change does not grow with the others.
func newRoutes(name, subject string, head *routev3.RouteConfiguration, hosts []*part) *Resource {
	packed := pack(head)
	known := make([]*Facts, len(hosts))
	size := len(packed.Value)
	for _, h := range hosts {
		size += protowire.SizeTag(virtualHosts) + protowire.SizeBytes(len(h.value))
	}
	value := append(make([]byte, 0, size), packed.Value...)
	for i, h := range hosts {
		value = protowire.AppendTag(value, virtualHosts, protowire.BytesType)
		value = protowire.AppendBytes(value, h.value)
		known[i] = h.facts
	}
	body := &anypb.Any{TypeUrl: packed.TypeUrl, Value: value}
	return &Resource{Name: name, Version: versionOf(body), Body: body, Facts: FactsOf(head, known...), Subject: subject}
}

func u32(v uint32) *wrapperspb.UInt32Value { return wrapperspb.UInt32(v) }

func yes() *wrapperspb.BoolValue { return wrapperspb.Bool(true) }

func no() *wrapperspb.BoolValue { return wrapperspb.Bool(false) }

func dur(d time.Duration) *durationpb.Duration { return durationpb.New(d) }

// ads says that a resource comes over the stream that brought what refers to it.
func ads() *corev3.ConfigSource {
	return &corev3.ConfigSource{
		ResourceApiVersion:    corev3.ApiVersion_V3,
		ConfigSourceSpecifier: &corev3.ConfigSource_Ads{Ads: &corev3.AggregatedConfigSource{}},
	}
}
