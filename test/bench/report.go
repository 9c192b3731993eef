package main

import (
	"fmt"
	"io"
	"runtime"
	"strings"
	"time"
)

// report gathers figures with their goals.
type report struct {
	out    io.Writer
	rows   []row
	failed int
}

type row struct {
	what, value, goal string
	verdict           verdict
}

type verdict int

const (
	none verdict = iota // a figure without a goal
	holds
	missed
)

func (v verdict) String() string { return [...]string{"", "holds", "MISSED"}[v] }

func (r *report) figure(what, value string) { r.add(row{what: what, value: value}) }

func (r *report) goal(what, value, goal string, ok bool) {
	v := holds
	if !ok {
		v = missed
		r.failed++
	}
	r.add(row{what, value, goal, v})
}

func (r *report) add(x row) {
	r.rows = append(r.rows, x)
	fmt.Fprintf(r.out, "%-68s %-34s %-16s %s\n", x.what, x.value, x.goal, x.verdict)
}

func (r *report) heading(format string, a ...any) {
	fmt.Fprintf(r.out, "\n%s\n%s\n", fmt.Sprintf(format, a...), strings.Repeat("-", 128))
}

// machine describes where the figures come from.
func machine() string {
	model, err := procLine("/proc/cpuinfo", "model name")
	if err != nil {
		model = "unknown processor"
	}
	return fmt.Sprintf("%d x %s, %s, %s/%s", runtime.NumCPU(), model, runtime.Version(), runtime.GOOS, runtime.GOARCH)
}

func ms(d time.Duration) string { return fmt.Sprintf("%.1f ms", float64(d)/float64(time.Millisecond)) }

func both(p50, p99 time.Duration) string {
	return fmt.Sprintf("p50 %s, p99 %s", ms(p50), ms(p99))
}

func mb(bytes float64) string { return fmt.Sprintf("%.1f MB", bytes/1e6) }

// latencies reports how long changes took.
func (r *report) latencies(m measured, p50, p99 time.Duration) {
	r.figure(m.name+" change to the first proxy", both(m.samples.firsts(.5), m.samples.firsts(.99)))
	what := m.name + " change to the last proxy"
	value := both(m.samples.lasts(.5), m.samples.lasts(.99))
	switch {
	case p50 == 0:
		r.figure(what, value)
	case p99 == 0:
		r.goal(what, value, fmt.Sprintf("p50 <= %v", p50), m.samples.lasts(.5) <= p50)
	default:
		r.goal(what, value, fmt.Sprintf("%v, %v", p50, p99), m.samples.lasts(.5) <= p50 && m.samples.lasts(.99) <= p99)
	}
}

// cost reports what a change takes in all agents together.
func (r *report) cost(m measured) {
	r.figure(m.name+" change: CPU of all agents, of etcd, of the proxies", fmt.Sprintf("%s, %s, %s", ms(m.agents.CPU), ms(m.etcd.CPU), ms(m.driver.CPU)))
	r.figure(m.name+" change: allocations of all agents", fmt.Sprintf("%d, %.0f kB", m.agents.Allocs, float64(m.agents.Bytes)/1e3))
	r.figure(m.name+" change: on the wire per proxy", fmt.Sprintf("%.0f bytes in %.2f responses", m.wire, m.responses))
}
