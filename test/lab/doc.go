// Package lab runs real Kubernetes clusters for tests, on one Linux machine, without
// Docker: each cluster is a network namespace with one node, which has its own etcd, API
// server, controller manager, scheduler, kubelet, containerd, kube-proxy, CoreDNS and a
// controller that gives LoadBalancer Services their addresses. It builds all of
// Kubernetes, etcd and CoreDNS from their Go modules, which components pins, into a
// cache; containerd, runc and the CNI plugins are the distribution's.
//
//	  machine (cwlab0, 10.192.0.1) ──┬── switch in cwlab0-wire ──┬───────────────┐
//	                                 │                           │               │
//	                            cwlab0-1 (10.192.0.11)      cwlab0-2 (.12)      ...
//	pods                        10.192.16.0/21              10.192.32.0/21
//	load balancers              10.192.24.0/24              10.192.40.0/24
//	Services                    10.96.0.0/16                10.96.0.0/16
//
// A lab takes the first of 16 slots that is free: with the slot change the second byte
// of the addresses and the number in the names, so labs run beside each other. All is
// dual-stack (fd43:ca05:SLOT::/48; Services fd00:10:96::/112). Service ranges overlap, as they do in
// fleets. The machine reaches nodes, pods and load balancers. A cluster's pods reach
// the machine and other clusters' nodes and load balancers, by their node's address; other
// clusters' pods only after Flat.
//
// It guarantees that
//
//   - Start returns when nodes are ready and DNS answers, or leaves nothing;
//   - Close leaves nothing: no process, network namespace, link, route, mount, cgroup
//     or file, but for the cache and the packages that were installed;
//   - what a killed process has left of its lab the next Start removes;
//   - labs don't disturb each other, nor a Kubernetes or Docker of the machine.
//
// It needs root, but no capability that containers in sandboxes lack beyond
// CAP_SYS_ADMIN and CAP_NET_ADMIN: not CAP_SYS_RESOURCE. Cgroups may be version 1 or 2.
//
// StartControlPlane is a smaller thing for tests without pods: etcd and an API server on
// loopback, without root.
//
// test/e2e and test/conformance use it, and cmd/lab, which `make lab` runs.
package lab
