package etcd

import (
	"context"
	"errors"
	"fmt"
	"strings"
	"sync"
	"time"

	pb "go.etcd.io/etcd/api/v3/etcdserverpb"
	"go.etcd.io/etcd/api/v3/mvccpb"
	"go.etcd.io/etcd/api/v3/v3rpc/rpctypes"
	clientv3 "go.etcd.io/etcd/client/v3"
	"google.golang.org/grpc"
	"google.golang.org/grpc/metadata"

	"github.com/causeway-mesh/causeway/federation/store"
)

// A watch speaks etcd's protocol itself, over the client's connection, instead of
// through clientv3's Watcher: that one resumes without telling, and buffers
// without bound for a slow reader.
type watch struct {
	s       *Store
	prefix  string
	deliver func(store.Batch) error
	// clusterID of the store whose revisions last belongs to; 0 if not yet known.
	clusterID uint64
	// last: everything up to this revision has been delivered. It alone survives
	// a broken stream.
	last int64
}

// finalError ends a watch; all other errors only end a stream.
type finalError struct{ error }

func (e finalError) Unwrap() error { return e.error }

// Watch implements store.Store.
func (s *Store) Watch(ctx context.Context, prefix string, after int64, deliver func(store.Batch) error) error {
	if err := checkRead(prefix, after); err != nil {
		return err
	}
	w := &watch{s: s, prefix: prefix, deliver: deliver, clusterID: s.clusterID.Load(), last: after}
	var wait delays
	for {
		created, err := w.stream(ctx)
		var final finalError
		if errors.As(err, &final) {
			return final.error
		}
		if ctx.Err() != nil {
			return ctx.Err()
		}
		s.meters.reconnects.Inc()
		s.state.set(false, err)
		if created {
			wait.reset()
		}
		s.pause(ctx, wait.next())
	}
}

// stream follows one stream until it breaks. created says whether it ever worked.
func (w *watch) stream(ctx context.Context) (created bool, err error) {
	var running sync.WaitGroup
	defer running.Wait()
	ctx, cancel := context.WithCancel(ctx)
	defer cancel()

	// A member that lost its leader must break the stream, not leave it silent.
	sctx := metadata.AppendToOutgoingContext(ctx, rpctypes.MetadataRequireLeaderKey, rpctypes.MetadataHasLeader)
	stream, err := w.s.watch.Watch(sctx, grpc.MaxCallRecvMsgSize(maxWatchBytes))
	if err != nil {
		return false, convert(err)
	}
	err = stream.Send(&pb.WatchRequest{RequestUnion: &pb.WatchRequest_CreateRequest{CreateRequest: &pb.WatchCreateRequest{
		Key: []byte(w.prefix), RangeEnd: []byte(clientv3.GetPrefixRangeEnd(w.prefix)),
		StartRevision: w.last + 1, ProgressNotify: true, Fragment: true,
	}}})
	if err != nil {
		// The reason, if any, is what Recv returns.
		if _, rerr := stream.Recv(); rerr != nil {
			err = rerr
		}
		return false, convert(err)
	}

	responses := make(chan *pb.WatchResponse)
	broken := make(chan error, 1)
	running.Add(1)
	go func() {
		defer running.Done()
		for {
			r, err := stream.Recv()
			if err != nil {
				broken <- err
				return
			}
			select {
			case responses <- r:
			case <-ctx.Done():
				return
			}
		}
	}()

	var (
		tick    = time.NewTicker(w.s.cfg.ProgressInterval)
		begin   = time.NewTimer(probeTimeout)
		heard   time.Time // when the stream last said something
		quiet   bool      // nothing since the last tick
		probing bool
		probes  = make(chan probed, 1)
		part    fragments
	)
	defer tick.Stop()
	defer begin.Stop()
	probe := func() {
		if probing {
			return
		}
		probing = true
		running.Add(1)
		after := w.last
		go func() {
			defer running.Done()
			probes <- w.probe(ctx, after)
		}()
	}
	for {
		select {
		case r := <-responses:
			behind, err := w.receive(r, &created, &part)
			if err != nil {
				return created, err
			}
			if behind {
				probe()
			}
			// After delivering, which may have taken long.
			heard, quiet = time.Now(), false

		case err := <-broken:
			return created, convert(err)

		case <-begin.C:
			if !created {
				return false, fmt.Errorf("%w: no answer to the watch of %q within %v", store.ErrUnavailable, w.prefix, probeTimeout)
			}

		case <-tick.C:
			if !created {
				continue
			}
			// etcd answers a request for progress only once it has passed the
			// revision where the watch began; until then another request must tell
			// whether it is there.
			if quiet {
				probe()
			}
			quiet = true
			err := stream.Send(&pb.WatchRequest{RequestUnion: &pb.WatchRequest_ProgressRequest{ProgressRequest: &pb.WatchProgressRequest{}}})
			_ = err // a broken stream shows in broken, with the reason

		case p := <-probes:
			probing = false
			switch {
			case p.err != nil && !quiet:
				// The stream works, which is what counts.
			case p.err != nil:
				return created, p.err
			case p.revision < p.after:
				return created, finalError{fmt.Errorf("watching %q after revision %d, newest is %d: %w", w.prefix, p.after, p.revision, store.ErrFutureRevision)}
			case p.revision == w.last && quiet:
				if err := w.emit(nil, w.last); err != nil {
					return created, err
				}
			case quiet && time.Since(heard) > stuckAfter:
				return created, fmt.Errorf("%w: watch of %q said nothing for %v", store.ErrUnavailable, w.prefix, stuckAfter)
			}

		case <-ctx.Done():
			return created, ctx.Err()
		}
	}
}

