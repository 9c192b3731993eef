package main

import (
	"context"
	"encoding/binary"
	"io"
	"net"
	"strconv"
	"strings"
	"testing"
	"time"

	"golang.org/x/net/dns/dnsmessage"

	"github.com/causeway-mesh/causeway/federation/store/etcd/embedded/port"
)

// free is a port that is the test's own for TCP, and free for UDP.
func free(t *testing.T) string {
	t.Helper()
	for range 20 {
		r, err := port.Reserve(0)
		if err != nil {
			t.Fatal(err)
		}
		t.Cleanup(func() { _ = r.Close() })
		p := strconv.Itoa(r.Port())
		if c, err := net.ListenPacket("udp", ":"+p); err == nil {
			c.Close()
			return p
		}
	}
	t.Fatal("no port is free")
	return ""
}

// Clients tell which servers have answered, over every protocol, and what has failed.
func TestClientAndServer(t *testing.T) {
	t.Setenv("CLUSTER", "west")
	t.Setenv("POD", "a")
	p := free(t)
	ctx, stop := context.WithCancel(t.Context())
	served := make(chan error, 1)
	go func() { served <- serve(ctx, []string{"-http", p, "-udp", p}) }()
	var out *Results
	for deadline := time.Now().Add(time.Minute); ; time.Sleep(20 * time.Millisecond) {
		var err error
		if out, err = send(t.Context(), "tcp", []string{"127.0.0.1:" + p}); err != nil {
			t.Fatal(err)
		}
		if out.Failed == 0 {
			break
		}
		if time.Now().After(deadline) {
			t.Fatalf("%+v", out)
		}
	}
	for _, args := range [][]string{
		{"tcp", "-n", "3", "127.0.0.1:" + p}, {"udp", "-n", "3", "127.0.0.1:" + p},
		{"http", "-n", "3", "http://127.0.0.1:" + p + "/x"}, {"http", "-n", "3", "-method", "POST", "-H", "X-A: b", "http://[::1]:" + p + "/"},
	} {
		out, err := send(t.Context(), args[0], args[1:])
		if err != nil || len(out.Answers) != 3 || out.Failed != 0 || out.Clusters["west"] != 3 || out.Pods["a"] != 3 {
			t.Errorf("%v: %+v, %v", args, out, err)
		}
	}
	stop()
	if err := <-served; err != nil {
		t.Error(err)
	}
	if out, err := send(t.Context(), "http", []string{"http://127.0.0.1:" + p}); err != nil || out.Failed != 1 || out.Answers[0].Error == "" {
		t.Errorf("without a server: %+v, %v", out, err)
	}
}

// A look-up tells what the name server has said, an absent name included.
func TestDNS(t *testing.T) {
	t.Parallel()
	l, err := net.Listen("tcp", "127.0.0.1:0")
	if err != nil {
		t.Fatal(err)
	}
	defer l.Close()
	go answerDNS(l)
	for name, want := range map[string]struct{ kind, says string }{
		"web.example": {"A", "NOERROR 192.0.2.1,192.0.2.2"}, "_http._tcp.web.example": {"SRV", "NOERROR 0 50 80 web.example."},
		"web.example.": {"AAAA", "NOERROR "}, "none.example": {"A", "NXDOMAIN "},
	} {
		a, err := dns(t.Context(), []string{"-server", l.Addr().String(), "-type", want.kind, name})
		if err != nil {
			t.Errorf("%s: %v", name, err)
			continue
		}
		if got := a.RCode + " " + strings.Join(a.Records, ","); got != want.says {
			t.Errorf("%s %s: %q, want %q", name, want.kind, got, want.says)
		}
	}
}

// answerDNS is a name server of the world of TestDNS.
func answerDNS(l net.Listener) {
	for {
		conn, err := l.Accept()
		if err != nil {
			return
		}
		var size [2]byte
		_, _ = io.ReadFull(conn, size[:])
		b := make([]byte, binary.BigEndian.Uint16(size[:]))
		_, _ = io.ReadFull(conn, b)
		var m dnsmessage.Message
		if m.Unpack(b) != nil {
			conn.Close()
			continue
		}
		q := m.Questions[0]
		m.Response = true
		add := func(body dnsmessage.ResourceBody) {
			m.Answers = append(m.Answers, dnsmessage.Resource{Header: dnsmessage.ResourceHeader{Name: q.Name, Type: q.Type, Class: q.Class}, Body: body})
		}
		switch {
		case q.Name.String() == "none.example.":
			m.RCode = dnsmessage.RCodeNameError
		case q.Type == dnsmessage.TypeA:
			add(&dnsmessage.AResource{A: [4]byte{192, 0, 2, 2}})
			add(&dnsmessage.AResource{A: [4]byte{192, 0, 2, 1}})
		case q.Type == dnsmessage.TypeSRV:
			add(&dnsmessage.SRVResource{Weight: 50, Port: 80, Target: dnsmessage.MustNewName("web.example.")})
		}
		b, _ = m.Pack()
		_, _ = conn.Write(append(binary.BigEndian.AppendUint16(nil, uint16(len(b))), b...))
		conn.Close()
	}
}
