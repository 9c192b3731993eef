// Command bench measures what docs/performance.md tells, and says whether its
// goals hold: how long a change takes from a cluster's source to the first and
// the last of 100 proxies, what it costs, and what agents hold. `make bench` runs
// it.
//
// The path is the real one. etcd, each agent and a hub are processes of their own
// (this binary again): etcd with its data on disk and fsync, agents as `causeway
// agent` runs them, only that their source is programmatic, so that an API server's
// or a file system's share is not part of the figures. The driver plays the
// proxies: delta ADS over mTLS, one connection each, subscribing and acknowledging
// as Envoy does. Times are taken in the agent before a change is delivered, and
// in the driver when a proxy's response was read; both are the machine's clock.
package main

import (
	"context"
	"errors"
	"flag"
	"fmt"
	"io"
	"log/slog"
	"os"
	"os/signal"
	"path/filepath"
	"strings"
	"syscall"
	"time"
)

// options are what a person may choose.
type options struct {
	only    string
	profile string
	keep    string
	changes int
	collect bool
}

func (o options) wants(name string) bool {
	return o.only == "" || strings.Contains(","+o.only+",", ","+name+",")
}

var errMissed = errors.New("goals were missed")

func main() {
	if len(os.Args) > 1 && os.Args[1] == "-part" {
		if err := runPart(os.Stdin, os.Stdout); err != nil {
			fmt.Fprintln(os.Stderr, "bench part:", err)
			os.Exit(1)
		}
		return
	}
	var o options
	flag.StringVar(&o.only, "only", "", "comma-separated: latency, memory (goes with latency), growth, scale; empty for all")
	flag.StringVar(&o.profile, "profile", "", "folder for CPU and heap profiles of the agents")
	flag.StringVar(&o.keep, "dir", "", "folder for data and logs, which is kept; empty for a temporary one")
	flag.IntVar(&o.changes, "changes", 200, "how many changes of each kind are made")
	flag.BoolVar(&o.collect, "collect", false, "growth: garbage is collected when it comes to that, instead of charging each change with its share; says something with -changes 2000 and more")
	flag.Parse()
	ctx, stop := signal.NotifyContext(context.Background(), os.Interrupt, syscall.SIGTERM)
	defer stop()
	if err := run(ctx, o, os.Stdout); err != nil {
		fmt.Fprintln(os.Stderr, "bench:", err)
		os.Exit(1)
	}
}

func run(ctx context.Context, o options, out io.Writer) (err error) {
	dir := o.keep
	if dir == "" {
		if dir, err = os.MkdirTemp("", "causeway-bench-"); err != nil {
			return err
		}
		defer func() {
			if err == nil || errors.Is(err, errMissed) {
				_ = os.RemoveAll(dir)
			} else {
				fmt.Fprintln(os.Stderr, "bench: the logs of the parts are in", dir)
			}
		}()
	}
	r := &report{out: out}
	fmt.Fprintf(out, "%s\n", machine())
	log := slog.New(slog.NewTextHandler(os.Stderr, &slog.HandlerOptions{Level: slog.LevelWarn}))
	began := time.Now()
	for _, part := range []struct {
		name string
		run  func(context.Context, options, *report, string, *slog.Logger) error
	}{{"latency", latency}, {"growth", growth}, {"scale", scale}} {
		if !o.wants(part.name) {
			continue
		}
		if err := part.run(ctx, o, r, filepath.Join(dir, part.name), log); err != nil {
			return fmt.Errorf("%s: %w", part.name, err)
		}
	}
	fmt.Fprintf(out, "\n%d figures in %v; ", len(r.rows), time.Since(began).Round(time.Second))
	if r.failed > 0 {
		fmt.Fprintf(out, "%d goals were MISSED\n", r.failed)
		return errMissed
	}
	fmt.Fprintln(out, "all goals hold")
	return nil
}

// standard is the world that the goals speak of: 4 clusters of 500 services of 10
// endpoints, 500 routes, 25 namespaces, so 100 sidecars.
var standard = world{Clusters: 4, Networks: 2, Services: 500, Endpoints: 10, Namespaces: 25, Routes: 500, Private: 20, Gateways: 1}

