// Package federation runs conformance tests of ServiceImports as backends of Gateways'
// routes (GEP-1748), of which Gateway API's own suite has none. They are written as the
// suite's are, on its helpers, and run by it, so that they can be offered upstream and
// other implementations can run them: README.md says how.
//
// Package tests has them. `make conformance-federation` runs them on two clusters of the
// lab that don't reach each other's pods, in which Causeway was installed from its chart,
// and fails if one fails or is skipped. They are a module of their own, as the suite's run is.
package federation
