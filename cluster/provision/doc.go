// Package provision keeps what the agent creates in its own cluster: for each
// service that the clusterset exports and whose namespace exists here, the
// ServiceImport, the derived Service whose cluster IPs are its ClusterSetIP, and the
// EndpointSlices (KEP-1645).
//
// The middle is a pure function, Plan: one import as the resolver sees it, what the
// cluster has of it, and the crossing gateways give what to write next. It looks at
// what is there, never at what was done before, so any agent may go on where another
// one ended. It guarantees that
//
//   - nothing of others' is written or deleted: a ServiceImport of ours bears
//     LabelManagedBy, a Service or EndpointSlice of ours kubernetes.LabelDerived too,
//     and where something without them has the name that we need, it stays, and the
//     import is not Ready;
//   - nothing is written where nothing differs;
//   - make before break: an EndpointSlice names an entry port of a crossing gateway
//     once the gateway takes connections there, slices go after those that come in
//     their place are there, and a ClusterSetIP stays for the life of the import;
//   - with no crossing gateway known, what clients have stays as it is.
//
// Where clients of a ClusterSetIP go. kube-proxy sends a connection to any endpoint of
// the derived Service alike, so the endpoints are the exporting clusters' own only where
// that is all there is to it (Import.Gateways false: one network, no routes, weights,
// drains or TLS). Everywhere else they are this cluster's crossing gateways, each with a
// port of its own for each port of the import: the entry ports (see Entries).
//
// EndpointSlices. One slice serves both readers: kube-proxy finds it by
// kubernetes.io/service-name (the derived Service), readers of MCS by
// multicluster.kubernetes.io/service-name and source-cluster. A slice of crossing
// gateways has this cluster as its source, for that is where its endpoints are. The
// slices of clusters that take no requests now (since nearer ones are well), and all of
// headless imports, lack the former label and bear service.kubernetes.io/headless
// instead, by which kube-proxy does not even watch them. Since kube-proxy forgets no
// slice that loses its label, the two forms of a slice have two names.
//
// Headless imports have a slice for each of the exporters' slices, with hostnames, from
// which CoreDNS's kubernetes plugin (multicluster) makes the names of pods and clusters.
// Pods of other networks have no address here, and so no name.
//
// Rims: Entries, which every replica runs, and Provisioner, which the leader runs.
// cmd/causeway/agent is the caller.
package provision
