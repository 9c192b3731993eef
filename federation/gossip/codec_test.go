package gossip

import (
	"bytes"
	"fmt"
	"io"
	"log/slog"
	"math"
	"strings"
	"testing"
	"time"

	"github.com/causeway-mesh/causeway/cluster"
	"github.com/google/go-cmp/cmp"
	"pgregory.net/rapid"
)

func drawState(t *rapid.T) *state {
	label := rapid.StringMatching(`[a-z0-9]([-a-z0-9]{0,61}[a-z0-9])?`)
	name, err := MemberName(RoleAgent, cluster.ID(label.Draw(t, "cluster")), label.Draw(t, "replica"))
	if err != nil {
		t.Fatal(err)
	}
	s := &state{name: name, epoch: rapid.Uint64Max(maxEpoch).Draw(t, "epoch"), seq: rapid.Uint64Max(math.MaxInt64).Draw(t, "seq")}
	s.report.Revision = rapid.Int64Min(0).Draw(t, "revision")
	s.report.Lag = time.Duration(rapid.Int64Range(0, 1e9).Draw(t, "lag")) * time.Millisecond
	votes := rapid.SliceOfNDistinct(label, 0, 60, rapid.ID[string]).Draw(t, "votes")
	for _, v := range sortedStrings(votes) {
		s.report.Votes = append(s.report.Votes, Vote{Cluster: cluster.ID(v), Reachable: rapid.Bool().Draw(t, "reachable")})
	}
	return s
}

// What is decoded is what was encoded, up to the votes that didn't fit; and it
// always fits in a packet.
func TestCodecRoundTrip(t *testing.T) {
	rapid.Check(t, func(t *rapid.T) {
		in := drawState(t)
		msg, dropped := in.encode()
		if len(msg) > maxState {
			t.Fatalf("%d bytes", len(msg))
		}
		out, err := decodeState(msg)
		if err != nil {
			t.Fatal(err)
		}
		want := *in
		want.report.Votes = in.report.Votes[:len(in.report.Votes)-dropped]
		if dropped > 0 && len(msg) < maxState-66 {
			t.Fatalf("%d votes left out of a message of %d bytes", dropped, len(msg))
		}
		if diff := cmp.Diff(fmt.Sprintf("%+v", want), fmt.Sprintf("%+v", *out)); diff != "" {
			t.Fatal(diff)
		}
	})
}

// No message makes the decoder panic or accept what breaks the bounds.
func TestDecodeHostile(t *testing.T) {
	rapid.Check(t, func(t *rapid.T) {
		msg, _ := drawState(t).encode()
		switch rapid.IntRange(0, 2).Draw(t, "how") {
		case 0:
			msg = rapid.SliceOfN(rapid.Byte(), 0, 200).Draw(t, "bytes")
		case 1:
			msg = msg[:rapid.IntRange(0, len(msg)).Draw(t, "cut")]
		case 2:
			msg[rapid.IntRange(0, len(msg)-1).Draw(t, "at")] ^= rapid.ByteMin(1).Draw(t, "flip")
		}
		if s, err := decodeState(msg); err == nil {
			if _, _, err := parseName(s.name); err != nil || s.report.Revision < 0 || s.report.Lag < 0 {
				t.Fatalf("accepted %+v", s)
			}
			if again, dropped := s.encode(); dropped > 0 || len(again) > maxState {
				t.Fatalf("accepted a state that doesn't fit: %+v", s)
			}
		}
		full := encodeFull([][]byte{msg, msg})
		_, _ = decodeFull(full[:rapid.IntRange(0, len(full)).Draw(t, "cutFull")], 10)
	})
	valid, _ := (&state{name: "east/a", epoch: 1, seq: 1, report: Report{Votes: []Vote{{"b", true}, {"c", false}}}}).encode()
	for name, msg := range map[string][]byte{
		"empty":               {},
		"newer version":       append([]byte{2}, valid[1:]...),
		"trailing bytes":      append(bytes.Clone(valid), 0),
		"too large":           make([]byte, maxState+1),
		"votes out of order":  bytes.Replace(valid, []byte("\x01b"), []byte("\x01d"), 1),
		"cluster not a label": bytes.Replace(valid, []byte("\x01b"), []byte("\x01B"), 1),
		"a vote of 2":         append(bytes.Clone(valid[:len(valid)-1]), 2),
		"name without slash":  bytes.Replace(valid, []byte("east/a"), []byte("eastaa"), 1),
	} {
		if s, err := decodeState(msg); err == nil {
			t.Errorf("%s: accepted as %+v", name, s)
		}
	}
}

