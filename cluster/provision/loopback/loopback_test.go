package loopback

import (
	"net"
	"net/netip"
	"strconv"
	"testing"
)

func TestPool(t *testing.T) {
	p, q := NewPool(), NewPool() // as in two processes
	defer p.Close()
	defer q.Close()
	seen := map[netip.Addr]string{}
	take := func(pool *Pool, key string) netip.Addr {
		t.Helper()
		a, err := pool.Addr(key)
		if err != nil {
			t.Fatal(err)
		}
		if !a.IsLoopback() {
			t.Fatalf("%s is no loopback address", a)
		}
		return a
	}
	for i := range 1000 {
		for name, pool := range map[string]*Pool{"p": p, "q": q} {
			key := strconv.Itoa(i)
			a := take(pool, key)
			if old, dup := seen[a]; dup {
				t.Fatalf("%s was given to %s and to %s%s", a, old, name, key)
			}
			seen[a] = name + key
			if take(pool, key) != a {
				t.Fatalf("key %s has two addresses", key)
			}
		}
	}
	// A released address does not come back while there are fresh ones.
	a := take(p, "gone")
	p.Release("gone")
	if b := take(p, "next"); b == a {
		t.Errorf("%s was used again at once", a)
	}
	// Every address can be bound.
	l, err := net.Listen("tcp4", net.JoinHostPort(a.String(), "0"))
	if err != nil {
		t.Fatal(err)
	}
	l.Close()
}

func TestPoolUsesReleasedAddressesWhenNoFreshOneIsLeft(t *testing.T) {
	p := NewPool()
	defer p.Close()
	p.block, p.next = lastBlock, perBlock // no block is left
	if _, err := p.Addr("a"); err == nil {
		t.Fatal("an address came out of nothing")
	}
	want := netip.MustParseAddr("127.200.3.4")
	p.byKey["old"] = want
	p.Release("old")
	if got, err := p.Addr("a"); err != nil || got != want {
		t.Errorf("got %v, %v; want the released %v", got, err, want)
	}
}

func TestLowestPort(t *testing.T) {
	low := LowestPort()
	if low == 1 {
		t.Skip("this process may bind all ports")
	}
	if l, err := net.Listen("tcp4", net.JoinHostPort("127.0.0.1", strconv.Itoa(int(low)-1))); err == nil {
		l.Close()
		t.Errorf("port %d, below %d, could be bound", low-1, low)
	}
}
