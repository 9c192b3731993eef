// Package query serves the query API, causeway.v1.Federation, on agents and
// hubs (DESIGN section 5).
//
// # What is guaranteed
//
//   - Handlers read published, immutable values: Results, their Snapshots and
//     the status of proxies. They never resolve or translate anything, save
//     Explain, which evaluates one request on published tables, and answers of
//     the past, which come from a History.
//   - Every caller is authenticated and sees what its Scope lets it see. What it
//     may not see is left out everywhere, as if it didn't exist.
//   - Everything is bounded: the size of requests, rows and bytes of a page, the
//     time of a call, the number of watches. A slow watcher costs its own stream
//     the states in between, and nobody else anything: there is no queue.
//   - A panic in a handler ends that call with INTERNAL, is counted and logged.
//   - Errors become gRPC codes in one place, codeOf.
//
// # Who calls it
//
// An agent, a hub or `causeway up` makes one Server and runs it on a listener.
// The functions in its Config may be called from any goroutine at any time.
package query
