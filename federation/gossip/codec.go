package gossip

import (
	"encoding/binary"
	"errors"
	"fmt"
	"math"
	"time"

	"github.com/causeway-mesh/causeway/cluster"
)

// The encodings, all integers as unsigned varints, strings after their length:
//
//	state: version name epoch seq revision lag(ms) count (cluster reachable)*count
//	full:  version count (length state)*count
//
// A state goes out as one user message in a UDP packet, beside others; full is
// what two members exchange over TCP. A member's role and cluster are in its
// name, which memberlist carries.
const (
	codecVersion = 1

	// maxState bounds an encoded state so that it fits in a packet of
	// memberlist's 1,400 bytes with all headers and the encryption.
	maxState = 1200
	// maxEpoch bounds epochs, which begin as nanoseconds of the wall clock.
	maxEpoch = math.MaxInt64
	// maxFull bounds the states that are exchanged over TCP.
	maxFull = 512 << 10
)

// state is a member's Report as it travels. Of two states of one name that with
// the greater (epoch, seq) is newer. An epoch is one run of a member.
type state struct {
	name       string
	epoch, seq uint64
	report     Report
}

func (s *state) newer(than *state) bool {
	if s.epoch != than.epoch {
		return s.epoch > than.epoch
	}
	return s.seq > than.seq
}

var errCut = errors.New("message is cut short")

// encode gives the message; votes that don't fit are left out, their number returned.
func (s *state) encode() (msg []byte, dropped int) {
	b := append(make([]byte, 0, 256), codecVersion)
	b = appendString(b, s.name)
	b = binary.AppendUvarint(b, s.epoch)
	b = binary.AppendUvarint(b, s.seq)
	b = binary.AppendUvarint(b, uint64(max(0, s.report.Revision)))
	b = binary.AppendUvarint(b, uint64(max(0, s.report.Lag.Milliseconds())))
	fit, size := 0, len(b)+2 // two bytes hold every count that fits
	for _, v := range s.report.Votes {
		if size += len(v.Cluster) + 2; size > maxState {
			break
		}
		fit++
	}
	b = binary.AppendUvarint(b, uint64(fit))
	for _, v := range s.report.Votes[:fit] {
		b = appendString(b, string(v.Cluster))
		b = append(b, boolByte(v.Reachable))
	}
	return b, len(s.report.Votes) - fit
}

func decodeState(b []byte) (*state, error) {
	if len(b) > maxState {
		return nil, fmt.Errorf("state of %d bytes is larger than %d", len(b), maxState)
	}
	d := decoder{b: b}
	if v := d.byte(); d.err == nil && v != codecVersion {
		return nil, fmt.Errorf("state of version %d; this process knows version %d", v, codecVersion)
	}
	s := &state{name: d.string(maxNameSize), epoch: d.uvarint(maxEpoch), seq: d.uvarint(math.MaxInt64)}
	s.report.Revision = int64(d.uvarint(math.MaxInt64))
	s.report.Lag = time.Duration(d.uvarint(uint64(math.MaxInt64/time.Millisecond))) * time.Millisecond
	n := d.uvarint(maxState)
	for range n {
		v := Vote{Cluster: cluster.ID(d.string(63))}
		switch d.byte() {
		case 0:
		case 1:
			v.Reachable = true
		default:
			d.fail(errors.New("a vote is neither yes nor no"))
		}
		if d.err != nil {
			return nil, d.err
		}
		if err := v.Cluster.Validate(); err != nil {
			return nil, err
		}
		if k := len(s.report.Votes); k > 0 && s.report.Votes[k-1].Cluster >= v.Cluster {
			return nil, errors.New("votes are not sorted by cluster")
		}
		s.report.Votes = append(s.report.Votes, v)
	}
	if d.err == nil && len(d.b) > 0 {
		d.fail(fmt.Errorf("%d bytes too many", len(d.b)))
	}
	if d.err != nil {
		return nil, d.err
	}
	if _, _, err := parseName(s.name); err != nil {
		return nil, err
	}
	return s, nil
}

// encodeFull packs encoded states, as many as fit in the bound.
func encodeFull(states [][]byte) []byte {
	n, size := 0, 0
	for _, s := range states {
		if size += len(s) + 2; size > maxFull-16 {
			break
		}
		n++
	}
	b := append(make([]byte, 0, size+16), codecVersion)
	b = binary.AppendUvarint(b, uint64(n))
	for _, s := range states[:n] {
		b = binary.AppendUvarint(b, uint64(len(s)))
		b = append(b, s...)
	}
	return b
}

// decodeFull gives the states that it can read, at most limit, and an error for
// the first that it can't.
func decodeFull(b []byte, limit int) ([]*state, error) {
	if len(b) > maxFull {
		return nil, fmt.Errorf("states of %d bytes are larger than %d", len(b), maxFull)
	}
	d := decoder{b: b}
	if v := d.byte(); d.err == nil && v != codecVersion {
		return nil, fmt.Errorf("states of version %d; this process knows version %d", v, codecVersion)
	}
	n := d.uvarint(uint64(limit))
	var out []*state
	var first error
	for range n {
		raw := d.string(maxState)
		if d.err != nil {
			break
		}
		s, err := decodeState([]byte(raw))
		switch {
		case err == nil:
			out = append(out, s)
		case first == nil:
			first = err
		}
	}
	return out, errors.Join(d.err, first)
}

// decoder reads a message; after the first error it gives zeros.
type decoder struct {
	b   []byte
	err error
}

func (d *decoder) fail(err error) {
	if d.err == nil {
		d.err = err
	}
}

func (d *decoder) byte() byte {
	if d.err != nil || len(d.b) == 0 {
		d.fail(errCut)
		return 0
	}
	v := d.b[0]
	d.b = d.b[1:]
	return v
}

func (d *decoder) uvarint(limit uint64) uint64 {
	if d.err != nil {
		return 0
	}
	v, n := binary.Uvarint(d.b)
	switch {
	case n <= 0:
		d.fail(errCut)
		return 0
	case v > limit:
		d.fail(fmt.Errorf("number %d is above %d", v, limit))
		return 0
	}
	d.b = d.b[n:]
	return v
}

func (d *decoder) string(limit int) string {
	n := int(d.uvarint(uint64(limit)))
	if d.err != nil || n > len(d.b) {
		d.fail(errCut)
		return ""
	}
	v := string(d.b[:n])
	d.b = d.b[n:]
	return v
}

func appendString(b []byte, s string) []byte {
	return append(binary.AppendUvarint(b, uint64(len(s))), s...)
}

func boolByte(v bool) byte {
	if v {
		return 1
	}
	return 0
}
