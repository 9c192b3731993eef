// Package explain answers "where does this request go, and why?" from a
// resolve.Result: which frontend or listener it reaches, which group of routes
// governs it, which rule takes it and why each other rule does not, what is
// rewritten, and which clusters and endpoints answer with what share.
//
// It is pure, like package resolve, and decides nothing of its own: it evaluates
// the same tables that package xds/translate gives to Envoy, by Envoy's rules
// for matching and for the choice among priorities (overprovisioning factor
// 1.4). Package api/query calls it and prints its structs.
package explain
