package port

import (
	"fmt"
	"syscall"
)

// Reservation is a port of 127.0.0.1 that is bound but not listened on: nobody is
// given it as a free or ephemeral port, connections to it are refused, and a
// listener with SO_REUSEADDR, as Go's and Envoy's have it, can still be opened there. So
// the port is safe before its owner listens, while it is stopped, and after a restart.
type Reservation struct{ port, fd int }

// Reserve takes the given TCP port, or a free one if it is 0, until Close.
func Reserve(port int) (*Reservation, error) {
	fd, err := syscall.Socket(syscall.AF_INET, syscall.SOCK_STREAM|syscall.SOCK_CLOEXEC, 0)
	if err != nil {
		return nil, err
	}
	r, err := bind(fd, port)
	if err != nil {
		syscall.Close(fd) //nolint:errcheck // the bind error is the one that matters
		return nil, err
	}
	return r, nil
}

func bind(fd, port int) (*Reservation, error) {
	if err := syscall.SetsockoptInt(fd, syscall.SOL_SOCKET, syscall.SO_REUSEADDR, 1); err != nil {
		return nil, err
	}
	if err := syscall.Bind(fd, &syscall.SockaddrInet4{Port: port, Addr: [4]byte{127, 0, 0, 1}}); err != nil {
		return nil, err
	}
	sa, err := syscall.Getsockname(fd)
	if err != nil {
		return nil, err
	}
	in4, ok := sa.(*syscall.SockaddrInet4)
	if !ok {
		return nil, fmt.Errorf("unexpected socket address %T", sa)
	}
	return &Reservation{port: in4.Port, fd: fd}, nil
}

// Close gives the port up. Who listens there goes on.
func (r *Reservation) Close() error { return syscall.Close(r.fd) }
