package main

import (
	"bufio"
	"context"
	"crypto/rand"
	"encoding/binary"
	"flag"
	"fmt"
	"io"
	"net"
	"os"
	"slices"
	"strconv"
	"strings"
	"time"

	"golang.org/x/net/dns/dnsmessage"
)

const lookupTimeout = 5 * time.Second

// Answer is what a name server has said.
type Answer struct {
	RCode string `json:"rcode"` // "NOERROR", "NXDOMAIN", "SERVFAIL", "REFUSED" or a number
	// Records are sorted: addresses, "PRIORITY WEIGHT PORT TARGET" of SRV, or names.
	Records []string `json:"records"`
}

var types = map[string]dnsmessage.Type{
	"A": dnsmessage.TypeA, "AAAA": dnsmessage.TypeAAAA, "SRV": dnsmessage.TypeSRV, "PTR": dnsmessage.TypePTR, "CNAME": dnsmessage.TypeCNAME,
}

var rcodes = map[dnsmessage.RCode]string{
	dnsmessage.RCodeSuccess: "NOERROR", dnsmessage.RCodeNameError: "NXDOMAIN", dnsmessage.RCodeServerFailure: "SERVFAIL", dnsmessage.RCodeRefused: "REFUSED",
}

// dns asks the first name server of resolv.conf for a full name, over TCP, which cuts no answer short.
func dns(ctx context.Context, args []string) (*Answer, error) {
	flags := flag.NewFlagSet("dns", flag.ContinueOnError)
	kind := flags.String("type", "A", "A, AAAA, SRV, PTR or CNAME")
	server := flags.String("server", "", "ADDRESS:PORT to ask instead")
	if err := flags.Parse(args); err != nil {
		return nil, err
	}
	if flags.NArg() != 1 || types[*kind] == 0 {
		return nil, fmt.Errorf("one name is to be given, and a type of A, AAAA, SRV, PTR or CNAME")
	}
	if *server == "" {
		var err error
		if *server, err = nameServer(); err != nil {
			return nil, err
		}
	}
	name, err := dnsmessage.NewName(strings.TrimSuffix(flags.Arg(0), ".") + ".")
	if err != nil {
		return nil, err
	}
	var id [2]byte
	_, _ = rand.Read(id[:])
	query := dnsmessage.Message{
		Header:    dnsmessage.Header{ID: binary.BigEndian.Uint16(id[:]), RecursionDesired: true},
		Questions: []dnsmessage.Question{{Name: name, Type: types[*kind], Class: dnsmessage.ClassINET}},
	}
	packed, err := query.Pack()
	if err != nil {
		return nil, err
	}
	reply, err := exchange(ctx, *server, packed)
	if err != nil {
		return nil, err
	}
	if reply.ID != query.ID || !reply.Response {
		return nil, fmt.Errorf("%s answers something else", *server)
	}
	return answerOf(reply), nil
}

func exchange(ctx context.Context, server string, query []byte) (*dnsmessage.Message, error) {
	ctx, cancel := context.WithTimeout(ctx, lookupTimeout)
	defer cancel()
	var d net.Dialer
	conn, err := d.DialContext(ctx, "tcp", server)
	if err != nil {
		return nil, err
	}
	defer conn.Close()
	deadline, _ := ctx.Deadline()
	_ = conn.SetDeadline(deadline)
	// Over TCP a message comes after its length.
	if _, err := conn.Write(append(binary.BigEndian.AppendUint16(nil, uint16(len(query))), query...)); err != nil {
		return nil, err
	}
	var size [2]byte
	if _, err := io.ReadFull(conn, size[:]); err != nil {
		return nil, err
	}
	b := make([]byte, binary.BigEndian.Uint16(size[:]))
	if _, err := io.ReadFull(conn, b); err != nil {
		return nil, err
	}
	m := new(dnsmessage.Message)
	return m, m.Unpack(b)
}

func answerOf(m *dnsmessage.Message) *Answer {
	a := &Answer{RCode: rcodes[m.RCode], Records: []string{}}
	if a.RCode == "" {
		a.RCode = strconv.Itoa(int(m.RCode))
	}
	for _, r := range m.Answers {
		switch b := r.Body.(type) {
		case *dnsmessage.AResource:
			a.Records = append(a.Records, net.IP(b.A[:]).String())
		case *dnsmessage.AAAAResource:
			a.Records = append(a.Records, net.IP(b.AAAA[:]).String())
		case *dnsmessage.SRVResource:
			a.Records = append(a.Records, fmt.Sprintf("%d %d %d %s", b.Priority, b.Weight, b.Port, b.Target))
		case *dnsmessage.PTRResource:
			a.Records = append(a.Records, b.PTR.String())
		case *dnsmessage.CNAMEResource:
			a.Records = append(a.Records, b.CNAME.String())
		}
	}
	slices.Sort(a.Records)
	return a
}

func nameServer() (string, error) {
	f, err := os.Open("/etc/resolv.conf")
	if err != nil {
		return "", err
	}
	defer f.Close()
	for s := bufio.NewScanner(f); s.Scan(); {
		if w := strings.Fields(s.Text()); len(w) >= 2 && w[0] == "nameserver" {
			return net.JoinHostPort(w[1], "53"), nil
		}
	}
	return "", fmt.Errorf("/etc/resolv.conf names no server")
}

// resolve finds the addresses of a name as programs of Go do.
func resolve(ctx context.Context, args []string) ([]string, error) {
	if len(args) != 1 {
		return nil, fmt.Errorf("one name is to be given")
	}
	ctx, cancel := context.WithTimeout(ctx, lookupTimeout)
	defer cancel()
	found, err := net.DefaultResolver.LookupHost(ctx, args[0])
	slices.Sort(found)
	return found, err
}
