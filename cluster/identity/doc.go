// Package identity gives every part of a cluster its name and proves it: SPIFFE
// trust domains and ids, the certificate authority of one cluster, the bundles
// of all clusters, and the TLS configurations made of them.
//
// # What is guaranteed
//
//   - A cluster is a trust domain of its own, <cluster>.<clusterset>. An
//     Authority issues ids of its own trust domain and refuses every other; its
//     root bears that trust domain as a critical URI name constraint, and
//     verifiers here and in Envoy look up roots by the trust domain of the peer's
//     id. So a cluster can neither speak for another nor issue its names.
//   - Roots rotate with overlap: a new root is in the bundle for Config.Ahead
//     before it signs, an old one stays until the last leaf that it can have
//     signed has expired. Keys that no longer sign are erased.
//   - Files that hold keys have mode 0600 and change atomically; a certificate,
//     its key and its bundle change together (WriteDir).
//   - Everything that holds a private key redacts itself when printed, logged or
//     marshalled.
//   - TLS configurations read the SVID and the bundles at each handshake, also at
//     resumption, so rotation needs no restart and cuts no connection.
//
// # Who calls it
//
// Agents issue SVIDs to their proxies (over SDS or by files), to themselves and
// to people; hubs and `causeway up` do so for the clusterset's own trust domain.
// StoreAuthority is apart: etcd knows users by common name, not by SPIFFE id, so
// it has a plain CA.
//
// The rules are those of the SPIFFE X.509-SVID standard and RFC 5280. All types
// may be used from any goroutine. Time is the process's clock; tests put it
// under testing/synctest.
package identity
