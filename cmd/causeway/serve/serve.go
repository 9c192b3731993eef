// Package serve runs the small HTTP servers of agents, hubs and proxies: probes and
// metrics. All are bounded in what a client may send and how long it may take.
package serve

import (
	"context"
	"crypto/tls"
	"errors"
	"fmt"
	"net"
	"net/http"
	"time"

	"github.com/prometheus/client_golang/prometheus"
	"github.com/prometheus/client_golang/prometheus/promhttp"
)

// HTTP serves on l, which it closes, until ctx ends; by TLS if config is not nil. It
// returns nil then.
func HTTP(ctx context.Context, l net.Listener, h http.Handler, config *tls.Config) error {
	srv := &http.Server{Handler: h, TLSConfig: config, ReadHeaderTimeout: 5 * time.Second, IdleTimeout: time.Minute, MaxHeaderBytes: 16 << 10}
	stop := context.AfterFunc(ctx, func() { _ = srv.Close() })
	defer stop()
	run := srv.Serve
	if config != nil {
		run = func(l net.Listener) error { return srv.ServeTLS(l, "", "") }
	}
	if err := run(l); err != nil && !errors.Is(err, http.ErrServerClosed) {
		return err
	}
	return nil
}

// Metrics is the page that Prometheus reads.
func Metrics(g prometheus.Gatherer) http.Handler {
	mux := http.NewServeMux()
	mux.Handle("GET /metrics", promhttp.HandlerFor(g, promhttp.HandlerOpts{MaxRequestsInFlight: 4, Timeout: 10 * time.Second}))
	return mux
}

// Probes answers kubelet: live and ready say what is wrong, nil if nothing is. Their
// context ends with the request.
func Probes(live, ready func(context.Context) error) http.Handler {
	mux := http.NewServeMux()
	for path, probe := range map[string]func(context.Context) error{"GET /livez": live, "GET /readyz": ready} {
		mux.HandleFunc(path, func(w http.ResponseWriter, r *http.Request) {
			if err := probe(r.Context()); err != nil {
				http.Error(w, err.Error(), http.StatusServiceUnavailable)
				return
			}
			fmt.Fprintln(w, "ok")
		})
	}
	return mux
}

// Alive is a probe that nothing is wrong with as long as the process answers.
func Alive(context.Context) error { return nil }
