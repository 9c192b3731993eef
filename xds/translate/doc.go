// Package translate turns what the resolver found out (resolve.Result) into the
// resources that one Envoy gets: the last pure step before package xds/server.
//
// Guarantees:
//   - Pure: no clock, network, logger or goroutine. The only thing shared is a
//     Cache, a memo that its owner hands in and that changes no outcome.
//   - Equal inputs give equal bytes, in every process: marshalling is
//     deterministic, and a resource's Version is a hash of its bytes.
//   - Update does in proportion to the change what Build does from scratch, with
//     the same outcome. Resources that did not change keep their pointers. The
//     work is divided into units (one for each frontend, Gateway, import, chain
//     and backend); a unit reads its own object alone and names the units that it
//     needs, so that backends that nothing refers to are not sent.
//   - Each Resource comes with what it refers to, and with whether it breaks the
//     validation rules of Envoy's API (Facts): who serves it need not read it.
//   - A churn of endpoints changes ClusterLoadAssignments and nothing else.
//   - What can't be translated takes nothing else with it. A match that Envoy
//     would refuse is left out (matching more than was asked would be worse), any
//     other fault of a rule makes that rule answer 500; State.Problems names the
//     objects concerned.
//   - Traffic to another network never leaves without TLS: an endpoint behind a
//     crossing gateway whose trust domain is unknown is left out, and one whose
//     authorities are unknown trusts nobody.
//
// What each role gets:
//   - Sidecar: a listener for each TCP port of each frontend. Where routes govern
//     or the port is said to speak HTTP, an HTTP connection manager whose routes
//     come by RDS, one RouteConfiguration for a frontend's port (and consumer
//     namespace) that all sidecars share; else a TCP proxy. Traffic is told apart
//     by address and port, never by Host (GEP-1294).
//   - Gateway: a listener and a RouteConfiguration for each port. A backend that
//     chains goes through an internal listener that serves the same
//     RouteConfiguration as the sidecars' producer routes; both hops together look
//     to client and backend like one.
//   - Crossing: for other networks, one listener that stays the same however many
//     services stand behind it: TLS is terminated with the clients' SPIFFE ids
//     checked, and the server name is the name of the Envoy cluster (sni_cluster).
//     For this cluster's clients that have no sidecar, a listener for each port of
//     each ServiceImport that Bindings has an entry for. It does what a sidecar's does
//     for clients without consumer routes: all that is known of these clients is an
//     address.
//
// All names are made in names.go. The rules are those of Gateway API v1
// (HTTPRoute), GEP-1294, and Envoy's API v3; where Envoy's defaults are not taken
// the code says why.
package translate
