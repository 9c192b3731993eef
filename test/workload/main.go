// Command workload is what runs in the pods of end-to-end tests, as server and as client
// (image causeway-test):
//
//	workload serve -http 8080,9090 -udp 5353   echo servers (cluster/workload/echo) that tell
//	                                           $CLUSTER, $NAMESPACE, $POD and $SERVICE
//	workload idle                              nothing, for a pod to run the others in
//	workload dns [-type AAAA] NAME             one look-up, asked of the pod's name server
//	workload resolve NAME                      addresses, found as programs do, by search domains
//	workload http|tcp|udp [-n 100] TARGET      requests, or lines of bytes, and who answered
//
// Clients print one object of JSON and end with 0 whatever they were told, with 1 if
// nobody told them anything: tests judge the answers.
package main

import (
	"context"
	"encoding/json"
	"fmt"
	"os"
	"os/signal"
	"syscall"
)

// version is what the linker says.
var version = "unknown"

func main() {
	ctx, stop := signal.NotifyContext(context.Background(), os.Interrupt, syscall.SIGTERM)
	err := run(ctx, os.Args[1:])
	stop()
	if err != nil {
		fmt.Fprintln(os.Stderr, "workload:", err)
		os.Exit(1)
	}
}

func run(ctx context.Context, args []string) error {
	if len(args) == 0 {
		return fmt.Errorf("a command is missing: serve, idle, dns, resolve, http, tcp, udp or version")
	}
	name, args := args[0], args[1:]
	switch name {
	case "serve":
		return serve(ctx, args)
	case "idle":
		<-ctx.Done()
		return nil
	case "dns":
		return show(dns(ctx, args))
	case "resolve":
		return show(resolve(ctx, args))
	case "http", "tcp", "udp":
		return show(send(ctx, name, args))
	case "version":
		fmt.Println(version)
		return nil
	}
	return fmt.Errorf("there is no command %q", name)
}

func show(result any, err error) error {
	if err != nil {
		return err
	}
	return json.NewEncoder(os.Stdout).Encode(result)
}
