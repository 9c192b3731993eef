package translate

import (
	"crypto/sha256"
	"encoding/hex"
	"fmt"
	"time"

	corev3 "github.com/envoyproxy/go-control-plane/envoy/config/core/v3"
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

// newResource marshals a resource and hashes it.
func newResource(name, subject string, m proto.Message) *Resource {
	body := pack(m)
	sum := sha256.Sum256(body.Value)
	return &Resource{Name: name, Version: hex.EncodeToString(sum[:12]), Body: body, Subject: subject}
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
