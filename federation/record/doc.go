// Package record is the codec between what a cluster exports (objects, Meta,
// trust bundles) and the keys and values of the global store.
//
// # What crosses
//
// A Service crosses together with its ServiceExport, as one record, and only
// while both exist and the Service is none that KEP-1645 forbids to export (type
// ExternalName). An export without a Service says nothing to other clusters and
// stays at home, where its status tells. EndpointSlices cross if their Service
// does, with addresses or, where no other cluster could use those, with the number
// of endpoints alone (cluster.EndpointSlice.Counts). Routes of all kinds, Gateways,
// ListenerSets and ReferenceGrants all cross, since the query API shows the state of
// the whole clusterset. Namespaces cross with name and labels where a published
// route, Gateway or ListenerSet lives in them.
//
// A BackendTLSPolicy crosses while the cluster exports a Service that it targets:
// the Envoys of other clusters do TLS with that Service's pods themselves, through
// the crossing gateways. With it go the ConfigMaps in which it finds its CA
// certificates, reduced to data[ca.crt]; one that holds a private key there stays.
// How the cluster runs a Gateway that is for several (cluster.GatewayRun) crosses too: the
// agent makes that record itself.
// Secrets and GatewayClasses never cross: no function here takes them. Certificates that
// their Secrets let travel do, sealed for one cluster each (EncodeSealed).
//
// Objects cross without status, managedFields, owners and last-applied annotation;
// Namespaces without annotations; ConfigMaps without labels and annotations; Services
// without these and without selector, addresses and node ports.
//
// # What is guaranteed
//
//   - Equal input gives equal bytes, in every process.
//   - What Encode makes, Decode takes: both apply the same checks, so that an
//     object that others would refuse is reported where it was written.
//   - Decode is for hostile input. The cluster comes from the key alone; a value
//     that claims another name than its key is refused; sizes, counts, strings,
//     ports and enumerations are checked so far that nothing which the types of
//     cluster allow, but an API server would refuse, reaches the resolver. Whether
//     a cluster may export what it does is the policy's question, not asked here.
//   - Objects come with the key's create revision as seniority, save EndpointSlices,
//     which have no rank: a rank would make each of them change twice.
//
// Package federation/publish encodes, package federation decodes.
package record
