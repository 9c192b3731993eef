package main

import (
	"context"
	"flag"
	"fmt"
	"log/slog"
	"net/netip"
	"slices"
	"strings"
	"time"

	corev1 "k8s.io/api/core/v1"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
	"k8s.io/client-go/informers"
	"k8s.io/client-go/kubernetes"
	"k8s.io/client-go/tools/cache"
	"k8s.io/client-go/tools/clientcmd"
)

// retry is when Services that could not be given their addresses are looked at again.
const retry = 2 * time.Second

// runLoadBalancer gives Services of type LoadBalancer their addresses, as a cloud's
// controller would, until ctx ends: one of each pool whose IP family the Service
// has, the one that spec.loadBalancerIP asks for or else the next free one, so that an
// address rests before it is another's. A Service that asks for an address outside of the
// pools, or for one that is taken, stays pending. That packets for the addresses reach the node is the lab's affair;
// kube-proxy does the rest.
func runLoadBalancer(ctx context.Context, args []string) error {
	flags := flag.NewFlagSet("load-balancer", flag.ContinueOnError)
	kubeconfig := flags.String("kubeconfig", "", "kubeconfig file")
	list := flags.String("pools", "", "prefixes to give addresses of, at most one of each IP family, by commas")
	if err := flags.Parse(args); err != nil {
		return err
	}
	var pools []netip.Prefix
	for text := range strings.SplitSeq(*list, ",") {
		p, err := netip.ParsePrefix(text)
		if err != nil {
			return fmt.Errorf("-pools: %w", err)
		}
		pools = append(pools, p.Masked())
	}
	cfg, err := clientcmd.BuildConfigFromFlags("", *kubeconfig)
	if err != nil {
		return fmt.Errorf("-kubeconfig: %w", err)
	}
	cfg.QPS, cfg.Burst = 200, 400 // conformance suites make a hundred at once
	client, err := kubernetes.NewForConfig(cfg)
	if err != nil {
		return err
	}
	changed := make(chan struct{}, 1)
	poke := func() {
		select {
		case changed <- struct{}{}:
		default:
		}
	}
	factory := informers.NewSharedInformerFactory(client, 0)
	informer := factory.Core().V1().Services()
	if _, err := informer.Informer().AddEventHandler(cache.ResourceEventHandlerFuncs{
		AddFunc: func(any) { poke() }, UpdateFunc: func(any, any) { poke() }, DeleteFunc: func(any) { poke() },
	}); err != nil {
		return err
	}
	factory.Start(ctx.Done())
	defer factory.Shutdown()
	factory.WaitForCacheSync(ctx.Done())
	last := map[netip.Prefix]netip.Addr{}
	for {
		again := make(<-chan time.Time)
		// Not the informer's: it may not have the addresses yet that were given just now, and
		// two Services would get the same.
		all, err := client.CoreV1().Services(metav1.NamespaceAll).List(ctx, metav1.ListOptions{})
		if err != nil {
			if ctx.Err() != nil {
				return nil
			}
			slog.Warn("could not list Services", "err", err)
			all, again = &corev1.ServiceList{}, time.After(retry)
		}
		var services []*corev1.Service
		for i := range all.Items {
			services = append(services, &all.Items[i])
		}
		for _, s := range assign(services, pools, last) {
			if _, err := client.CoreV1().Services(s.Namespace).UpdateStatus(ctx, s, metav1.UpdateOptions{}); err != nil {
				slog.Warn("could not write the addresses of a Service", "service", s.Namespace+"/"+s.Name, "err", err)
				again = time.After(retry)
			}
		}
		select {
		case <-ctx.Done():
			return nil
		case <-changed:
		case <-again:
		}
	}
}

// assign returns the Services whose addresses have to change, with the new ones. last has the
// address of each pool that was given last, and is kept up to date.
func assign(services []*corev1.Service, pools []netip.Prefix, last map[netip.Prefix]netip.Addr) []*corev1.Service {
	services = slices.Clone(services)
	slices.SortFunc(services, func(a, b *corev1.Service) int {
		if c := a.CreationTimestamp.Compare(b.CreationTimestamp.Time); c != 0 {
			return c
		}
		return strings.Compare(a.Namespace+"/"+a.Name, b.Namespace+"/"+b.Name)
	})
	used := map[netip.Addr]bool{}
	for _, s := range services {
		if s.Spec.Type != corev1.ServiceTypeLoadBalancer {
			continue
		}
		for _, in := range s.Status.LoadBalancer.Ingress {
			if a, err := netip.ParseAddr(in.IP); err == nil {
				used[a] = true
			}
		}
	}
	var out []*corev1.Service
	for _, s := range services {
		if s.Spec.Type != corev1.ServiceTypeLoadBalancer || s.DeletionTimestamp != nil {
			continue
		}
		want, _ := netip.ParseAddr(s.Spec.LoadBalancerIP)
		var addrs []netip.Addr
		kept, complete := 0, true
		for _, pool := range pools {
			if !slices.Contains(s.Spec.IPFamilies, familyOf(pool)) {
				continue
			}
			if a, ok := current(s, pool); ok {
				addrs = append(addrs, a)
				kept++
				continue
			}
			a, ok := free(pool, want, used, last[pool])
			if !ok {
				complete = false
				break
			}
			if a != want {
				last[pool] = a
			}
			addrs = append(addrs, a)
		}
		if !complete || len(addrs) == kept && kept == len(s.Status.LoadBalancer.Ingress) {
			continue
		}
		mode := corev1.LoadBalancerIPModeVIP
		s = s.DeepCopy()
		s.Status.LoadBalancer.Ingress = nil
		for _, a := range addrs {
			used[a] = true
			s.Status.LoadBalancer.Ingress = append(s.Status.LoadBalancer.Ingress, corev1.LoadBalancerIngress{IP: a.String(), IPMode: &mode})
		}
		out = append(out, s)
	}
	return out
}

func familyOf(pool netip.Prefix) corev1.IPFamily {
	if pool.Addr().Is4() {
		return corev1.IPv4Protocol
	}
	return corev1.IPv6Protocol
}

// current is the address of the pool that the Service has.
func current(s *corev1.Service, pool netip.Prefix) (netip.Addr, bool) {
	for _, in := range s.Status.LoadBalancer.Ingress {
		if a, err := netip.ParseAddr(in.IP); err == nil && pool.Contains(a) {
			return a, true
		}
	}
	return netip.Addr{}, false
}

// free is the address that a Service gets: the wanted one if it says one of this
// family, else the next after last that nobody has. The pool's first address is the
// network's.
func free(pool netip.Prefix, want netip.Addr, used map[netip.Addr]bool, last netip.Addr) (netip.Addr, bool) {
	if want.IsValid() && want.Is4() == pool.Addr().Is4() {
		return want, pool.Contains(want) && !used[want]
	}
	first := pool.Addr().Next()
	if !last.IsValid() {
		last = pool.Addr()
	}
	for a := last.Next(); pool.Contains(a); a = a.Next() {
		if !used[a] {
			return a, true
		}
	}
	for a := first; pool.Contains(a) && a.Compare(last) <= 0; a = a.Next() {
		if !used[a] {
			return a, true
		}
	}
	return netip.Addr{}, false
}
