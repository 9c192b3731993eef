package main

import (
	"context"
	"fmt"
	"io"
	"net"
	"os"
	"path/filepath"
	"syscall"
	"time"

	"github.com/causeway-mesh/causeway/federation/store"
)

// floor is what the machine itself takes for what no design can leave out.
type floor struct {
	sync, hop, sum []time.Duration // one fdatasync of 4 KiB; one loopback round trip; two of each
	etcd           []time.Duration // a write until a watch tells of it
}

// floorSamples bounds the time that the floor takes to a second or so.
const floorSamples = 300

// measureFloor asks the disk that etcd uses, the loopback, and etcd alone.
func (s *set) measureFloor(ctx context.Context) (f floor, err error) {
	file, err := os.Create(filepath.Join(s.dir, "floor"))
	if err != nil {
		return f, err
	}
	defer func() { _ = file.Close() }()
	near, far, err := loopback()
	if err != nil {
		return f, err
	}
	defer func() { _, _ = near.Close(), far.Close() }()
	go func() { _, _ = io.Copy(far, far) }()
	block, small := make([]byte, 4<<10), make([]byte, 512)
	sync := func(i int) (time.Duration, error) {
		began := time.Now()
		if _, err := file.WriteAt(block, int64(i%256)*int64(len(block))); err != nil {
			return 0, err
		}
		err := syscall.Fdatasync(int(file.Fd()))
		return time.Since(began), err
	}
	hop := func() (time.Duration, error) {
		began := time.Now()
		if _, err := near.Write(small); err != nil {
			return 0, err
		}
		_, err := io.ReadFull(near, small)
		return time.Since(began), err
	}
	for i := range floorSamples {
		sum := time.Duration(0)
		for j := range 2 {
			d, err := sync(2*i + j)
			if err != nil {
				return f, err
			}
			h, err := hop()
			if err != nil {
				return f, err
			}
			f.sync, f.hop = append(f.sync, d), append(f.hop, h)
			sum += d + h
		}
		f.sum = append(f.sum, sum)
	}
	f.etcd, err = s.measureStore(ctx)
	return f, err
}

func loopback() (near, far net.Conn, err error) {
	l, err := net.Listen("tcp", "127.0.0.1:0")
	if err != nil {
		return nil, nil, err
	}
	defer func() { _ = l.Close() }()
	if near, err = net.Dial("tcp", l.Addr().String()); err != nil {
		return nil, nil, err
	}
	far, err = l.Accept()
	return near, far, err
}

// measureStore writes records that mean nothing to anybody, below no cluster's
// prefix, and watches them.
func (s *set) measureStore(ctx context.Context) ([]time.Duration, error) {
	const prefix = "/causeway/bench/"
	ctx, cancel := context.WithCancel(ctx)
	defer cancel()
	_, rev, err := s.admin.List(ctx, prefix, 0)
	if err != nil {
		return nil, err
	}
	seen, ended := make(chan time.Time, 1), make(chan error, 1)
	go func() {
		ended <- s.admin.Watch(ctx, prefix, rev, func(b store.Batch) error {
			if len(b.Events) > 0 {
				seen <- time.Now()
			}
			return nil
		})
	}()
	var out []time.Duration
	for range floorSamples {
		began := time.Now()
		if _, err := s.admin.Commit(ctx, store.Txn{Ops: []store.Op{store.Put(prefix+"floor", make([]byte, 512))}}); err != nil {
			return nil, err
		}
		select {
		case at := <-seen:
			out = append(out, at.Sub(began))
		case err := <-ended:
			return nil, fmt.Errorf("watching the store: %w", err)
		case <-time.After(changeTimeout):
			return nil, fmt.Errorf("the store did not tell of a write within %v", changeTimeout)
		}
		time.Sleep(pause)
	}
	return out, nil
}
