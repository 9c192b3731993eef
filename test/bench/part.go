package main

import (
	"bufio"
	"bytes"
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"log/slog"
	"os"
	"path/filepath"
	"runtime"
	"runtime/debug"
	"runtime/metrics"
	"runtime/pprof"
	"strconv"
	"strings"
	"syscall"
	"time"
)

// part is a process's own end: what it does with requests that are not the same
// for all parts.
type part interface {
	// begin starts the part, which ends with ctx.
	begin(ctx context.Context, s setup, log *slog.Logger) (started, error)
	answer(ctx context.Context, r request) (response, error)
}

// runPart serves one part over stdin and stdout until stdin ends.
func runPart(in io.Reader, out io.Writer) error {
	ctx, cancel := context.WithCancel(context.Background())
	defer cancel()
	dec, enc := json.NewDecoder(bufio.NewReader(in)), json.NewEncoder(out)
	var s setup
	if err := dec.Decode(&s); err != nil {
		return err
	}
	if s.Profile {
		runtime.MemProfileRate = 8 << 10
	}
	log := slog.New(slog.NewTextHandler(os.Stderr, &slog.HandlerOptions{Level: slog.LevelWarn})).With("part", s.Part, "index", s.Index)
	var p part
	switch s.Part {
	case partStore:
		p = &storePart{}
	case partAgent:
		p = &agentPart{}
	case partHub:
		p = &hubPart{}
	default:
		return fmt.Errorf("there is no part %q", s.Part)
	}
	first, err := p.begin(ctx, s, log)
	if err != nil {
		first.Error = err.Error()
	}
	if err := enc.Encode(first); err != nil {
		return err
	}
	var prof profiler
	var gc collector
	for {
		var r request
		if err := dec.Decode(&r); errors.Is(err, io.EOF) {
			return nil
		} else if err != nil {
			return err
		}
		var resp response
		var err error
		switch {
		case r.Usage:
			resp.Usage, err = used()
		case r.Heap:
			resp.Heap, err = live()
		case r.Hold:
			resp.Cycle, err = gc.hold()
		case r.Resume:
			gc.resume()
		case r.Profile != "":
			err = prof.request(r.Profile)
		default:
			resp, err = p.answer(ctx, r)
		}
		if err != nil {
			resp.Error = err.Error()
		}
		if err := enc.Encode(resp); err != nil {
			return err
		}
	}
}

// used asks the kernel and the runtime.
func used() (usage, error) {
	var ru syscall.Rusage
	if err := syscall.Getrusage(syscall.RUSAGE_SELF, &ru); err != nil {
		return usage{}, err
	}
	sample := []metrics.Sample{{Name: "/gc/heap/allocs:objects"}, {Name: "/gc/heap/allocs:bytes"}}
	metrics.Read(sample)
	u := usage{
		CPU:    time.Duration(ru.Utime.Nano() + ru.Stime.Nano()),
		Allocs: sample[0].Value.Uint64(), Bytes: sample[1].Value.Uint64(),
	}
	var err error
	u.Written, err = procField("/proc/self/io", "write_bytes:")
	return u, err
}

func procField(file, name string) (uint64, error) {
	rest, err := procLine(file, name)
	if err != nil {
		return 0, err
	}
	return strconv.ParseUint(strings.Fields(rest)[0], 10, 64)
}

// procLine finds a line of a file of /proc and gives what follows its name.
func procLine(file, name string) (string, error) {
	data, err := os.ReadFile(file)
	if err != nil {
		return "", err
	}
	for line := range strings.Lines(string(data)) {
		if rest, ok := strings.CutPrefix(line, name); ok {
			return strings.TrimSpace(strings.TrimPrefix(strings.TrimSpace(rest), ":")), nil
		}
	}
	return "", fmt.Errorf("%s has no %s", file, name)
}

func live() (heap, error) {
	// The first collection runs the cleanups of weak references, the second frees
	// what they held.
	for range 3 {
		runtime.GC()
		time.Sleep(10 * time.Millisecond)
	}
	var m runtime.MemStats
	runtime.ReadMemStats(&m)
	rss, err := procField("/proc/self/status", "VmRSS:")
	return heap{Live: m.HeapAlloc, Objects: m.HeapObjects, Resident: rss << 10}, err
}

// collector is the process's collector of garbage.
type collector struct {
	held    bool
	percent int // GOGC, while it is held
}

// hold collects garbage, measures what that takes, and lets no more be collected until
// the next request says so.
func (g *collector) hold() (cycle, error) {
	g.resume()
	runtime.GC() // so that those measured find nothing to free
	before, err := used()
	if err != nil {
		return cycle{}, err
	}
	const times = 2
	for range times {
		runtime.GC()
	}
	after, err := used()
	if err != nil {
		return cycle{}, err
	}
	var m runtime.MemStats
	runtime.ReadMemStats(&m)
	g.held, g.percent = true, debug.SetGCPercent(-1)
	return cycle{CPU: (after.CPU - before.CPU) / times, Room: m.NextGC - min(m.NextGC, m.HeapAlloc)}, nil
}

// resume lets garbage be collected as before hold, if that was called.
func (g *collector) resume() {
	if g.held {
		g.held = false
		debug.SetGCPercent(g.percent)
	}
}

// profiler writes profiles for who wants to know what a number is made of.
type profiler struct {
	cpu  bytes.Buffer
	into string
}

func (p *profiler) request(dir string) error {
	runtime.GC() // what was allocated shows in profiles after a collection
	if dir != "-" {
		p.cpu.Reset()
		p.into = dir
		if err := lookup("allocs", dir+".allocs-before"); err != nil {
			return err
		}
		return pprof.StartCPUProfile(&p.cpu)
	}
	pprof.StopCPUProfile()
	if err := os.WriteFile(p.into+".cpu", p.cpu.Bytes(), 0o600); err != nil {
		return err
	}
	return errors.Join(lookup("allocs", p.into+".allocs"), lookup("heap", p.into+".heap"))
}

func lookup(name, file string) error {
	var b bytes.Buffer
	if err := pprof.Lookup(name).WriteTo(&b, 0); err != nil {
		return err
	}
	return os.WriteFile(file, b.Bytes(), 0o600)
}

func subdir(parts ...string) (string, error) {
	dir := filepath.Join(parts...)
	return dir, os.MkdirAll(dir, 0o700)
}
