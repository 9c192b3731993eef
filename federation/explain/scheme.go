package explain

import (
	"maps"
	"slices"
)

// Speech is what a client speaks to whom it has reached.
type Speech int

// What there is. All but SpeaksBytes begin with a request.
const (
	SpeaksBytes Speech = iota
	SpeaksHTTP
	SpeaksGRPC
	SpeaksWebSocket
)

// Scheme is what the scheme of a URL says, here and in `causeway request`.
type Scheme struct {
	Port      int32 // where none is given; 0: one has to be
	Speaks    Speech
	datagrams bool
	plain     string // for schemes over TLS: the one without
}

// TLS reports whether a client opens TLS first.
func (s Scheme) TLS() bool { return s.plain != "" }

// Transport is TCP or UDP.
func (s Scheme) Transport() string {
	if s.datagrams {
		return "UDP"
	}
	return "TCP"
}

var schemes = map[string]Scheme{
	"http": {Port: 80, Speaks: SpeaksHTTP}, "https": {Port: 443, Speaks: SpeaksHTTP, plain: "http"},
	"grpc": {Port: 80, Speaks: SpeaksGRPC}, "grpcs": {Port: 443, Speaks: SpeaksGRPC, plain: "grpc"},
	"ws": {Port: 80, Speaks: SpeaksWebSocket}, "wss": {Port: 443, Speaks: SpeaksWebSocket, plain: "ws"},
	"tcp": {}, "tls": {Port: 443, plain: "tcp"}, "udp": {datagrams: true},
}

// Schemes lists the names of all schemes, sorted.
func Schemes() []string { return slices.Sorted(maps.Keys(schemes)) }

// SchemeOf gives a scheme by its name, in lower case; false if it is unknown.
func SchemeOf(name string) (Scheme, bool) {
	s, ok := schemes[name]
	return s, ok
}
