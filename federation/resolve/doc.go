// Package resolve works out, from the state of all clusters, where each request
// in one cluster goes. It is the resolver of DESIGN section 3.
//
// Guarantees:
//   - Pure: no clock, network, logger, goroutine or global state. Inputs are
//     never changed; equal Snapshots give equal Results in every process.
//   - Update does in proportion to the change what Resolve does from scratch,
//     and with the same outcome: the work is divided into units (one for each
//     frontend, Gateway, import, route and backend), each unit reads the
//     Snapshot through a reader that notes what it read, and only units that
//     read what changed are computed again. A churn of endpoints touches
//     backends alone. What one unit finds out and another has to know (a route's
//     report, say, that another route won a listener) goes by facts, which are
//     read and noted in the same way.
//   - Private keys are in Certificates alone, which never show them. Travels names those
//     that other clusters may have; who seals them is the agent.
//   - A user's mistake is a condition in a report, never an error.
//
// Agents and hubs call it from their one loop; package xds/translate turns a
// Result into Envoy's resources, package federation/explain and api/query read
// it, and cluster/status writes the part of Reports that concerns its cluster.
//
// Standards: Gateway API v1 with GEP-1294 (xRoute for mesh: exactly one group
// of routes governs), GEP-1324 (mesh), GEP-1426 (consumer and producer routes),
// GEP-1748 (Service means this cluster, ServiceImport the clusterset), GEP-709
// (ReferenceGrant), GEP-1619 (sessions), GEP-1731 (retries), GEP-1767 (CORS),
// GEP-1494 (external authorization), GEP-1911 and KEP-3726 (application
// protocols), GEP-2257 (durations), GEP-1713 (ListenerSet), GEP-2643 (TLSRoute),
// GEP-91 (clients' certificates), GEP-3567 (listeners of one port that end TLS),
// GEP-1897 and GEP-3155 (BackendTLSPolicy and what Gateways show to backends);
// KEP-1645 (merge of exports).
//
// Where those leave a choice, this package chose:
//   - Paths: Exact, then PathPrefix by length, then RegularExpression, and the
//     prefix "/" last, since it would otherwise hide every regular expression.
//   - A request for a.example.com that no rule of a route with that hostname
//     matches is tried with the rules of less specific hostnames of the same
//     listener: Gateway API speaks of precedence among rules, not of exclusion.
//   - GRPCRoutes: exact services and methods before regular expressions, whose
//     length says nothing of what they match; within each, as the standard says.
//   - A rule with a value that can't be served answers 500 (a GRPCRoute's:
//     UNAVAILABLE) instead of being taken away: what it matches must not fall to
//     other rules. The route is PartiallyInvalid, or, if no rule is left, not
//     Accepted, with reason UnsupportedValue or IncompatibleFilters. A match that
//     can't be expressed (a malformed regular expression) is left out.
//   - A filter that refers to what can't be used is not skipped: an ExtensionRef
//     (there are none) or ExternalAuth makes its rule or backend answer 500. A
//     mirror copies nothing then, and the request goes on.
//   - What gRPC calls (a GRPCRoute's backends, a gRPC service for authorization) is
//     called by HTTP/2 unless its port says something else that can't be.
//   - appProtocol https and kubernetes.io/wss take a BackendTLSPolicy; without one
//     HTTPRoutes and GRPCRoutes report UnsupportedProtocol. An unknown name is
//     opaque, but for those that begin with kubernetes.io/.
//   - internalTrafficPolicy Local of an import means the client's own cluster, for all
//     who call the ServiceImport: an Envoy does not know its clients' nodes, and no
//     endpoint of another cluster is on them.
//   - Weights of an export (causeway.dev/weight): as soon as one exporter has
//     one, the exporters without count 1. Weight 0 takes a cluster out of
//     everybody's choice, its own clients' too, while another has an endpoint
//     that is ready.
//   - A cluster's weight is spread over all its endpoints, ready or not. What is
//     not ready is sent as unhealthy, or, behind crossing gateways, as one entry
//     that nobody calls (Endpoint.Missing): overflow sees the share that is
//     missing wherever the endpoints are.
//   - A cluster of the same network whose slices hold no addresses, since it has
//     not seen yet that somebody shares its network, is entered by its crossing
//     gateways meanwhile.
//   - What is withdrawn (dead clusters, clusters of weight 0, terminating
//     endpoints) comes back at the lowest priority while nothing else has an
//     endpoint that is ready. No failure leaves a set empty that was not.
//   - A Service backend of another cluster's route is that cluster's share, and
//     its chain goes through the producer routes of that cluster's Service
//     frontend, as it does in the route's home.
//   - A route with a Service parent governs, on the ServiceImport frontend, the
//     ports that its home serves there.
//   - A cluster's own copy of a route is obeyed in what it says and in what it
//     leaves out: where it reaches less than others' copies do (its Service is not
//     exported here, say), it is reported as Federated=False.
//   - Listeners that can't be told apart are all refused if they are of one Gateway
//     or of one ListenerSet; no winner is picked. A listener of a ListenerSet that
//     conflicts with one of the Gateway, or of a senior ListenerSet, loses alone.
//   - HTTPS and TLS share a port, told apart by server name; UDP shares its number
//     with anything. All else on one port is a conflict of protocols.
//   - A listener with some good certificates works with them. One without keeps the
//     place of its hostname: no less specific listener answers for it.
//   - Secrets, authorities for clients' certificates, and the ReferenceGrants for
//     both are those of the cluster that runs the Gateway. A certificate that has come
//     from the cluster in which a reference was written is for that reference, where this
//     cluster has no Secret of the name; its grants are those of that cluster.
//   - ListenerSets follow the scope of their Gateway: any cluster may add to a
//     clusterset Gateway, and causeway.dev/scope: cluster keeps one at home.
//   - A TCPRoute takes the bytes of a TLS listener that ends TLS, of those server
//     names that no TLSRoute takes.
//   - In the mesh, hostnames of routes mean nothing (GEP-1294), those of TLSRoutes
//     neither: a TLSRoute governs a port as a TCPRoute does.
//   - One kind of routes governs a port in each group, the producers and each
//     namespace's consumers: a consumer can't put a producer's routes out of force
//     for others.
//   - A Gateway chains through producer routes that can read what it has: HTTP
//     requests go through HTTPRoutes, GRPCRoutes and, as bytes, TCPRoutes; bytes
//     (TCPRoutes, ended TLS) through TCPRoutes alone, since nobody knows that they
//     are HTTP; TLS that is passed on through TLSRoutes and TCPRoutes.
//   - A BackendTLSPolicy governs the endpoints of its own cluster's Service, by
//     whatever name they are reached: each cluster of a ServiceImport has its own.
//     Sidecars obey it too. Its ancestors are the Gateways of this cluster that reach
//     the Service; the Service itself where there is none.
package resolve
