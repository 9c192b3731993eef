package main

import (
	"bytes"
	"context"
	"crypto/tls"
	"encoding/binary"
	"errors"
	"fmt"
	"net"
	"sync/atomic"

	"golang.org/x/net/http2"
	"golang.org/x/net/http2/hpack"
	"google.golang.org/protobuf/proto"
)

// stream is the only gRPC stream of a connection of its own, with a goroutine that reads
// and writes both: a proxy answers each message at once, and one hundred of them share two
// processors with what is measured. gRPC's client passes a message through three
// goroutines, and takes twice the time for it that Envoy does.
type stream struct {
	conn  *tls.Conn
	out   bytes.Buffer // frames to be written
	frame *http2.Framer

	in      bytes.Buffer // of DATA, not taken yet
	taken   [2]uint32    // bytes by which the peer's windows are behind: stream, connection
	waiting []byte       // of DATA, for which there is no window yet
	// What the peer grants.
	window  [2]int64 // stream, connection
	initial int64    // SETTINGS_INITIAL_WINDOW_SIZE
	largest int      // SETTINGS_MAX_FRAME_SIZE
}

const (
	streamID = 1
	// granted is the size of both windows that the proxy grants, as large as Envoy's.
	granted = 1 << 20
	// largestMessage bounds a response, in bytes.
	largestMessage = 64 << 20
)

// dialStream connects and opens the stream. What comes over the connection counts wire.
func dialStream(ctx context.Context, address, method string, config *tls.Config, wire *atomic.Int64) (*stream, error) {
	raw, err := (&net.Dialer{}).DialContext(ctx, "tcp", address)
	if err != nil {
		return nil, err
	}
	config = config.Clone()
	config.NextProtos = []string{http2.NextProtoTLS}
	s := &stream{conn: tls.Client(&counted{raw, wire}, config), window: [2]int64{65_535, 65_535}, initial: 65_535, largest: 16_384}
	s.frame = http2.NewFramer(&s.out, s.conn)
	s.frame.SetReuseFrames()
	s.frame.ReadMetaHeaders = hpack.NewDecoder(4096, nil)
	err = s.conn.HandshakeContext(ctx)
	if err == nil {
		err = s.begin(method)
	}
	if err != nil {
		return nil, errors.Join(fmt.Errorf("stream to %s: %w", address, err), s.conn.Close())
	}
	return s, nil
}

func (s *stream) begin(method string) error {
	s.out.WriteString(http2.ClientPreface)
	var head bytes.Buffer
	enc := hpack.NewEncoder(&head)
	for _, f := range []hpack.HeaderField{
		{Name: ":method", Value: "POST"}, {Name: ":scheme", Value: "https"}, {Name: ":path", Value: method}, {Name: ":authority", Value: "agent"},
		{Name: "content-type", Value: "application/grpc"}, {Name: "te", Value: "trailers"},
	} {
		if err := enc.WriteField(f); err != nil {
			return err
		}
	}
	return errors.Join(
		s.frame.WriteSettings(http2.Setting{ID: http2.SettingInitialWindowSize, Val: granted}),
		s.frame.WriteWindowUpdate(0, granted-65_535),
		s.frame.WriteHeaders(http2.HeadersFrameParam{StreamID: streamID, BlockFragment: head.Bytes(), EndHeaders: true}),
		s.flush())
}

// send queues a message, which flush or the next receive writes.
func (s *stream) send(m proto.Message) error {
	size := proto.Size(m)
	s.waiting = append(s.waiting, 0)
	s.waiting = binary.BigEndian.AppendUint32(s.waiting, uint32(size))
	var err error
	s.waiting, err = proto.MarshalOptions{UseCachedSize: true}.MarshalAppend(s.waiting, m)
	return err
}

// flush writes what is queued, as far as the peer grants.
func (s *stream) flush() error {
	for len(s.waiting) > 0 {
		n := int(min(int64(len(s.waiting)), int64(s.largest), s.window[0], s.window[1]))
		if n <= 0 {
			break
		}
		if err := s.frame.WriteData(streamID, false, s.waiting[:n]); err != nil {
			return err
		}
		s.window[0] -= int64(n)
		s.window[1] -= int64(n)
		s.waiting = s.waiting[n:]
	}
	if len(s.waiting) == 0 {
		s.waiting = nil
	}
	if s.out.Len() == 0 {
		return nil
	}
	_, err := s.conn.Write(s.out.Bytes())
	s.out.Reset()
	return err
}

// receive writes what is queued and waits for a message. It is valid until the next call.
func (s *stream) receive() ([]byte, error) {
	for {
		if head := s.in.Bytes(); len(head) >= 5 {
			size := int(binary.BigEndian.Uint32(head[1:]))
			switch {
			case head[0] != 0:
				return nil, errors.New("the message is compressed")
			case size > largestMessage:
				return nil, fmt.Errorf("the message has %d bytes: more than %d", size, largestMessage)
			case len(head) >= 5+size:
				return s.in.Next(5 + size)[5:], nil
			}
		}
		if err := s.flush(); err != nil {
			return nil, err
		}
		f, err := s.frame.ReadFrame()
		if err != nil {
			return nil, err
		}
		if err := s.take(f); err != nil {
			return nil, err
		}
	}
}

func (s *stream) take(f http2.Frame) error {
	switch f := f.(type) {
	case *http2.DataFrame:
		s.in.Write(f.Data())
		for i, id := range []uint32{streamID, 0} {
			if s.taken[i] += f.Length; s.taken[i] >= granted/4 {
				if err := s.frame.WriteWindowUpdate(id, s.taken[i]); err != nil {
					return err
				}
				s.taken[i] = 0
			}
		}
	case *http2.SettingsFrame:
		if f.IsAck() {
			return nil
		}
		if v, ok := f.Value(http2.SettingInitialWindowSize); ok {
			s.window[0] += int64(v) - s.initial
			s.initial = int64(v)
		}
		if v, ok := f.Value(http2.SettingMaxFrameSize); ok {
			s.largest = int(v)
		}
		return s.frame.WriteSettingsAck()
	case *http2.WindowUpdateFrame:
		if f.StreamID == streamID {
			s.window[0] += int64(f.Increment)
		} else {
			s.window[1] += int64(f.Increment)
		}
	case *http2.PingFrame:
		if !f.IsAck() {
			return s.frame.WritePing(true, f.Data)
		}
	case *http2.MetaHeadersFrame:
		for _, h := range f.Fields {
			if h.Name == ":status" && h.Value != "200" || h.Name == "grpc-status" {
				return fmt.Errorf("the agent ended the stream: %v", f.Fields)
			}
		}
	case *http2.RSTStreamFrame:
		return fmt.Errorf("the agent reset the stream: %v", f.ErrCode)
	case *http2.GoAwayFrame:
		return fmt.Errorf("the agent closes the connection: %v %s", f.ErrCode, f.DebugData())
	}
	return nil
}

// close ends the connection. Any goroutine may call it.
func (s *stream) close() error { return s.conn.Close() }

// counted counts what is read from a connection.
type counted struct {
	net.Conn
	n *atomic.Int64
}

func (c *counted) Read(b []byte) (int, error) {
	n, err := c.Conn.Read(b)
	c.n.Add(int64(n))
	return n, err
}
