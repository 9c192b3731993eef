package status

import (
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"log/slog"
	"maps"
	"math/rand/v2"
	"reflect"
	"sync"
	"testing"
	"testing/synctest"
	"time"

	jsonpatch "gopkg.in/evanphx/json-patch.v4"
	apierrors "k8s.io/apimachinery/pkg/api/errors"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
	"k8s.io/apimachinery/pkg/runtime/schema"
	gatewayv1 "sigs.k8s.io/gateway-api/apis/v1"

	"github.com/causeway-mesh/causeway/cluster"
	"github.com/causeway-mesh/causeway/cluster/kubernetes"
)

// server is an API server, a watch that shows what it has after a while, and the
// resolver's verdicts.
type server struct {
	delay time.Duration

	mu       sync.Mutex
	objects  map[cluster.Ref]kubernetes.Live // as the server has them
	seen     map[cluster.Ref]*kubernetes.Live
	verdicts map[cluster.Ref]*Verdict
	writes   map[cluster.Ref]int
	inFlight int
	most     int
	fail     error
	w        *Writer
}

func newServer(t *testing.T, delay time.Duration) *server {
	s := &server{delay: delay, objects: map[cluster.Ref]kubernetes.Live{}, seen: map[cluster.Ref]*kubernetes.Live{}, verdicts: map[cluster.Ref]*Verdict{}, writes: map[cluster.Ref]int{}}
	var err error
	if s.w, err = NewWriter(Config{Live: s.live, Judge: s.judge, Patch: s.patch, Logger: slog.New(slog.NewTextHandler(t.Output(), nil))}); err != nil {
		t.Fatal(err)
	}
	return s
}

// run has the Writer run until stop.
func (s *server) run(t *testing.T) (stop func()) {
	ctx, cancel := context.WithCancel(t.Context())
	ended := make(chan error, 1)
	go func() { ended <- s.w.Run(ctx) }()
	return func() {
		t.Helper()
		cancel()
		if err := <-ended; err != nil {
			t.Error(err)
		}
	}
}

func (s *server) live(ref cluster.Ref) (*kubernetes.Live, bool) {
	s.mu.Lock()
	defer s.mu.Unlock()
	l, ok := s.seen[ref]
	return l, ok
}

func (s *server) judge(ref cluster.Ref) (*Verdict, bool) {
	s.mu.Lock()
	defer s.mu.Unlock()
	return s.verdicts[ref], true
}

// store puts an object into the server and has the watch show it later.
func (s *server) store(ref cluster.Ref, generation int64, status any) {
	old := s.objects[ref]
	var rv int
	_, _ = fmt.Sscan(old.ResourceVersion, &rv)
	next := kubernetes.Live{ResourceVersion: fmt.Sprint(rv + 1), Generation: generation, Status: status}
	s.objects[ref] = next
	time.AfterFunc(s.delay, func() {
		s.mu.Lock()
		s.seen[ref] = &next
		s.mu.Unlock()
		s.w.Touch([]cluster.Ref{ref})
	})
}

func (s *server) patch(_ context.Context, ref cluster.Ref, patch []byte, _ string) error {
	s.mu.Lock()
	s.inFlight++
	s.most = max(s.most, s.inFlight)
	s.mu.Unlock()
	time.Sleep(5 * time.Millisecond)
	s.mu.Lock()
	defer s.mu.Unlock()
	s.inFlight--
	s.writes[ref]++
	if s.fail != nil {
		return s.fail
	}
	var doc struct {
		Metadata struct{ ResourceVersion string }
		Status   json.RawMessage
	}
	if err := json.Unmarshal(patch, &doc); err != nil {
		return err
	}
	now := s.objects[ref]
	if doc.Metadata.ResourceVersion != now.ResourceVersion {
		return apierrors.NewConflict(schema.GroupResource{}, ref.Name, errors.New("modified"))
	}
	raw, err := json.Marshal(now.Status)
	if err != nil {
		return err
	}
	if raw, err = jsonpatch.MergePatch(raw, doc.Status); err != nil {
		return err
	}
	next := reflect.New(reflect.TypeOf(now.Status).Elem()).Interface()
	if err := json.Unmarshal(raw, next); err != nil {
		return err
	}
	s.store(ref, now.Generation, next)
	return nil
}

func (s *server) edit(change func()) {
	s.mu.Lock()
	defer s.mu.Unlock()
	change()
}

func verdict(generation int64, ok bool) *Verdict {
	return &Verdict{Generation: generation, Parents: []Parent{{parentRef("front"), []metav1.Condition{cond("Accepted", ok, "Accepted")}}}}
}

