package tests

import (
	"bufio"
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"net"
	"testing"
	"time"

	"github.com/stretchr/testify/require"
	"k8s.io/apimachinery/pkg/util/wait"
	"sigs.k8s.io/gateway-api/conformance/echo-basic/tcpserver"
	"sigs.k8s.io/gateway-api/conformance/echo-basic/udpechoserver"
	"sigs.k8s.io/gateway-api/conformance/utils/kubernetes"
	"sigs.k8s.io/gateway-api/conformance/utils/suite"
	"sigs.k8s.io/gateway-api/conformance/utils/tlog"
)

// ready waits until all Gateways and pods of the tests' namespace are ready: a test that
// makes a Gateway of its own has to.
func ready(t *testing.T, s *suite.ConformanceTestSuite) {
	t.Helper()
	kubernetes.NamespacesMustBeReady(t, s.Client, s.TimeoutConfig, []string{suite.InfrastructureNamespace})
}

// echoed asks the suite's TCP echo server at the other end of a new connection for the
// name of its pod.
func echoed(ctx context.Context, dialer interface {
	DialContext(ctx context.Context, network, address string) (net.Conn, error)
}, gwAddr string, timeout time.Duration) (string, error) {
	ctx, cancel := context.WithTimeout(ctx, timeout)
	defer cancel()
	conn, err := dialer.DialContext(ctx, "tcp", gwAddr)
	if err != nil {
		return "", err
	}
	defer conn.Close()
	deadline, _ := ctx.Deadline()
	if err := conn.SetDeadline(deadline); err != nil {
		return "", err
	}
	r := bufio.NewReader(conn)
	if _, err := r.ReadString('\n'); err != nil { // its welcome
		return "", err
	}
	if _, err := fmt.Fprintln(conn, "TEST"); err != nil {
		return "", err
	}
	line, err := r.ReadBytes('\n')
	if err != nil {
		return "", err
	}
	var answer tcpserver.TCPAssertions
	if err := json.Unmarshal(line, &answer); err != nil {
		return "", fmt.Errorf("%q: %w", line, err)
	}
	return answer.Pod, nil
}

// tcpRejected waits until connections are refused, or closed with nothing sent.
func tcpRejected(t *testing.T, s *suite.ConformanceTestSuite, gwAddr string) {
	t.Helper()
	err := wait.PollUntilContextTimeout(t.Context(), s.TimeoutConfig.DefaultPollInterval, s.TimeoutConfig.MaxTimeToConsistency, true, func(ctx context.Context) (bool, error) {
		pod, err := echoed(ctx, &net.Dialer{}, gwAddr, s.TimeoutConfig.RequestTimeout)
		var slow net.Error
		switch {
		case err == nil:
			tlog.Logf(t, "%s is still answered by %s", gwAddr, pod)
			return false, nil
		case errors.As(err, &slow) && slow.Timeout():
			tlog.Logf(t, "%s: %v", gwAddr, err)
			return false, nil
		}
		return true, nil
	})
	require.NoErrorf(t, err, "connections to %s have to be rejected", gwAddr)
}

// datagram sends one from a new socket and gives the pod that has answered.
func datagram(ctx context.Context, gwAddr string, timeout time.Duration) (string, error) {
	conn, err := (&net.Dialer{}).DialContext(ctx, "udp", gwAddr)
	if err != nil {
		return "", err
	}
	defer conn.Close()
	if err := conn.SetDeadline(time.Now().Add(timeout)); err != nil {
		return "", err
	}
	if _, err := fmt.Fprintln(conn, "gateway-api-conformance-serviceimport"); err != nil {
		return "", err
	}
	buf := make([]byte, 4096)
	n, err := conn.Read(buf)
	if err != nil {
		return "", err
	}
	var answer udpechoserver.EchoResponse
	if err := json.Unmarshal(buf[:n], &answer); err != nil {
		return "", fmt.Errorf("%q: %w", buf[:n], err)
	}
	return answer.Pod, nil
}

// unanswered waits until three datagrams in a row have no answer.
func unanswered(t *testing.T, s *suite.ConformanceTestSuite, gwAddr string) {
	t.Helper()
	row := 0
	err := wait.PollUntilContextTimeout(t.Context(), s.TimeoutConfig.DefaultPollInterval, s.TimeoutConfig.MaxTimeToConsistency, true, func(ctx context.Context) (bool, error) {
		pod, err := datagram(ctx, gwAddr, time.Second)
		if err == nil {
			tlog.Logf(t, "%s is still answered by %s", gwAddr, pod)
			row = 0
			return false, nil
		}
		row++
		return row >= s.TimeoutConfig.RequiredConsecutiveSuccesses, nil
	})
	require.NoErrorf(t, err, "datagrams to %s have to be dropped", gwAddr)
}

// passthroughName is the name in the certificate that TCP backends answer TLS with.
const passthroughName = "abc.example.com"

// passthroughAuthority is the certificate of its authority.
func passthroughAuthority(t *testing.T, s *suite.ConformanceTestSuite) []byte {
	t.Helper()
	data, err := kubernetes.GetConfigMapData(s.Client, s.TimeoutConfig, infra("tls-checks-ca-certificate"))
	require.NoError(t, err)
	return []byte(data["ca.crt"])
}
