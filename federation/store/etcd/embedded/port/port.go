// Package port keeps ports of loopback for somebody who listens there later, or not all the
// time: the embedded etcd, the xDS servers of `causeway up`, and whatever a test starts. A
// port that was merely found to be free is given to somebody else before long, on a machine
// where many processes ask for one.
package port

import "strconv"

// Port gives the number.
func (r *Reservation) Port() int { return r.port }

// Address is where the port's listener is to listen.
func (r *Reservation) Address() string { return "127.0.0.1:" + strconv.Itoa(r.port) }
