// Package tests holds conformance tests of ServiceImports as backends of Gateways' routes
// (GEP-1748), of which Gateway API's own suite has none. Each is a suite.ConformanceTest
// with its manifests beside it, on that suite's helpers alone; test/conformance/federation
// runs them and says what they need.
//
// The manifests go into the cluster whose Gateways are called. Backends called member-...
// run in another cluster of the clusterset, which exports them.
package tests

import "sigs.k8s.io/gateway-api/conformance/utils/suite"

// ConformanceTests are all of them, in the order of their files.
var ConformanceTests []suite.ConformanceTest
