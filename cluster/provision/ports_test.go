package provision

import (
	"fmt"
	"testing"
	"time"

	corev1 "k8s.io/api/core/v1"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
	"k8s.io/apimachinery/pkg/util/intstr"
	"pgregory.net/rapid"
)

func recording(created int, ports map[int32]uint16) *corev1.Service {
	s := &corev1.Service{ObjectMeta: metav1.ObjectMeta{CreationTimestamp: metav1.NewTime(time.Unix(int64(created), 0))}}
	for n, entry := range ports {
		s.Spec.Ports = append(s.Spec.Ports, corev1.ServicePort{Port: n, Protocol: corev1.ProtocolTCP, TargetPort: intstr.FromInt32(int32(entry))})
	}
	return s
}

// The same ports without any record, whatever the order; what is recorded wins.
func TestEntryPortsAreStable(t *testing.T) {
	choose := func(a *allocation, i int) uint16 {
		n, err := a.choose(entryKey{Name{"ns", fmt.Sprint("svc-", i)}, corev1.ProtocolTCP, 80}, nil)
		if err != nil {
			t.Fatal(err)
		}
		a.set(Name{"ns", fmt.Sprint("svc-", i)}, recording(i, map[int32]uint16{80: n}))
		return n
	}
	a, b := newAllocation(DefaultEntryPorts), newAllocation(DefaultEntryPorts)
	same, seen := 0, map[uint16]bool{}
	first := map[int]uint16{}
	for i := range 1000 {
		first[i] = choose(a, i)
		if seen[first[i]] {
			t.Fatalf("port %d is given twice", first[i])
		}
		seen[first[i]] = true
	}
	for i := 999; i >= 0; i-- {
		if choose(b, i) == first[i] {
			same++
		}
	}
	if same < 900 {
		t.Errorf("of 1000 ports %d are the same in another order", same)
	}
	for i := range 1000 {
		if n := choose(a, i); n != first[i] {
			t.Errorf("service %d had %d recorded and gets %d", i, first[i], n)
		}
	}
}

// Two records of one socket, as after two leaders: the older Service has it, in whatever
// order they are seen, and the younger gets another.
func TestOlderRecordWins(t *testing.T) {
	old, young := Name{"ns", "old"}, Name{"ns", "young"}
	k := func(n Name) entryKey { return entryKey{n, corev1.ProtocolTCP, 80} }
	for _, order := range [][]Name{{old, young}, {young, old}} {
		a := newAllocation(PortRange{20000, 20009})
		for _, n := range order {
			a.set(n, recording(map[Name]int{old: 1, young: 2}[n], map[int32]uint16{80: 20005}))
		}
		if n, ok := a.get(k(old)); !ok || n != 20005 {
			t.Errorf("%v: the older has %d, %v", order, n, ok)
		}
		if _, ok := a.get(k(young)); ok {
			t.Errorf("%v: the younger has it too", order)
		}
		if n, err := a.choose(k(young), nil); err != nil || n == 20005 {
			t.Errorf("%v: the younger gets %d, %v", order, n, err)
		}
		a.set(old, nil)
		if n, ok := a.get(k(young)); !ok || n != 20005 {
			t.Errorf("%v: the older went, and the younger has %d, %v", order, n, ok)
		}
	}
}

// Each socket has one holder at most, all of a range can be given, and then none.
func TestEntryPortsAreUnique(t *testing.T) {
	rapid.Check(t, func(t *rapid.T) {
		size := rapid.IntRange(1, 12).Draw(t, "size")
		a := newAllocation(PortRange{20000, uint16(20000 + size - 1)})
		for i := range size {
			n := Name{"ns", fmt.Sprint(rapid.Uint32().Draw(t, "name"), "-", i)}
			p, err := a.choose(entryKey{n, corev1.ProtocolTCP, 80}, nil)
			if err != nil {
				t.Fatalf("port %d of %d: %v", i, size, err)
			}
			for k := range a.byKey {
				if got, _ := a.get(k); got == p {
					t.Fatalf("%d is given twice", p)
				}
			}
			a.set(n, recording(i, map[int32]uint16{80: p}))
		}
		if p, err := a.choose(entryKey{Name{"ns", "more"}, corev1.ProtocolTCP, 80}, nil); err == nil {
			t.Fatalf("all are taken, and there is %d", p)
		}
		if _, err := a.choose(entryKey{Name{"ns", "more"}, corev1.ProtocolUDP, 80}, nil); err != nil {
			t.Fatalf("UDP has ports of its own: %v", err)
		}
	})
}