func route(n int) cluster.Ref {
	return cluster.Ref{Kind: cluster.KindHTTPRoute, Namespace: "app", Name: fmt.Sprint("route-", n)}
}

// One write for an object's change, however often it is touched, whether the watch
// or the resolver is first, and whether or not it fails on the way; nobody but the
// leader writes, and a new leader finds nothing to do.
func TestWriter(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		s := newServer(t, 20*time.Millisecond)
		const routes = 300
		var all []cluster.Ref
		s.edit(func() {
			for i := range routes {
				s.store(route(i), 1, &gatewayv1.RouteStatus{})
				all = append(all, route(i))
			}
		})
		time.Sleep(time.Second) // the watch shows them; nobody leads, nobody has judged
		if len(s.writes) > 0 {
			t.Fatalf("written without a leader: %v", s.writes)
		}
		stop := s.run(t)
		s.edit(func() {
			for _, ref := range all {
				s.verdicts[ref] = verdict(1, true)
			}
		})
		s.w.Judged(all)
		for range 50 {
			s.w.Touch(all)
			time.Sleep(time.Millisecond)
		}
		time.Sleep(20 * time.Second)
		check := func(what string, want map[cluster.Ref]int) {
			t.Helper()
			s.edit(func() {
				if !maps.Equal(s.writes, want) {
					t.Errorf("%s: %d objects were written, as in %d for the first, want %d and %d", what, len(s.writes), s.writes[route(0)], len(want), want[route(0)])
				}
				clear(s.writes)
			})
		}
		once := map[cluster.Ref]int{}
		for _, ref := range all {
			once[ref] = 1
		}
		check("the first verdicts", once)
		if s.most > workers {
			t.Errorf("%d writes at a time", s.most)
		}

		// The object changes first, and its verdict comes later.
		s.edit(func() { s.store(route(0), 2, s.objects[route(0)].Status.(*gatewayv1.RouteStatus)) })
		time.Sleep(time.Second)
		check("a generation that nobody has judged", map[cluster.Ref]int{})
		s.edit(func() { s.verdicts[route(0)] = verdict(2, true) })
		s.w.Judged(nil) // the report is the same, but for the generation
		time.Sleep(time.Second)
		check("the same verdict on a new generation", map[cluster.Ref]int{route(0): 1})

		// The verdict is changed again before the watch has shown the first write.
		s.edit(func() { s.delay = 500 * time.Millisecond; s.verdicts[route(1)] = verdict(1, false) })
		s.w.Judged([]cluster.Ref{route(1)})
		time.Sleep(100 * time.Millisecond)
		s.edit(func() { s.verdicts[route(1)] = verdict(1, true) })
		s.w.Judged([]cluster.Ref{route(1)})
		time.Sleep(10 * time.Second)
		check("two changes", map[cluster.Ref]int{route(1): 2})

		// Somebody else is faster.
		s.edit(func() {
			theirs := gatewayv1.RouteParentStatus{ParentRef: parentRef("front"), ControllerName: "example.com/other"}
			old := s.objects[route(2)].Status.(*gatewayv1.RouteStatus)
			s.store(route(2), 1, &gatewayv1.RouteStatus{Parents: append([]gatewayv1.RouteParentStatus{theirs}, old.Parents...)})
			s.verdicts[route(2)] = verdict(1, false)
		})
		s.w.Judged([]cluster.Ref{route(2)})
		time.Sleep(10 * time.Second)
		check("a conflict", map[cluster.Ref]int{route(2): 2})
		s.edit(func() {
			p := s.objects[route(2)].Status.(*gatewayv1.RouteStatus).Parents
			if len(p) != 2 || p[0].ControllerName != "example.com/other" || p[1].Conditions[0].Status != metav1.ConditionFalse {
				t.Errorf("after a conflict the parents are %s", dump(p))
			}
		})

		// The server is away for half a minute.
		s.edit(func() { s.fail = errors.New("connection refused"); s.verdicts[route(3)] = verdict(1, false) })
		s.w.Judged([]cluster.Ref{route(3)})
		time.Sleep(30 * time.Second)
		s.edit(func() {
			if n := s.writes[route(3)]; n < 3 || n > 7 {
				t.Errorf("%d attempts in 30 s", n)
			}
			clear(s.writes)
			s.fail = nil
		})
		time.Sleep(40 * time.Second)
		check("after an outage", map[cluster.Ref]int{route(3): 1})

		// The next leader looks at everything and has nothing to do.
		stop()
		stop = s.run(t)
		s.w.Touch(all)
		time.Sleep(10 * time.Second)
		check("a new leader", map[cluster.Ref]int{})
		stop()
		time.Sleep(time.Minute) // timers
	})
}