func latency(ctx context.Context, o options, r *report, dir string, log *slog.Logger) error {
	w := standard
	s, err := open(ctx, w, dir, log)
	if err != nil {
		return err
	}
	defer s.close()
	s.closely = o.profile != ""
	if _, err := s.bring(ctx); err != nil {
		return err
	}
	r.heading("%d clusters (%d networks) x %d services x %d endpoints, %d routes, %d sidecars", w.Clusters, w.Networks, w.Services, w.Endpoints, w.Routes, w.Clusters*w.Namespaces)
	f, err := s.measureFloor(ctx)
	if err != nil {
		return err
	}
	r.figure("floor: fdatasync of 4 KiB", both(quantile(f.sync, .5), quantile(f.sync, .99)))
	r.figure("floor: round trip over loopback", both(quantile(f.hop, .5), quantile(f.hop, .99)))
	r.figure("floor: two of each", both(quantile(f.sum, .5), quantile(f.sum, .99)))
	r.figure("floor: etcd alone, from a write to a watch", both(quantile(f.etcd, .5), quantile(f.etcd, .99)))
	// Once over, unmeasured: connections, heaps and caches find their size.
	if _, err := s.measure(ctx, endpointChange, 20); err != nil {
		return err
	}
	for _, x := range []struct {
		change
		p50, p99  time.Duration
		endpoints float64 // that change: of a pod that is replaced one goes and one comes
		has       string
	}{
		{endpointChange, 10 * time.Millisecond, 50 * time.Millisecond, 1, "of 20, 2 crossings"},
		{podChange, 10 * time.Millisecond, 50 * time.Millisecond, 2, "of 20, 2 crossings"},
		{privateChange, 0, 0, 1, "of 10"},
		{producerChange, 20 * time.Millisecond, 0, 0, ""},
		{consumerChange, 20 * time.Millisecond, 0, 0, ""},
		{gatewayChange, 20 * time.Millisecond, 0, 0, ""},
	} {
		m, err := s.profiled(ctx, o, x.name, x.change)
		if err != nil {
			return err
		}
		r.latencies(m, x.p50, x.p99)
		r.cost(m)
		if x.endpoints > 0 {
			each := m.wire / x.endpoints
			r.goal(fmt.Sprintf("%s change: on the wire per proxy and endpoint (%s)", x.name, x.has), fmt.Sprintf("%.0f bytes", each), "<= 1024 bytes", each <= 1024)
		}
	}
	for _, ch := range []change{podChange, privateChange, consumerChange, gatewayChange} {
		n, proxies, err := s.strays(ctx, ch, 10)
		if err != nil {
			return err
		}
		r.goal(fmt.Sprintf("10 %s changes: bytes to the %d sidecars that they don't concern", ch.name, proxies), fmt.Sprint(n), "0", n == 0)
	}
	b, err := s.burst(ctx, 0, 1000)
	if err != nil {
		return err
	}
	r.figure("burst of 1,000 endpoint changes: sent within", ms(b.sent))
	r.figure("burst: from its last change until every proxy has the final state", ms(b.after))
	r.figure("burst: responses and bytes per proxy", fmt.Sprintf("%.0f, %.0f kB", b.pushes, b.wire/1e3))
	if !o.wants("memory") {
		return nil
	}
	return memory(ctx, r, s)
}

// profiled measures a kind of change, and profiles agents and driver meanwhile if asked to.
func (s *set) profiled(ctx context.Context, o options, name string, ch change) (measured, error) {
	if o.profile == "" {
		return s.measure(ctx, ch, o.changes)
	}
	var own profiler
	profile := func(into string) error {
		return errors.Join(s.profile(into), own.request(profileOf(into, "driver")))
	}
	if err := profile(filepath.Join(o.profile, name)); err != nil {
		return measured{}, err
	}
	m, err := s.measure(ctx, ch, o.changes)
	return m, errors.Join(err, profile("-"))
}

// memory measures what an agent holds, and how fast it is back.
func memory(ctx context.Context, r *report, s *set) error {
	w, others := s.w, []int{}
	for c := 1; c < w.Clusters; c++ {
		others = append(others, c)
	}
	with, without, err := s.held(ctx, editSlices, 0, others)
	if err != nil {
		return err
	}
	r.figure("an agent's heap in all (resident)", fmt.Sprintf("%s (%s)", mb(float64(with.Live)), mb(float64(with.Resident))))
	each := (float64(with.Live) - float64(without.Live)) / float64(w.remoteEndpoints()) * 10_000
	r.goal("memory per 10,000 remote endpoints in an agent", mb(each), "<= 10 MB", each <= 10e6)
	all := append([]int{0}, others...)
	if with, without, err = s.held(ctx, editRoutes, 0, all); err != nil {
		return err
	}
	r.figure("memory per 1,000 routes in an agent", mb((float64(with.Live)-float64(without.Live))/float64(w.Routes)*1000))
	var list []time.Duration
	for range 3 {
		d, err := s.coldStart(ctx, 0)
		if err != nil {
			return err
		}
		list = append(list, d)
	}
	r.figure("cold start of an agent to the last proxy's full state (median of 3)", quantile(list, .5).Round(time.Millisecond).String())
	return nil
}
