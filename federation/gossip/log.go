package gossip

import (
	"bytes"
	"context"
	"log"
	"log/slog"
	"sync"
	"time"
)

// limitedLog turns memberlist's lines into slog records. Anyone who can reach
// the port can make memberlist complain once a packet, so it lets only so many
// through in a window and says how many it kept.
type limitedLog struct {
	slog *slog.Logger

	mu         sync.Mutex
	window     time.Time // when the current one began
	written    int
	suppressed int
}

const (
	logWindow   = 10 * time.Second
	logInWindow = 20
)

func (l *limitedLog) logger() *log.Logger { return log.New(l, "", 0) }

// Write takes one line such as "[WARN] memberlist: something".
func (l *limitedLog) Write(line []byte) (int, error) {
	level, text := slog.LevelDebug, bytes.TrimSpace(line)
	for _, p := range []struct {
		prefix string
		level  slog.Level
	}{
		// Its errors are those of single packets and peers, and it goes on: warnings.
		{"[ERR]", slog.LevelWarn}, {"[WARN]", slog.LevelWarn}, {"[INFO]", slog.LevelDebug}, {"[DEBUG]", slog.LevelDebug},
	} {
		if rest, ok := bytes.CutPrefix(text, []byte(p.prefix)); ok {
			level, text = p.level, rest
			break
		}
	}
	if !l.slog.Enabled(context.Background(), level) {
		return len(line), nil
	}
	text = bytes.TrimPrefix(bytes.TrimSpace(text), []byte("memberlist: "))
	pass, kept := l.admit(time.Now())
	if kept > 0 {
		l.slog.Warn("gossip: left out lines like those before", "lines", kept)
	}
	if pass {
		l.slog.Log(context.Background(), level, "gossip: "+string(text[:min(len(text), 500)]))
	}
	return len(line), nil
}

// admit says whether a line passes, and how many were kept in a window that is over.
func (l *limitedLog) admit(now time.Time) (pass bool, kept int) {
	l.mu.Lock()
	defer l.mu.Unlock()
	if now.Sub(l.window) >= logWindow {
		kept = l.suppressed
		l.window, l.written, l.suppressed = now, 0, 0
	}
	if l.written >= logInWindow {
		l.suppressed++
		return false, kept
	}
	l.written++
	return true, kept
}