// A status that changes a thousand times in a few seconds is written when that begins and
// when it ends, and not between; a change of the object itself is answered at once.
func TestPace(t *testing.T) {
	t.Parallel()
	synctest.Test(t, func(t *testing.T) {
		s := newServer(t, 3*time.Millisecond)
		stop := s.run(t)
		ref := cluster.Ref{Kind: cluster.KindHTTPRoute, Namespace: "app", Name: "busy"}
		judge := func(generation int64, message string) {
			s.mu.Lock()
			s.verdicts[ref] = &Verdict{Generation: generation, Parents: []Parent{{Ref: gatewayv1.ParentReference{Name: "front"}, Conditions: []metav1.Condition{{Type: "Accepted", Status: metav1.ConditionTrue, Reason: "Accepted", Message: message}}}}}
			s.mu.Unlock()
			s.w.Judged([]cluster.Ref{ref})
		}
		says := func(want string, writes int) {
			t.Helper()
			s.mu.Lock()
			defer s.mu.Unlock()
			p := s.objects[ref].Status.(*gatewayv1.RouteStatus).Parents
			if len(p) != 1 || p[0].Conditions[0].Message != want || s.writes[ref] != writes {
				t.Errorf("after %d writes it says %+v; want %q after %d", s.writes[ref], p, want, writes)
			}
		}
		s.mu.Lock()
		s.store(ref, 1, &gatewayv1.RouteStatus{})
		s.mu.Unlock()
		time.Sleep(time.Second)
		for i := range 1000 {
			judge(1, fmt.Sprint(i))
			time.Sleep(4 * time.Millisecond)
		}
		time.Sleep(telling.quiet + 50*time.Millisecond)
		says("999", 2)

		// Three times as many right after that cost one more.
		for i := range 3000 {
			judge(1, fmt.Sprint("on ", i))
			time.Sleep(4 * time.Millisecond)
		}
		time.Sleep(2 * telling.quiet << telling.growth)
		says("on 2999", 3)

		s.mu.Lock()
		s.store(ref, 2, s.objects[ref].Status.(*gatewayv1.RouteStatus))
		s.mu.Unlock()
		time.Sleep(5 * time.Millisecond)
		judge(2, "of the next generation")
		time.Sleep(20 * time.Millisecond)
		says("of the next generation", 4)
		stop()
	})
}

// What somebody waits for does not wait for the pace of what changes beside it, and what
// turns to and fro without an end is written rarely.
func TestTurns(t *testing.T) {
	t.Parallel()
	synctest.Test(t, func(t *testing.T) {
		s := newServer(t, 3*time.Millisecond)
		stop := s.run(t)
		ref := cluster.Ref{Kind: cluster.KindHTTPRoute, Namespace: "app", Name: "waited-for"}
		judge := func(ok bool, message string) {
			s.mu.Lock()
			v := verdict(1, ok)
			v.Parents[0].Conditions[0].Message = message
			s.verdicts[ref] = v
			s.mu.Unlock()
			s.w.Judged([]cluster.Ref{ref})
		}
		written := func() int {
			s.mu.Lock()
			defer s.mu.Unlock()
			return s.writes[ref]
		}
		says := func() metav1.ConditionStatus {
			s.mu.Lock()
			defer s.mu.Unlock()
			return s.objects[ref].Status.(*gatewayv1.RouteStatus).Parents[0].Conditions[0].Status
		}
		s.mu.Lock()
		s.store(ref, 1, &gatewayv1.RouteStatus{})
		s.mu.Unlock()
		time.Sleep(time.Second)
		judge(false, "")
		time.Sleep(20 * time.Millisecond)
		judge(true, "at once after the first write")
		time.Sleep(turning.quiet + 20*time.Millisecond)
		if n := written(); n != 2 || says() != metav1.ConditionTrue {
			t.Fatalf("after %d writes it says %s", n, says())
		}
		for i := range 20 { // held for the sake of these
			judge(true, fmt.Sprint(i))
			time.Sleep(20 * time.Millisecond)
		}
		judge(false, "")
		time.Sleep(20 * time.Millisecond)
		if n := written(); n != 3 || says() != metav1.ConditionFalse {
			t.Errorf("20 ms after it has turned, after %d writes, it says %s", n, says())
		}

		for i := range 10_000 {
			judge(i%2 == 0, "")
			time.Sleep(4 * time.Millisecond)
		}
		time.Sleep(turning.longest + time.Second)
		if n := written(); n < 8 || n > 25 || says() != metav1.ConditionFalse {
			t.Errorf("40 s of turning gave %d writes, and it says %s", n-3, says())
		}
		stop()
		time.Sleep(time.Minute) // timers
	})
}

