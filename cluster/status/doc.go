// Package status writes what this cluster's agent found out into the status of
// the cluster's own objects: routes, Gateways, ListenerSets, GatewayClasses,
// BackendTLSPolicies, ServiceExports and ServiceImports.
//
// The middle is a pure function, Plan: an object as the API server has it and a
// Verdict on it give a patch, or none where the object says all of that already.
// It guarantees that
//
//   - only what is ours changes: of routes the parents' entries and of policies
//     the ancestors' entries that bear our controller name, elsewhere the
//     conditions of the types that we write. Foreign entries and foreign conditions
//     stay, in their places;
//   - each condition bears the generation of the object that was judged, and the
//     time of its last transition is kept while its status stays;
//   - a route's parents stay within 32, a policy's ancestors within 16: foreign
//     ones have precedence.
//
// The rim is the Writer. It runs in the leader alone, looks at each object once
// for any number of changes, writes at a bounded rate, and never against a version
// of the object other than the one that was looked at: parents and ancestors are
// atomic lists, which server-side apply would take from their other writers, so a
// patch names the resourceVersion that it was made for and is made anew when it is
// refused (docs/decisions/010). A status that goes on changing while its object does not is
// written when that begins and once it is quiet: numbers and messages, such as of a Gateway
// whose routes arrive, meanwhile only after half a minute, two minutes, and then every five; but
// what somebody may wait for, such as a condition that turns, within a quarter of a second.
//
// Standards: Gateway API's rules for conditions (the notes for implementors of
// each status), KEP-1645.
package status
