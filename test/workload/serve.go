package main

import (
	"context"
	"flag"
	"fmt"
	"log/slog"
	"net"
	"os"
	"strings"
	"time"

	"golang.org/x/sync/errgroup"

	"github.com/causeway-mesh/causeway/cluster/workload/echo"
)

// leaving is how long a server that is told to end goes on answering, while proxies and
// nodes hear that its pod has gone.
const leaving = 2 * time.Second

func serve(ctx context.Context, args []string) error {
	flags := flag.NewFlagSet("serve", flag.ContinueOnError)
	ports := flags.String("http", "8080", "TCP ports, which take HTTP, gRPC, TLS and lines of bytes")
	packets := flags.String("udp", "", "UDP ports")
	if err := flags.Parse(args); err != nil {
		return err
	}
	cfg := echo.Config{
		Namespace: os.Getenv("NAMESPACE"), Pod: os.Getenv("POD"), Cluster: os.Getenv("CLUSTER"),
		Settings: echo.Settings{Service: os.Getenv("SERVICE"), Names: []string{"localhost"}},
		Logger:   slog.New(slog.NewTextHandler(os.Stderr, nil)),
	}
	group, ctx := errgroup.WithContext(ctx)
	start := func(begin func(*echo.Server) error) error {
		s, err := echo.New(cfg)
		if err != nil {
			return err
		}
		group.Go(func() error { return begin(s) })
		group.Go(func() error {
			<-ctx.Done()
			left := cfg.Settings
			left.Leaving = true
			s.Set(left)
			time.Sleep(leaving)
			ctx, cancel := context.WithTimeout(context.Background(), leaving)
			defer cancel()
			s.Shutdown(ctx)
			return nil
		})
		return nil
	}
	for _, p := range split(*ports) {
		l, err := net.Listen("tcp", ":"+p)
		if err != nil {
			return fmt.Errorf("listen: %w", err)
		}
		if err := start(func(s *echo.Server) error { return s.Serve(l) }); err != nil {
			return err
		}
	}
	for _, p := range split(*packets) {
		c, err := net.ListenPacket("udp", ":"+p)
		if err != nil {
			return fmt.Errorf("listen: %w", err)
		}
		if err := start(func(s *echo.Server) error { return s.ServePackets(c) }); err != nil {
			return err
		}
	}
	return group.Wait()
}

func split(list string) []string {
	if list == "" {
		return nil
	}
	return strings.Split(list, ",")
}
