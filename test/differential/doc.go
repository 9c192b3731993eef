// Package differential holds the test that `causeway explain` tells the truth: it
// makes up clustersets with random routes of every kind, sends random requests,
// connections and datagrams through real Envoys that follow them (two sidecars, a Gateway,
// and the crossing gateway of a cluster in another network), and asks package
// federation/explain about each. The rules that governed, the set of backends, the
// request that the backend saw and the answer that the client got, or that the
// connection was closed, must be the same, every time.
//
//	go test ./test/differential                       # 500 requests and more
//	go test ./test/differential -seed 7 -worlds 1 -v  # one world again
//	go test ./test/differential -worlds 200           # a long run
//	go test ./test/differential -run Load -changes 2000
//
// A second test changes such a clusterset under load, and holds every answer against
// the configurations that there were.
//
// A failure prints the seed of its world, the request, what Envoy did and what
// was explained.
package differential
