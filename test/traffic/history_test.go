package traffic

import (
	"slices"
	"testing"
	"testing/synctest"
)

// A configuration is settled once the requests have ended that were under way when it was
// seen; those that began before may have been answered by older ones.
func TestSettle(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		var h History[string]
		h.Add("one")
		early := h.Begin()
		two := h.Add("two")
		settled := false
		go func() {
			h.Settle(two)
			settled = true
		}()
		synctest.Wait()
		late := h.Begin()
		if got := late.End(); settled || !slices.Equal(got, []string{"one", "two"}) {
			t.Errorf("settled %v while a request is under way; %q may have answered", settled, got)
		}
		if got := early.End(); !slices.Equal(got, []string{"one", "two"}) {
			t.Errorf("%q may have answered the early one", got)
		}
		synctest.Wait()
		if got := h.Begin().End(); !settled || !slices.Equal(got, []string{"two"}) {
			t.Errorf("settled %v after its end; %q may have answered", settled, got)
		}
	})
}

func TestFlight(t *testing.T) {
	var f Flight
	one, oldest := f.Begin()
	two, oldestOfTwo := f.Begin()
	f.End(one)
	three, oldestOfThree := f.Begin()
	if one != 1 || oldest != 1 || two != 2 || oldestOfTwo != 1 || three != 3 || oldestOfThree != 2 || f.Begun() != 3 {
		t.Error(one, oldest, two, oldestOfTwo, three, oldestOfThree, f.Begun())
	}
	f.End(two)
	f.End(three)
	f.Wait()
}
