// Package mcs is KEP-1645 (Multi-Cluster Services API) as an executable suite: each case
// is named after what the KEP says, and holds it against real clusters, with real
// look-ups and connections of plain pods.
//
// `make e2e` runs it on three clusters: c1 in a network of its own, c2 and c3 in one.
package mcs
