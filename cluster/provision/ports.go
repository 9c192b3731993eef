package provision

import (
	"cmp"
	"fmt"
	"hash/fnv"
	"slices"

	corev1 "k8s.io/api/core/v1"
)

// PortRange is a range of port numbers, both ends included.
type PortRange struct{ First, Last uint16 }

// DefaultEntryPorts are below the ports that Linux gives to outgoing connections, and
// beside those of Envoys (15000 to 15999).
var DefaultEntryPorts = PortRange{16000, 31999}

func (r PortRange) size() int { return int(r.Last) - int(r.First) + 1 }

func (r PortRange) has(n int32) bool { return n >= int32(r.First) && n <= int32(r.Last) }

func (r PortRange) validate() error {
	if r.First < 1024 || r.Last < r.First {
		return fmt.Errorf("entry ports %d-%d: give a range from 1024 to 65535, of as many ports as there will be ports of imports", r.First, r.Last)
	}
	return nil
}

// entryKey is a port of an import. The allocations of TCP and of UDP are apart.
type entryKey struct {
	Name
	protocol corev1.Protocol
	port     int32
}

func (k entryKey) String() string { return fmt.Sprintf("%s:%d/%s", k.Name, k.port, k.protocol) }

// socket is an entry port of the crossing gateways.
type socket struct {
	protocol corev1.Protocol
	number   uint16
}

// allocation is who has which entry port, as the derived Services record it by their
// targetPorts: that record is all there is, and every agent reads the same. Where two
// Services record one socket, as they may after two agents thought that they lead, the
// older has it.
type allocation struct {
	pool    PortRange
	byKey   map[entryKey]uint16
	holders map[socket][]claim // the first has it
}

// claim is a record of a socket.
type claim struct {
	key entryKey
	age string // sorts the older before the younger
}

func newAllocation(pool PortRange) *allocation {
	return &allocation{pool: pool, byKey: map[entryKey]uint16{}, holders: map[socket][]claim{}}
}

// recorded reads the entry ports of a derived Service.
func (a *allocation) recorded(n Name, s *corev1.Service) map[entryKey]uint16 {
	out := map[entryKey]uint16{}
	for _, p := range s.Spec.Ports {
		if (p.Protocol == corev1.ProtocolTCP || p.Protocol == corev1.ProtocolUDP) && a.pool.has(p.TargetPort.IntVal) {
			out[entryKey{n, p.Protocol, p.Port}] = uint16(p.TargetPort.IntVal)
		}
	}
	return out
}

// set takes over what a Service records, nil for none. It reports the imports whose
// entries may differ now.
func (a *allocation) set(n Name, s *corev1.Service) []Name {
	touched := map[Name]bool{n: true}
	var next map[entryKey]uint16
	age := ""
	if s != nil {
		next = a.recorded(n, s)
		age = s.CreationTimestamp.UTC().Format("2006-01-02T15:04:05Z") + " " + n.String()
	}
	for k, number := range a.byKey {
		if k.Name != n || next[k] == number {
			continue
		}
		sock := socket{k.protocol, number}
		delete(a.byKey, k)
		rest := slices.DeleteFunc(a.holders[sock], func(c claim) bool { return c.key == k })
		if a.holders[sock] = rest; len(rest) == 0 {
			delete(a.holders, sock)
		} else {
			touched[rest[0].key.Name] = true
		}
	}
	for k, number := range next {
		sock := socket{k.protocol, number}
		list := slices.DeleteFunc(a.holders[sock], func(c claim) bool { return c.key == k })
		if len(list) > 0 {
			touched[list[0].key.Name] = true
		}
		list = append(list, claim{k, age})
		slices.SortFunc(list, func(x, y claim) int { return cmp.Compare(x.age, y.age) })
		a.holders[sock], a.byKey[k] = list, number
	}
	out := make([]Name, 0, len(touched))
	for t := range touched {
		out = append(out, t)
	}
	return out
}

// get gives the entry port that a key has: the one that is recorded, unless an older
// record has it too.
func (a *allocation) get(k entryKey) (uint16, bool) {
	number, ok := a.byKey[k]
	if !ok || a.holders[socket{k.protocol, number}][0].key != k {
		return 0, false
	}
	return number, true
}

// choose gives a key its entry port: what it has, else the first free one in an order of
// its own, which a hash of the key gives, so that an allocation that is lost comes back
// the same but for collisions. also are sockets that are about to be recorded.
func (a *allocation) choose(k entryKey, also map[socket]bool) (uint16, error) {
	if number, ok := a.get(k); ok {
		return number, nil
	}
	size := a.pool.size()
	h := fnv.New64a()
	_, _ = h.Write([]byte(k.String()))
	sum := h.Sum64()
	// An odd step of a hash visits all of a range whose size is a power of 2, and where
	// it isn't, what is left is visited one by one.
	at, step := int(sum%uint64(size)), int(sum>>32)%size|1
	for i := range 2 * size {
		n := a.pool.First + uint16((at+i*step)%size)
		if i >= size {
			n = a.pool.First + uint16((at+i)%size)
		}
		if s := (socket{k.protocol, n}); len(a.holders[s]) == 0 && !also[s] {
			return n, nil
		}
	}
	return 0, fmt.Errorf("all %d entry ports for %s are taken: give the agents a larger range", size, k.protocol)
}
