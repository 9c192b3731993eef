package publish_test

import (
	"bytes"
	"testing"
	"testing/synctest"
	"time"

	"github.com/causeway-mesh/causeway/cluster"
	"github.com/causeway-mesh/causeway/federation/record"
	"github.com/causeway-mesh/causeway/federation/record/recordtest"
	"github.com/causeway-mesh/causeway/federation/store"
)

// leaks counts the values of the store, as of any revision so far, in which an
// endpoint's address or its pod's name stands, in bytes or as text.
func (r *rig) leaks(rev int64, o *cluster.Object) (found int) {
	r.Helper()
	kvs, _, err := r.mem.List(r.Context(), store.Root, rev)
	if err != nil {
		r.Fatal(err)
	}
	for _, kv := range kvs {
		for _, e := range o.Value.(*cluster.EndpointSlice).Endpoints {
			if bytes.Contains(kv.Value, e.Addr.AsSlice()) || bytes.Contains(kv.Value, []byte(e.Addr.String())) || bytes.Contains(kv.Value, []byte(e.Pod)) {
				found++
				break
			}
		}
	}
	return found
}

// counts is what the store says of a slice without addresses.
func (r *rig) counts(rev int64, key string) *cluster.EndpointCounts {
	r.Helper()
	_, kvs := r.at(rev)
	c, err := record.Decode(kvs[key])
	if err != nil {
		r.Fatal(err)
	}
	return c.Objects[0].Value.(*cluster.EndpointSlice).Counts
}

func network(of string) cluster.Batch {
	return cluster.Batch{Meta: &cluster.Meta{Region: "eu", Network: of}}
}

const firstKey = "endpoints/app/a/first"

// No address is in the store while nobody could use it; each appears as soon as a
// second cluster is of the network, and goes with the last one.
func TestAddressesLeaveOnlyForPeers(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		mem := open(t)
		r, _ := start(t, mem, store.Guarded(mem, prefix))
		first, second := recordtest.Slice(east, "app", "a", "first", 3, 4), recordtest.Slice(east, "app", "a", "second", 5, 2)
		r.deliver(full(svc, exp, first, second, route))
		check := func(when string, want int) int64 {
			t.Helper()
			rev := r.flush()
			if n := r.leaks(rev, first); n != want {
				t.Errorf("%s: %d values hold addresses or pods, not %d", when, n, want)
			}
			if shares := r.pub.State().Sharing != ""; shares != (want > 0) {
				t.Errorf("%s: sharing with %q", when, r.pub.State().Sharing)
			}
			return rev
		}
		rev := check("without a network", 0)
		if c := r.counts(rev, firstKey); c == nil || *c != (cluster.EndpointCounts{Ready: 3, NotReady: 1}) {
			t.Errorf("counts %+v", c)
		}
		r.deliver(network("n1"))
		check("alone in a network", 0)
		r.pub.Follow(peers(1, map[cluster.ID]string{"west": "n2", "odd": ""}))
		before := check("with others in theirs", 0)

		r.pub.Follow(peers(1, map[cluster.ID]string{"west": "n1", "odd": ""}))
		// All addresses come in one transaction, whatever else is written then.
		for rev, at := check("with west", 2), before+1; at <= rev; at++ {
			if n := r.leaks(at, first); n != 0 && n != 2 {
				t.Errorf("at revision %d of %d to %d, %d values hold addresses", at, before, rev, n)
			}
		}
		r.pub.Follow(peers(1, map[cluster.ID]string{"west": "n1", "north": "n1"}))
		r.deliver(changes(recordtest.Slice(east, "app", "a", "second", 5, 3)))
		check("with west and north", 2)
		r.pub.Follow(peers(1, map[cluster.ID]string{"north": "n1"}))
		check("with north", 2)
		r.pub.Follow(peers(1, map[cluster.ID]string{"north": "n3"}))
		check("when north has moved away", 0)
		r.deliver(network("n3"))
		check("having followed north", 2)
		r.deliver(network(""))
		check("having no network", 0)
		r.pub.Follow(peers(1, map[cluster.ID]string{"odd": ""}))
		check("with another that has none", 0)
	})
}

// A start writes nothing before it is known who shares the network, and losing
// the store takes nothing back: addresses that are in use stay untouched.
func TestAddressesDoNotFlap(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		mem := open(t)
		west := map[cluster.ID]string{"west": "n1"}
		all := full(svc, exp, recordtest.Slice(east, "app", "a", "first", 3, 4))
		all.Meta = network("n1").Meta
		r, stop := begin(t, mem, mem)
		r.pub.Follow(peers(1, west))
		r.deliver(all)
		written := r.flush()
		stop()

		r, _ = begin(t, mem, mem)
		r.deliver(all)
		r.pub.Follow(peers(0, nil)) // a start without the store: nothing is known
		time.Sleep(time.Minute)
		if s := r.pub.State(); s.Waiting == "" || s.Sharing != "" {
			t.Errorf("before anything is known of others: %+v", s)
		}
		r.pub.Follow(peers(1, west))
		r.flush()
		mem.SetAvailable(false)
		time.Sleep(time.Minute)
		r.pub.Follow(peers(1, west))
		mem.SetAvailable(true)
		r.flush()
		if _, kvs := r.at(0); kvs[firstKey].ModRevision > written || r.counts(0, firstKey) != nil {
			t.Errorf("the slice was written at %d once more, at %d", written, kvs[firstKey].ModRevision)
		}
	})
}
