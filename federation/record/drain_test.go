package record_test

import (
	"errors"
	"strings"
	"testing"
	"time"

	"google.golang.org/protobuf/proto"
	"pgregory.net/rapid"

	causewayv1 "github.com/causeway-mesh/causeway/api/causeway/v1"
	"github.com/causeway-mesh/causeway/federation/record"
	"github.com/causeway-mesh/causeway/federation/store"
)

func TestDrainRoundTrip(t *testing.T) {
	for _, want := range []record.Drain{
		{From: 0, Target: 100, Started: time.UnixMilli(1_800_000_000_123).UTC(), Over: 30 * time.Second},
		{From: 73, Target: 0, Started: time.UnixMilli(1).UTC()},
		{From: 100, Target: 100, Started: time.UnixMilli(0).UTC(), Over: record.MaxDrainOver},
	} {
		r, err := record.EncodeDrain(east, want)
		if err != nil {
			t.Fatal(err)
		}
		p, err := record.DecodePolicy(kv(r))
		if err != nil || p.Cluster != east || *p.Drain != want {
			t.Errorf("%+v comes back as %+v, %v", want, p, err)
		}
	}
	now := time.Now()
	for what, d := range map[string]record.Drain{
		"100%": {Target: 101, Started: now}, "0%": {From: -1, Started: now}, "takes": {Over: record.MaxDrainOver + 1, Started: now}, "takes -1": {Over: -1, Started: now},
		"start": {},
	} {
		if _, err := record.EncodeDrain(east, d); err == nil || !strings.Contains(err.Error(), what) || !strings.Contains(err.Error(), string(east)) {
			t.Errorf("%+v: error %v does not say %q", d, err, what)
		}
	}
	if _, err := record.EncodeDrain("Not.A.Cluster", record.Drain{Started: now}); !errors.Is(err, store.ErrInvalid) {
		t.Errorf("bad cluster: %v", err)
	}
}

// A record of the policy that is not sound is refused, by key.
func TestPolicyRefused(t *testing.T) {
	sound := &causewayv1.Drain{Cluster: "east", Target: 100, Started: 1, Over: 1}
	with := func(change func(*causewayv1.Drain)) []byte {
		d := proto.Clone(sound).(*causewayv1.Drain)
		change(d)
		value, err := proto.Marshal(d)
		if err != nil {
			t.Fatal(err)
		}
		return value
	}
	const key = store.PolicyPrefix + "drain/east"
	for _, c := range []struct {
		key   string
		value []byte
		want  string
	}{
		{key, []byte{0xff}, "is no Drain"},
		{key, with(func(d *causewayv1.Drain) { d.Cluster = "west" }), `of cluster "west"`},
		{key, with(func(d *causewayv1.Drain) { d.Target = 1 << 31 }), "100%"},
		{key, with(func(d *causewayv1.Drain) { d.From = 1<<32 - 1 }), "100%"},
		{key, with(func(d *causewayv1.Drain) { d.Over = 1 << 62 }), "takes"},
		{key, with(func(d *causewayv1.Drain) { d.Over = -1 }), "takes"},
		{key, with(func(d *causewayv1.Drain) { d.Started = 1<<63 - 1 }), "start"},
		{key, with(func(d *causewayv1.Drain) { d.Started = -1 << 63 }), "start"},
		{key, make([]byte, record.MaxValueBytes+1), "bytes"},
		{store.PolicyPrefix + "drain/ea.st", with(func(*causewayv1.Drain) {}), "DNS label"},
		{store.PolicyPrefix + "drain", nil, "unknown"},
		{store.PolicyPrefix + "drain/east/x", nil, "unknown"},
		{store.PolicyPrefix + "quotas", nil, "unknown"},
		{store.Root + "elsewhere/x", nil, "below neither"},
	} {
		_, err := record.DecodePolicy(store.KV{Key: c.key, Value: c.value})
		var e *record.Error
		if !errors.As(err, &e) || !strings.Contains(err.Error(), c.want) || e.Problem().Where != c.key || e.Problem().Message == "" {
			t.Errorf("%s: error %v does not say %q", c.key, err, c.want)
		}
	}
}

// A drain goes evenly, in steps that are neither many nor close, at moments that
// do not depend on who looks when; and it arrives.
func TestDrainAt(t *testing.T) {
	rapid.Check(t, func(t *rapid.T) {
		d := record.Drain{
			From: rapid.IntRange(0, 100).Draw(t, "from"), Target: rapid.IntRange(0, 100).Draw(t, "target"),
			Started: time.UnixMilli(rapid.Int64Range(0, 1<<42).Draw(t, "started")),
			Over:    time.Duration(rapid.Int64Range(0, record.MaxDrainOver.Milliseconds()).Draw(t, "over")) * time.Millisecond,
		}
		if got, _ := d.At(d.Started.Add(-time.Hour)); got != d.From && d.Over > 0 {
			t.Fatalf("%d%% before it starts", got)
		}
		end := d.Started.Add(d.Over)
		if got, next := d.At(end); got != d.Target || !next.IsZero() {
			t.Fatalf("%d%% at its end, and then %s", got, next)
		}
		steps := 0
		for at := d.Started; ; steps++ {
			percent, next := d.At(at)
			if even := float64(d.From) + float64(d.Target-d.From)*float64(at.Sub(d.Started))/float64(max(d.Over, 1)); d.Over > 0 && (float64(percent) < even-1 || float64(percent) > even+1) {
				t.Fatalf("%d%% after %s, not %.1f%%", percent, at.Sub(d.Started), even)
			}
			if next.IsZero() {
				if percent != d.Target {
					t.Fatalf("stops at %d%%", percent)
				}
				break
			}
			if next.Before(end) && next.Sub(at) < 500*time.Millisecond || steps > 20 {
				t.Fatalf("step %d after %s", steps, next.Sub(at))
			}
			if p, n := d.At(next.Add(-1)); p != percent || !n.Equal(next) {
				t.Fatalf("%d%%, next %s a moment before the step; %d%%, %s at the one before", p, n, percent, next)
			}
			at = next
		}
	})
}
