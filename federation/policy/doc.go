// Package policy is what the clusterset's administrators allow its clusters
// (DESIGN section 4): which namespaces a cluster may export, from which namespaces
// its routes may reach other clusters, and how much it may put into the store.
//
// # The model
//
// A Policy selects clusters, by name or by label, and says of them: namespaces to
// allow or to deny, for exports and for routes apart, and quotas. Policies have no
// order and no priority. For a cluster, a verb and a namespace (Rules.Refuses):
//
//  1. a policy that denies the namespace decides;
//  2. else, if policies of the cluster have allow lists for the verb, one of these
//     must have the namespace;
//  3. else it is allowed: without any policy everything is.
//
// Of several quotas the least holds. An allow list that is there and empty allows
// nothing, so that the one policy "all clusters, allow: []" turns the default round.
//
// # What is guaranteed
//
//   - Everything here is a pure function; a Set and its Rules are immutable.
//   - What Check lets pass compiles, and is bounded in size.
//   - Parse and Manifest are inverse to each other, so are Message and FromMessage.
//
// Package federation/record stores policies, package federation puts what they say
// of each cluster into the Snapshot, package federation/resolve obeys it; api/admin
// and cmd/causeway/client are how people change them.
package policy
