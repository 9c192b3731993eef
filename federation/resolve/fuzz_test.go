package resolve

import (
	"encoding/json"
	"math/rand/v2"
	"strings"
	"testing"

	"github.com/google/go-cmp/cmp"

	"github.com/causeway-mesh/causeway/federation"
	"github.com/causeway-mesh/causeway/federation/resolve/resolvetest"
)

// Whatever objects there are, with any content: nothing panics; what is brought
// up to date equals what is made from scratch, twice; the middle form keeps its
// promises; every route is reported on where it lives; and the outcome is no
// larger than so many times what went in.
func FuzzResolve(f *testing.F) {
	fz := resolvetest.NewFuzzer(f, "testdata")
	r := rand.New(rand.NewPCG(1, 2))
	for _, name := range fz.Names() {
		edits := make([]byte, 64)
		for i := range edits {
			edits[i] = byte(r.Uint32())
		}
		f.Add(name, edits)
	}
	f.Fuzz(func(t *testing.T, world string, edits []byte) {
		h := fz.History(world, edits)
		b := federation.NewBuilder()
		e := b.Edit()
		h.World.Put(t, e)
		snap, _ := e.Commit()
		res := Resolve(h.Local, snap)
		for e = b.Edit(); h.Next(e); e = b.Edit() {
			var changed federation.ChangeSet
			snap, changed = e.Commit()
			res, _ = res.Update(snap, changed)
		}
		fresh := Resolve(h.Local, snap)
		if got, want := dump(res), dump(fresh); got != want {
			t.Fatalf("updated and rebuilt differ (-rebuilt +updated):\n%s", cmp.Diff(want, got))
		}
		out := asBytes(t, fresh)
		if again := asBytes(t, Resolve(h.Local, snap)); string(again) != string(out) {
			t.Fatalf("rebuilt twice, it differs:\n%s", cmp.Diff(string(out), string(again)))
		}
		if why := unsound(res); why != "" {
			t.Error(why)
		}
		in := 0
		for _, o := range h.Objects() {
			data, err := json.Marshal(o)
			if err != nil {
				t.Fatal(err)
			}
			in += len(data)
			if _, ok := res.Report(o.Ref, h.Local); !ok && o.Cluster == h.Local && strings.HasSuffix(string(o.Kind), "Route") {
				t.Errorf("no report on %s", o.Ref)
			}
		}
		if len(out) > 1<<20+100*in {
			t.Errorf("%d bytes of objects became %d", in, len(out))
		}
	})
}