// A Gateway to which a thousand routes come at once has its status written three times
// at most, however slow and halting that is, is right soon after, and what people wait for
// does not wait with the numbers.
func TestPaceOfCounts(t *testing.T) {
	t.Parallel()
	for name, c := range map[string]struct {
		every time.Duration // on average from one to the next
		pause time.Duration // now and then
		after time.Duration // within which the last number is there
	}{
		"fast":           {time.Millisecond, 0, time.Second},
		"slow":           {10 * time.Millisecond, 300 * time.Millisecond, 3 * time.Second},
		"slow, halting":  {40 * time.Millisecond, 1500 * time.Millisecond, 11 * time.Second},
		"slower, steady": {90 * time.Millisecond, 0, 11 * time.Second},
	} {
		t.Run(name, func(t *testing.T) {
			t.Parallel()
			synctest.Test(t, func(t *testing.T) {
				s := newServer(t, 3*time.Millisecond)
				stop := s.run(t)
				defer func() { stop(); time.Sleep(time.Hour) }() // timers
				chance := rand.New(rand.NewPCG(1, 1))
				ref := cluster.Ref{Kind: cluster.KindGateway, Namespace: "app", Name: "busy"}
				s.edit(func() { s.store(ref, 1, &gatewayv1.GatewayStatus{}) })
				judge := func(attached int, programmed bool) {
					s.edit(func() {
						s.verdicts[ref] = &Verdict{Generation: 1, Conditions: []metav1.Condition{cond("Programmed", programmed, "Programmed")}, Listeners: []Listener{{Name: "http", AttachedRoutes: int32(attached)}}}
					})
					s.w.Judged([]cluster.Ref{ref})
				}
				status := func() (out gatewayv1.GatewayStatus, writes int) {
					s.mu.Lock()
					defer s.mu.Unlock()
					return *s.objects[ref].Status.(*gatewayv1.GatewayStatus), s.writes[ref]
				}
				judge(0, true)
				time.Sleep(time.Minute)
				s.edit(func() { clear(s.writes) })
				for _, target := range []func(i int) int{func(i int) int { return i }, func(i int) int { return 1000 - i }} {
					for i := range 1001 {
						judge(target(i), true)
						if c.pause > 0 && i%150 == 149 {
							time.Sleep(c.pause)
						}
						time.Sleep(time.Duration(chance.Int64N(int64(2 * c.every))))
					}
					time.Sleep(c.after)
					if st, n := status(); st.Listeners[0].AttachedRoutes != int32(target(1000)) || n > 3 {
						t.Errorf("after %d writes %d routes are attached, want %d", n, st.Listeners[0].AttachedRoutes, target(1000))
					}
					time.Sleep(time.Minute)
					s.edit(func() { clear(s.writes) })
				}

				// A condition that changes meanwhile is there after the pause of conditions.
				for i := range 500 {
					judge(i, i < 300)
					time.Sleep(2 * time.Millisecond)
					if i == 300 {
						time.Sleep(turning.quiet)
						time.Sleep(20 * time.Millisecond)
						if st, _ := status(); st.Conditions[0].Status != metav1.ConditionFalse || st.Listeners[0].AttachedRoutes != 300 {
							t.Errorf("a condition waits with the numbers: %+v", st)
						}
					}
				}
			})
		})
	}
}

// However long changes go on, the writes are few: their number is a logarithm of the time
// until a pause is as long as it may be.
func TestPaceWithoutEnd(t *testing.T) {
	t.Parallel()
	now := time.Now()
	for name, want := range map[string]struct {
		pace  pace
		waits []time.Duration
	}{
		"telling": {telling, []time.Duration{30 * time.Second, 2 * time.Minute, 5 * time.Minute, 5 * time.Minute}},
		"turning": {turning, []time.Duration{5 * time.Second, 5 * time.Second}},
	} {
		for waited, d := range want.waits {
			// Something has changed just now, again and again since.
			h := held{pace: want.pace, since: now.Add(-d), heard: now, began: now.Add(-d), waited: waited}
			if left := h.left(now); left != 0 {
				t.Errorf("%s: after %d that have waited, it waits %s beyond %s", name, waited, left, d)
			}
			if h.since = h.since.Add(time.Millisecond); h.left(now) != time.Millisecond {
				t.Errorf("%s: after %d that have waited, it does not wait for %s", name, waited, d)
			}
		}
	}
}
