// Package federation holds tests of ServiceImports as backends of Gateways' routes
// (GEP-1748), of which Gateway API's own conformance suite has none. They are written as
// the suite's are, on its helpers, and run by it, so that they can be offered upstream:
// each is a suite.ConformanceTest with its manifests in tests, which go into the cluster
// whose Gateways are called. What base/member.yaml has runs and is exported in another
// cluster of the clusterset.
//
// `make conformance-federation` runs them, on two clusters that don't reach each other's pods. They are a
// module of their own, as the suite's run is.
package federation
