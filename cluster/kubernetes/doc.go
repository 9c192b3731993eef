// Package kubernetes is the cluster that is a real one. Its Source reads the
// cluster's API server and delivers the same events, with the same values, as
// cluster/file does for a folder of manifests; its Client writes what other
// parts of the agent have to write.
//
// It guarantees that
//
//   - the first batch with Synced holds every kind that the API server serves,
//     in full, with all Secrets and ConfigMaps that they refer to; later ones
//     hold what has changed since, and only objects whose value has changed;
//   - a CustomResourceDefinition that is missing (Gateway API, Multi-Cluster
//     Services) is an empty kind. It is picked up when it arrives, in the best
//     version that is served, and let go once discovery has twice said that it is
//     gone. No answer at all is not "gone";
//   - losing the API server changes nothing but Connected. One prober looks for
//     it twice a second, and all reflectors go on the moment it answers: client-go
//     alone would wait up to a minute (see gate);
//   - a start without the API server delivers what the last run wrote to disk,
//     if Config.Dir says where, and corrects it when the API server is back.
//
// Memory: objects are trimmed before they are kept (managed fields, applied
// configuration, owners); EndpointSlices are packed; statuses are kept apart, and
// only of kinds whose status the agent writes (Live). Of Secrets and ConfigMaps
// only those are read that a Gateway, ListenerSet or BackendTLSPolicy names, each
// by a watch of its own, and of those only certificates, keys and authorities.
//
// Core kinds travel as Protocol Buffers, custom ones as JSON. Each kind has one
// watch, on one HTTP/2 connection that is pinged: a dead one is noticed in 8 s.
//
// cmd/causeway is the caller. Rules lists all rights that the agent needs.
package kubernetes
