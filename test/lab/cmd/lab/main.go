// Command lab starts real Kubernetes clusters on this machine, for people who want to
// try something by hand, and stops them: see package lab. `make lab` and `make
// lab-down` run it.
package main

import (
	"context"
	"flag"
	"fmt"
	"log/slog"
	"os"
	"os/signal"
	"strconv"
	"strings"
	"syscall"

	"github.com/causeway-mesh/causeway/test/lab"
)

const usage = `usage: lab COMMAND

  build                         build Kubernetes, etcd and CoreDNS into the cache
  up [FLAG]...                  start clusters, which stay until "lab down"; -h lists flags
  down                          stop them and clean up, also after killed tests
  clean                         clean up after killed tests alone
  kubeconfig N                  print the path of a cluster's kubeconfig
  load ARCHIVE...               load image archives into all clusters
  cut A B | heal A B | flat A B drop or restore all traffic between two clusters (0: this
                                machine), or let their pods reach each other
  stop-api N | start-api N      kill and restart a cluster's API server
`

func main() {
	ctx, stop := signal.NotifyContext(context.Background(), os.Interrupt, syscall.SIGTERM)
	err := command(ctx, os.Args[1:])
	stop()
	if err != nil {
		fmt.Fprintln(os.Stderr, "lab:", err)
		os.Exit(1)
	}
}

func command(ctx context.Context, args []string) error {
	if len(args) == 0 {
		fmt.Fprint(os.Stderr, usage)
		os.Exit(2)
	}
	log := slog.New(slog.NewTextHandler(os.Stderr, nil))
	name, args := args[0], args[1:]
	switch name {
	case "build":
		return lab.Build(ctx, log)
	case "up":
		return up(ctx, log, args)
	case "down", "clean":
		remove := lab.Down
		if name == "clean" {
			remove = lab.Clean
		}
		n, err := remove(ctx)
		if err == nil {
			fmt.Printf("%d labs removed\n", n)
		}
		return err
	}
	l, err := lab.Open()
	if err != nil {
		return err
	}
	switch name {
	case "load":
		return l.LoadImage(ctx, args...)
	case "kubeconfig", "stop-api", "start-api":
		n, err := numbers(args, 1)
		if err != nil {
			return err
		}
		if n[0] < 1 || n[0] > len(l.Clusters) {
			return fmt.Errorf("the lab has clusters 1 to %d", len(l.Clusters))
		}
		c := l.Clusters[n[0]-1]
		switch name {
		case "stop-api":
			return c.StopAPIServer()
		case "start-api":
			return c.StartAPIServer(ctx)
		}
		fmt.Println(c.Kubeconfig)
		return nil
	case "cut", "heal", "flat":
		n, err := numbers(args, 2)
		if err != nil {
			return err
		}
		return map[string]func(context.Context, int, int) error{"cut": l.Cut, "heal": l.Heal, "flat": l.Flat}[name](ctx, n[0], n[1])
	}
	fmt.Fprint(os.Stderr, usage)
	os.Exit(2)
	return nil
}

func numbers(args []string, count int) ([]int, error) {
	if len(args) != count {
		return nil, fmt.Errorf("give the numbers of %d clusters", count)
	}
	var out []int
	for _, a := range args {
		n, err := strconv.Atoi(a)
		if err != nil {
			return nil, fmt.Errorf("%q is not the number of a cluster", a)
		}
		out = append(out, n)
	}
	return out, nil
}

func up(ctx context.Context, log *slog.Logger, args []string) error {
	flags := flag.NewFlagSet("lab up", flag.ExitOnError)
	o := lab.Options{Detached: true, Logger: log}
	flags.IntVar(&o.Clusters, "clusters", 2, "how many")
	flags.StringVar(&o.Dir, "dir", "", "folder for their files (default: below /var/tmp)")
	flags.BoolVar(&o.Flat, "flat", false, "let pods of different clusters reach each other")
	flags.BoolVar(&o.CRDs.MCS, "mcs", true, "install the CRDs of Multi-Cluster Services")
	channel := flags.String("gateway-api", string(lab.Standard), "channel of Gateway API's CRDs: standard, experimental, or none")
	images := flags.String("images", "", "image archives to load, by commas")
	_ = flags.Parse(args) // it exits
	switch c := lab.Channel(*channel); c {
	case lab.Standard, lab.Experimental:
		o.CRDs.GatewayAPI = c
	case "none":
	default:
		return fmt.Errorf("-gateway-api is standard, experimental or none, not %q", c)
	}
	if *images != "" {
		o.Images = strings.Split(*images, ",")
	}
	if _, err := lab.Open(); err == nil {
		return fmt.Errorf("a lab is up already; `make lab-down` removes it")
	}
	l, err := lab.Start(ctx, o)
	if err != nil {
		return err
	}
	for _, c := range l.Clusters {
		fmt.Printf("%s   export KUBECONFIG=%s   # node %s, load balancers %s\n", c.Name, c.Kubeconfig, c.Node4, c.LoadBalancers4)
	}
	fmt.Printf(`
This machine is %s to them. What next:
  kubectl --kubeconfig %s get pods -A
  make images && go run ./test/lab/cmd/lab load dist/*.tar   # Causeway's own images, into all clusters
  go run ./test/lab/cmd/lab cut 1 2                          # and heal; without arguments: all that there is
  make lab-down
`, l.Machine, l.Clusters[0].Kubeconfig)
	return nil
}
