//go:build !linux

package embedded

import (
	"net"
	"strconv"
)

// reservation is a port of 127.0.0.1 that was free when it was chosen. Holding it
// while it is not listened on is possible on Linux only.
type reservation struct{ port int }

// reservePort finds the given port, or any if it is 0, to be free.
func reservePort(port int) (*reservation, error) {
	l, err := net.Listen("tcp4", "127.0.0.1:"+strconv.Itoa(port))
	if err != nil {
		return nil, err
	}
	return &reservation{port: l.Addr().(*net.TCPAddr).Port}, l.Close()
}

func (r *reservation) close() error { return nil }
