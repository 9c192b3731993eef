// Package gateway runs the conformance suite of Gateway API, unmodified, against a real
// cluster in which Causeway was installed from its chart: all of its profiles of gateways,
// every core test and every extended feature of each, on the experimental and on the
// standard channel. `make conformance` runs it (RUN=HTTPRouteCORS: one test,
// CHANNEL=standard: one channel) and it leaves the suite's reports in docs/conformance.
//
// It fails if a test fails; if one is skipped, but for those of meshes and those whose
// features the channel's CRDs have no fields for; and if a GatewayClass does not list a
// feature that a profile counts.
//
// It is a module of its own, so that what the suite requires stays out of Causeway's go.mod.
package gateway
