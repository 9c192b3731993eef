// Package echo is the server that stands for a workload's container: on each of
// its ports it speaks whatever its client speaks, and it answers who it is and
// what has reached it. So any Service's port works as it stands, and a person
// sees which pod of which cluster a request has come to, and how.
//
// The first bytes of a TCP connection decide: HTTP/1.1 with WebSocket, HTTP/2
// with prior knowledge (KEP-3726's h2c) with gRPC, TLS with any of these inside,
// or else a line of bytes is answered by a line of JSON. Ports whose appProtocol
// calls for TLS or h2c take nothing else, as real ones would. A datagram of UDP
// is answered by a datagram of JSON.
//
// It guarantees that
//
//   - it says nothing before its client has, so what a proxy opens in advance
//     stays quiet;
//   - connections, messages, delays and time without a word are bounded;
//   - Shutdown lets running requests end and waits for all goroutines.
//
// cluster/workload runs the servers; cmd/causeway/client reads their answers.
package echo
