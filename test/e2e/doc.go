// Package e2e runs Causeway in real clusters as its users do, by the commands of README.md
// and docs/kubernetes.md: charts, upgrades, failures, and going again (issue 5). What MCS
// demands is test/conformance/mcs's, what Gateway API does test/conformance/gateway's.
//
// `make e2e` runs it.
package e2e
