package echo

import (
	"bytes"
	"encoding/json"
	"errors"
	"io"
	"net"
	"time"
)

const (
	maxLine = 64 << 10
	// linePause ends a line that has no end: its client waits for the answer.
	linePause = 100 * time.Millisecond
	maxPacket = 64 << 10
	// maxDatagram is the most that UDP over IPv4 carries.
	maxDatagram = 65507
	// maxPackets bounds the datagrams whose answers wait on purpose.
	maxPackets = 1024
)

// lines answers each line of bytes with a line of JSON, until the client has
// said its last.
func (s *Server) lines(c *conn, protocol string) {
	if s.settings.Load().Fail != 0 {
		return
	}
	for {
		line, err := c.line()
		if len(line) > 0 {
			if !pause(s.closing, s.settings.Load().Slow) {
				return
			}
			answer, encodeErr := json.Marshal(Stream{Protocol: protocol, Identity: s.identity(), TLS: tlsOf(c.tls), Data: dataOf(bytes.TrimRight(line, "\r\n"))})
			if encodeErr != nil {
				return
			}
			_ = c.SetWriteDeadline(time.Now().Add(writeTimeout))
			if _, err := c.Write(append(answer, '\n')); err != nil {
				return
			}
		}
		if err != nil {
			return
		}
	}
}

// line reads up to the end of a line, a pause, the bound or the end.
func (c *conn) line() ([]byte, error) {
	var line []byte
	wait := idleTimeout
	for len(line) < maxLine {
		if c.r.Buffered() == 0 {
			if err := c.SetReadDeadline(time.Now().Add(wait)); err != nil {
				return line, err
			}
		}
		b, err := c.r.ReadByte()
		switch {
		case err != nil && timedOut(err) && len(line) > 0:
			return line, nil
		case err != nil:
			return line, err
		}
		line = append(line, b)
		if b == '\n' {
			break
		}
		wait = linePause
	}
	return line, nil
}

// ServePackets answers each datagram with one, until Shutdown, which it returns
// nil after. It closes the socket and waits for its goroutines.
func (s *Server) ServePackets(c net.PacketConn) error {
	if !s.begin(c) {
		return nil
	}
	defer s.wg.Wait()
	busy := make(chan struct{}, maxPackets)
	buf := make([]byte, maxPacket)
	for {
		n, from, err := c.ReadFrom(buf)
		switch {
		case s.closing.Err() != nil:
			return nil
		case errors.Is(err, net.ErrClosed), errors.Is(err, io.EOF):
			return err
		case err != nil:
			continue // a client that has gone
		}
		set := s.settings.Load()
		if set.Fail != 0 || set.Reset {
			continue
		}
		answer := s.packet(buf[:n])
		if set.Slow == 0 {
			_, _ = c.WriteTo(answer, from)
			continue
		}
		select {
		case busy <- struct{}{}:
			s.wg.Go(func() {
				defer func() { <-busy }()
				if pause(s.closing, set.Slow) {
					_, _ = c.WriteTo(answer, from)
				}
			})
		default: // as UDP does
		}
	}
}

// packet is the answer to a datagram. It always fits one.
func (s *Server) packet(data []byte) []byte {
	answer := Stream{Protocol: "UDP", Identity: s.identity(), Data: dataOf(data)}
	for {
		out, err := json.Marshal(answer)
		if err == nil && len(out) <= maxDatagram {
			return out
		}
		data = data[:len(data)/2]
		answer.Data = dataOf(data)
		answer.Truncated = true
	}
}
