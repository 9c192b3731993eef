package envoy

import (
	"fmt"
	"io"
	"os"
	"strings"
)

// MaxLog bounds a log file, in bytes; one older file of that size is kept.
const MaxLog = 8 << 20

// logFile is written through a pipe, so that it can be rotated while Envoy runs.
type logFile struct {
	path string
	max  int64
	f    *os.File // nil: it could not be opened again
	size int64
}

func openLog(path string, bound int64) (*logFile, error) {
	l := &logFile{path: path, max: bound}
	return l, l.open()
}

func (l *logFile) open() error {
	f, err := os.OpenFile(l.path, os.O_CREATE|os.O_WRONLY|os.O_APPEND, 0o600)
	if err != nil {
		return fmt.Errorf("open Envoy's log: %w", err)
	}
	info, err := f.Stat()
	if err != nil {
		_ = f.Close()
		return fmt.Errorf("open Envoy's log: %w", err)
	}
	l.f, l.size = f, info.Size()
	return nil
}

// Write implements io.Writer; os/exec calls it from one goroutine. It never
// fails: an error would end the copying, and Envoy would block on a full pipe.
func (l *logFile) Write(b []byte) (int, error) {
	if l.f == nil || l.size+int64(len(b)) > l.max {
		l.rotate()
	}
	if l.f != nil {
		n, _ := l.f.Write(b)
		l.size += int64(n)
	}
	return len(b), nil
}

func (l *logFile) rotate() {
	if l.f != nil {
		_ = l.f.Close()
		l.f = nil
		if os.Rename(l.path, l.path+".1") != nil {
			_ = os.Truncate(l.path, 0)
		}
	}
	_ = l.open()
}

// Close closes the file.
func (l *logFile) Close() error {
	if l.f == nil {
		return nil
	}
	return l.f.Close()
}

// lastLines is the end of a log, in one line.
func lastLines(path string, n int) string {
	f, err := os.Open(path)
	if err != nil {
		return ""
	}
	defer f.Close()
	if info, err := f.Stat(); err == nil && info.Size() > 4096 {
		_, _ = f.Seek(-4096, io.SeekEnd)
	}
	b, _ := io.ReadAll(io.LimitReader(f, 4096))
	lines := strings.Split(strings.TrimSpace(string(b)), "\n")
	return strings.Join(lines[max(0, len(lines)-n):], " | ")
}
