package embedded

import (
	"fmt"
	"syscall"
)

// reservation is a port of 127.0.0.1 that is bound but not listened on: nobody is
// given it as a free or ephemeral port, connections to it are refused, and a
// listener with SO_REUSEADDR, as Go's have it, can still be opened there. So the
// port is safe both before etcd listens and while it is stopped.
type reservation struct{ port, fd int }

// reservePort takes the given port, or a free one if it is 0.
func reservePort(port int) (*reservation, error) {
	fd, err := syscall.Socket(syscall.AF_INET, syscall.SOCK_STREAM|syscall.SOCK_CLOEXEC, 0)
	if err != nil {
		return nil, err
	}
	r, err := bindPort(fd, port)
	if err != nil {
		syscall.Close(fd) //nolint:errcheck // the bind error is the one that matters
		return nil, err
	}
	return r, nil
}

func bindPort(fd, port int) (*reservation, error) {
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
	return &reservation{port: in4.Port, fd: fd}, nil
}

func (r *reservation) close() error { return syscall.Close(r.fd) }