// probed is the newest revision as a quorum knew it after everything up to after
// had been delivered. Events may overtake the answer, so it says nothing of those.
type probed struct {
	after, revision int64
	err             error
}

// probe asks a quorum for the newest revision.
func (w *watch) probe(ctx context.Context, after int64) probed {
	p := probed{after: after}
	p.err = w.s.callWithin(ctx, "probe", probeTimeout, func(ctx context.Context) error {
		resp, err := w.s.kv.Range(ctx, &pb.RangeRequest{Key: []byte(w.prefix), KeysOnly: true})
		p.revision = resp.GetHeader().GetRevision()
		return err
	})
	return p
}

// receive handles one message. behind says that the member's revision is less than
// what was delivered: it lags, or the store was restored.
func (w *watch) receive(r *pb.WatchResponse, created *bool, part *fragments) (behind bool, err error) {
	if err := w.cancelled(r); err != nil {
		return false, err
	}
	rev := r.GetHeader().GetRevision()
	switch {
	case r.GetCreated():
		id := r.GetHeader().GetClusterId()
		if w.clusterID == 0 {
			w.clusterID = id
		}
		w.s.clusterID.Store(id)
		if id != w.clusterID {
			return false, finalError{fmt.Errorf("watching %q after revision %d: etcd cluster id was %x, is %x: %w", w.prefix, w.last, w.clusterID, id, store.ErrReplaced)}
		}
		*created = true
		w.s.state.set(true, nil)
		return rev < w.last, nil
	case !*created:
		return false, fmt.Errorf("%w: message for a watch that was not created", store.ErrUnavailable)
	case len(r.GetEvents()) > 0 || r.GetFragment():
		events, upto, err := part.add(r.GetEvents(), !r.GetFragment(), w.last)
		if err != nil || len(events) == 0 {
			return false, err
		}
		return false, w.emit(events, upto)
	case rev >= w.last && !part.open():
		return false, w.emit(nil, rev)
	}
	return false, nil
}

// cancelled returns why the server ended the watch, if it did.
func (w *watch) cancelled(r *pb.WatchResponse) error {
	reason := r.GetCancelReason()
	has := func(e error) bool { return strings.Contains(reason, rpctypes.ErrorDesc(e)) }
	switch {
	case r.GetCompactRevision() != 0:
		return finalError{fmt.Errorf("watching %q after revision %d, oldest is %d: %w", w.prefix, w.last, r.GetCompactRevision(), store.ErrCompacted)}
	case !r.GetCanceled():
		return nil
	case has(rpctypes.ErrGRPCCompacted):
		return finalError{fmt.Errorf("watching %q after revision %d: %w", w.prefix, w.last, store.ErrCompacted)}
	case has(rpctypes.ErrGRPCPermissionDenied), has(rpctypes.ErrGRPCUserEmpty):
		return finalError{fmt.Errorf("watching %q: %w: %s (the etcd user is the common name of the client certificate)", w.prefix, store.ErrDenied, reason)}
	}
	return fmt.Errorf("%w: watch of %q cancelled by the server: %s", store.ErrUnavailable, w.prefix, reason)
}

func (w *watch) emit(events []store.Event, upto int64) error {
	if err := w.deliver(store.Batch{Revision: upto, Events: events}); err != nil {
		return finalError{err}
	}
	w.last = upto
	w.s.meters.events.Add(float64(len(events)))
	return nil
}

// fragments makes whole revisions of messages that etcd has cut for their size,
// holding back no more than the last revision of a message.
type fragments struct{ held []store.Event }

func (f *fragments) open() bool { return len(f.held) > 0 }

// add returns the events of revisions that are complete, and the last such
// revision. whole says that the message ends with the end of a revision. Events
// up to after have been delivered before and are dropped.
func (f *fragments) add(events []*mvccpb.Event, whole bool, after int64) ([]store.Event, int64, error) {
	for _, e := range events {
		ev := fromEvent(e)
		if ev.ModRevision <= after {
			continue
		}
		if n := len(f.held); n > 0 && ev.ModRevision < f.held[n-1].ModRevision {
			return nil, 0, fmt.Errorf("%w: server sent revision %d after %d", store.ErrUnavailable, ev.ModRevision, f.held[n-1].ModRevision)
		}
		f.held = append(f.held, ev)
	}
	n := len(f.held)
	if n == 0 {
		return nil, 0, nil
	}
	if !whole {
		for n > 0 && f.held[n-1].ModRevision == f.held[len(f.held)-1].ModRevision {
			n--
		}
		if n == 0 {
			return nil, 0, nil
		}
	}
	out := f.held[:n:n]
	f.held = append([]store.Event(nil), f.held[n:]...)
	return out, out[n-1].ModRevision, nil
}

func fromEvent(e *mvccpb.Event) store.Event {
	kv := e.GetKv()
	if e.GetType() == mvccpb.Event_DELETE {
		return store.Event{KV: store.KV{Key: string(kv.GetKey()), ModRevision: kv.GetModRevision()}, Deleted: true}
	}
	return store.Event{KV: fromKV(kv)}
}
