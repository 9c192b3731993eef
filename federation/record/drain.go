package record

import (
	"fmt"
	"time"

	causewayv1 "github.com/causeway-mesh/causeway/api/causeway/v1"
	"github.com/causeway-mesh/causeway/cluster"
	"github.com/causeway-mesh/causeway/federation/store"
)

// MaxDrainOver bounds how long a drain may take.
const MaxDrainOver = 24 * time.Hour

// A drain goes in about drainSteps steps, at least leastDrainStep apart: each
// step is a new set of weights for every proxy that may call the cluster.
const (
	drainSteps     = 20
	leastDrainStep = 500 * time.Millisecond
)

// Drain is how the percentage goes by which a cluster is taken out of the choice
// of other clusters' clients: evenly From one value to the Target.
type Drain struct {
	From, Target int // percent
	Started      time.Time
	Over         time.Duration // 0: at once
}

// At gives the percentage at a moment and the moment of the next step, zero if
// the Target is reached. Steps lie at the same moments for every reader, however
// late it begins to look; before Started it is From.
func (d Drain) At(now time.Time) (percent int, next time.Time) {
	end := d.Started.Add(d.Over)
	if d.From == d.Target || !now.Before(end) {
		return d.Target, time.Time{}
	}
	step := max(d.Over/drainSteps, leastDrainStep)
	steps := max(0, now.Sub(d.Started)) / step
	if next = d.Started.Add((steps + 1) * step); next.After(end) {
		next = end
	}
	if steps == 0 {
		return d.From, next // Over may be 0
	}
	return d.From + int(time.Duration(d.Target-d.From)*(steps*step)/d.Over), next
}

func (d Drain) check() error {
	switch {
	case d.From < 0 || d.From > 100 || d.Target < 0 || d.Target > 100:
		return fmt.Errorf("goes from %d%% to %d%%, not between 0%% and 100%%", d.From, d.Target)
	case d.Over < 0 || d.Over > MaxDrainOver:
		return fmt.Errorf("takes %s, not between 0s and %s", d.Over, MaxDrainOver)
	case d.Started.Unix() < 0 || d.Started.Year() > 9999:
		return fmt.Errorf("has an impossible start")
	}
	return nil
}

// EncodeDrain makes the record of a drain.
func EncodeDrain(id cluster.ID, d Drain) (Record, error) {
	if err := d.check(); err != nil {
		return Record{}, fmt.Errorf("drain of cluster %q: %w", id, err)
	}
	key, err := store.DrainKey(string(id))
	return finish(key, err, &causewayv1.Drain{
		Cluster: string(id), From: uint32(d.From), Target: uint32(d.Target), Started: d.Started.UnixMilli(), Over: d.Over.Milliseconds(),
	})
}

func (d decoder) drain(id cluster.ID) (*Drain, error) {
	var msg causewayv1.Drain
	if err := d.read(&msg); err != nil {
		return nil, err
	}
	if msg.Cluster != string(id) {
		return nil, fmt.Errorf("value is of cluster %q, its key of %q", shorten(msg.Cluster), id)
	}
	// Nothing may overflow on the way to the checks.
	if msg.Over < 0 || msg.Over > MaxDrainOver.Milliseconds() {
		return nil, fmt.Errorf("takes %d ms, not between 0 and %d", msg.Over, MaxDrainOver.Milliseconds())
	}
	out := &Drain{From: int(min(msg.From, 101)), Target: int(min(msg.Target, 101)), Started: time.UnixMilli(msg.Started).UTC(), Over: time.Duration(msg.Over) * time.Millisecond}
	if err := out.check(); err != nil {
		return nil, err
	}
	return out, nil
}
