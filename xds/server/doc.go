// Package server gives Envoys their configuration: aggregated discovery in its
// incremental form (delta ADS) over gRPC. It follows Envoy's "xDS REST and gRPC
// protocol" page; where that leaves a choice, the choice is named below.
//
// The agent hands over the complete Resources of each proxy, with what changed
// (Set); everything else happens per stream. The decisions are made by a ledger:
// what one proxy has, what it has been offered, and what it is to have. It is
// plain data without I/O or clock, owned by its stream.
//
// # What is guaranteed
//
//   - Versions come from content. A proxy is sent what differs from what it has,
//     also after a reconnect (initial_resource_versions), and nothing else; with
//     the two exceptions that the protocol asks for: a name that is subscribed to
//     is answered, with a removal if it does not exist, and what a cluster or
//     listener refers to is sent again after it, for Envoy warms a changed
//     cluster until its endpoints arrive and does not ask for them anew.
//   - Before the first Set for a proxy nothing is sent to it. It keeps what it has.
//   - Make before break. A listener or route is sent once the proxy has
//     acknowledged the clusters that it names, with their endpoints and secrets; of
//     a cluster that leads to an internal listener, that listener and its routes, as
//     they are to be by then. Envoy keeps routes while a listener that refers to them
//     drains, also when they are gone: a listener of the same routes waits until the
//     proxy has acknowledged what they are now.
//     Resources are removed once nothing that the proxy still holds and that is to
//     change refers to them; clusters after Limits.Linger more, for connections
//     that Envoy drains. An update of a type waits for nothing else.
//   - A refused resource stops only itself. A response that the proxy rejects is
//     halved and sent again until the culprit is alone; that is set aside until its
//     content changes, and tried again now and then, since a port may become free.
//     The proxy keeps the last good version. A resource that breaks Envoy's own
//     validation rules is not even sent. What refers to a refused cluster that the
//     proxy never had is sent nevertheless: one bad backend must not freeze a
//     gateway; its share of requests fails.
//   - The first change goes out at once. While a response of a type is not
//     acknowledged, changes of that type gather, and go as one; intermediate
//     versions are skipped. So the memory for a proxy is bounded by what it is to
//     have, however slow it is.
//   - The work for a change is proportional to the resources changed and the
//     proxies that get them.
//
// Set, Remove, Proxies and Changed may be called from any goroutine, and none of
// them waits for a proxy. Calls of Set for one proxy come one after the other.
package server