func TestFullExchange(t *testing.T) {
	var raws [][]byte
	for i := range 5000 {
		msg, _ := (&state{name: fmt.Sprintf("east/a%d", i), epoch: 1, seq: uint64(i), report: Report{Votes: []Vote{{cluster.ID(strings.Repeat("x", 60)), true}, {cluster.ID(strings.Repeat("y", 60)), true}}}}).encode()
		raws = append(raws, msg)
	}
	got, err := decodeFull(encodeFull(raws[:100]), MaxMembers)
	if err != nil || len(got) != 100 || got[99].seq != 99 {
		t.Errorf("%d states of 100, %v", len(got), err)
	}
	if all := encodeFull(raws); len(all) > maxFull || len(all) < maxFull/2 {
		t.Errorf("%d bytes for more than fits in %d", len(all), maxFull)
	} else if _, err := decodeFull(all, MaxMembers); err == nil {
		t.Error("more states than members were accepted")
	}
	// One that can't be read doesn't cost the others.
	got, err = decodeFull(encodeFull([][]byte{raws[0], []byte("rubbish"), raws[1]}), MaxMembers)
	if err == nil || len(got) != 2 {
		t.Errorf("%d states of 2 good and 1 bad, %v", len(got), err)
	}
}

func TestNames(t *testing.T) {
	for name, want := range map[string]Role{"east/agent-0": RoleAgent, "@hub/a.b": RoleHub, "hub/x": RoleAgent} {
		if role, _, err := parseName(name); err != nil || role != want {
			t.Errorf("%q is of a %s, %v; want %s", name, role, err, want)
		}
	}
	for _, name := range []string{"", "east", "east/", "/a", "East/a", "@hub", "@hub/", "@hub/a/b", "east/a b", "east/" + strings.Repeat("a", 64)} {
		if role, id, err := parseName(name); err == nil {
			t.Errorf("%q is of %s %q, want an error", name, role, id)
		}
	}
	if _, err := MemberName(RoleHub, "east", "a"); err == nil {
		t.Error("a hub has a cluster")
	}
}

func TestKeyRedacts(t *testing.T) {
	k := NewKey()
	secret := k.Reveal()
	again, err := ParseKey(" " + secret + "\n")
	if err != nil || again.Reveal() != secret {
		t.Fatalf("round trip: %v", err)
	}
	var out bytes.Buffer
	type holder struct {
		K Key
		k Key
	}
	for _, v := range []any{k, &k, holder{k, k}, &holder{k, k}, []Key{k}, Config{Key: k}} {
		for _, verb := range []string{"%v", "%+v", "%#v", "%s", "%x", "%d"} {
			fmt.Fprintf(&out, verb+"\n", v)
		}
		slog.New(slog.NewJSONHandler(&out, nil)).Info("x", "v", v)
		slog.New(slog.NewTextHandler(&out, nil)).Info("x", "v", v)
	}
	for name, s := range map[string]string{"base64": secret, "hex": fmt.Sprintf("%x", k.bytes()), "decimal": strings.Trim(fmt.Sprint(k.bytes()), "[]")} {
		if strings.Contains(out.String(), s) {
			t.Errorf("the key is printed in %s", name)
		}
	}
	for _, bad := range []string{"", "x", secret[:20], "hunter2hunter2hunter2hunter2hunter2hunter2hunter2"} {
		if _, err := ParseKey(bad); err == nil {
			t.Errorf("%q is a key", bad)
		} else if bad != "" && bad != "x" && strings.Contains(err.Error(), bad) {
			t.Errorf("the error repeats the input: %v", err)
		}
	}
}

// A stranger who sends packets can't fill the log.
func TestLogIsLimited(t *testing.T) {
	var out bytes.Buffer
	l := &limitedLog{slog: slog.New(slog.NewTextHandler(&out, nil))}
	for range 1000 {
		l.logger().Printf("[ERR] memberlist: Decrypt packet failed")
	}
	if n := strings.Count(out.String(), "\n"); n != logInWindow {
		t.Errorf("%d lines of 1000, want %d", n, logInWindow)
	}
	if !strings.Contains(out.String(), "level=WARN") || strings.Contains(out.String(), "[ERR]") {
		t.Errorf("level lost: %s", out.String()[:100])
	}
	l.window = l.window.Add(-logWindow)
	l.logger().Printf("[WARN] memberlist: another")
	if !strings.Contains(out.String(), "lines=980") || !strings.Contains(out.String(), "another") {
		t.Error("after the window nothing is said of the lines left out")
	}
	quiet := &limitedLog{slog: slog.New(slog.NewTextHandler(io.Discard, &slog.HandlerOptions{Level: slog.LevelError}))}
	quiet.logger().Printf("[DEBUG] memberlist: x")
	if quiet.written != 0 {
		t.Error("a line that nobody wants counts")
	}
}
