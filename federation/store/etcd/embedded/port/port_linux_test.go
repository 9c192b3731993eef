package port_test

import (
	"net"
	"syscall"
	"testing"

	"github.com/causeway-mesh/causeway/federation/store/etcd/embedded/port"
)

// A reserved port refuses connections and is given to nobody; its owner may listen there,
// stop and listen again.
func TestReserve(t *testing.T) {
	r, err := port.Reserve(0)
	if err != nil {
		t.Fatal(err)
	}
	for range 2 {
		if c, err := net.Dial("tcp", r.Address()); err == nil {
			c.Close()
			t.Fatal("somebody answers")
		}
		for _, at := range []string{r.Address(), ":" + r.Address()[len("127.0.0.1:"):]} {
			l, err := net.Listen("tcp4", at)
			if err != nil {
				t.Fatal(err)
			}
			if c, err := net.Dial("tcp", r.Address()); err != nil {
				t.Error(err)
			} else {
				c.Close()
			}
			l.Close()
		}
	}
	// As a client's own port, without SO_REUSEADDR, the kernel may not give it.
	fd, err := syscall.Socket(syscall.AF_INET, syscall.SOCK_STREAM|syscall.SOCK_CLOEXEC, 0)
	if err != nil {
		t.Fatal(err)
	}
	defer syscall.Close(fd) //nolint:errcheck // the test is over
	if err := syscall.Bind(fd, &syscall.SockaddrInet4{Port: r.Port(), Addr: [4]byte{127, 0, 0, 1}}); err == nil {
		t.Error("the port is free for others")
	}
	if err := r.Close(); err != nil {
		t.Fatal(err)
	}
	again, err := port.Reserve(r.Port())
	if err != nil {
		t.Fatal(err)
	}
	if again.Port() != r.Port() || again.Address() != r.Address() {
		t.Errorf("%s in place of %s", again.Address(), r.Address())
	}
	if err := again.Close(); err != nil {
		t.Error(err)
	}
}
