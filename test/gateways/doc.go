// Package gateways holds Causeway as a Gateway controller to its promises on a real
// cluster, where Gateway API's own suite (test/conformance/gateway) does not look: what is
// made for a Gateway and what stays when it changes, whose rights are whose, and that
// nothing is left. `make e2e` runs it.
package gateways
