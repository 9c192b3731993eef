// Package differential holds the test that `causeway explain` tells the truth: it
// makes up clustersets with random routes, sends random requests through real
// Envoys that follow them, and asks package federation/explain about each. The
// rules that governed, the set of backends, the request that the backend saw and
// the answer that the client got must be the same, every time.
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
