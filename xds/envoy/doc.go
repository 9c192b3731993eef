// Package envoy finds real Envoy binaries, runs them, and lets them judge a
// bootstrap. `causeway up` runs its proxies with it, and so do tests.
//
// What is guaranteed of a Process:
//
//   - It is started again when it ends by itself, after a pause that grows from
//     0.2 to 10 s and shrinks again once it has run for half a minute; the log says
//     how it ended and shows the last that it printed.
//   - When its context ends it is drained (where asked for), asked to stop, and
//     killed if it has not within Grace. Run returns once it is gone.
//   - It does not outlive this process, not even one that is killed: the kernel
//     kills it then. It is in a process group of its own, so that the terminal's
//     Ctrl-C reaches this process alone, which stops it in order.
//   - What it prints goes to a file of bounded size. A full disk loses lines, never
//     the Envoy.
package envoy
