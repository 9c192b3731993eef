// Package causewayv1 holds the records of the global store (store.proto) and
// the query API (federation.proto), with their generated code. It imports
// nothing of ours.
package causewayv1
