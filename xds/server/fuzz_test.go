package server

import (
	"bytes"
	"context"
	"encoding/json"
	"encoding/pem"
	"flag"
	"fmt"
	"maps"
	"math/rand/v2"
	"net/netip"
	"os"
	"path/filepath"
	"slices"
	"strconv"
	"strings"
	"sync"
	"testing"

	"google.golang.org/protobuf/types/known/anypb"

	"github.com/causeway-mesh/causeway/federation"
	"github.com/causeway-mesh/causeway/federation/resolve"
	"github.com/causeway-mesh/causeway/federation/resolve/resolvetest"
	"github.com/causeway-mesh/causeway/xds/envoy/envoytest"
	"github.com/causeway-mesh/causeway/xds/translate"
	"github.com/causeway-mesh/causeway/xds/translate/translatetest"
)

var (
	fuzzWorlds = flag.Int("worlds", 40, "how many made-up worlds the real Envoy looks at, and how many of -corpus")
	fuzzSeed   = flag.Uint64("seed", 1, "what they are made up from")
	fuzzCorpus = flag.String("corpus", "", "one more folder with a corpus of FuzzTranslate, such as the one that go test keeps in its cache")
)

// fuzzDir holds the worlds that everything begins with.
const fuzzDir = "../../federation/resolve/testdata"

// anywhere gives every listener of a proxy an address of its own; nobody listens.
func anywhere() *translatetest.Bindings {
	return translatetest.NewBindings(func(n int) netip.AddrPort {
		return netip.AddrPortFrom(netip.AddrFrom4([4]byte{127, 78, byte(n >> 8), byte(n)}), 15080)
	})
}

// trusted is what is the same in every world: an authority that signs for every
// cluster, and a file with it.
var trusted = sync.OnceValue(func() (out struct {
	identity *translate.Identity
	der      []byte
}) {
	cert, key := resolvetest.PEM(panics{})
	out.identity = translate.NewIdentity(cert, key)
	block, _ := pem.Decode(cert)
	out.der = block.Bytes
	return out
})

type panics struct{}

func (panics) Helper()           {}
func (panics) Fatal(args ...any) { panic(fmt.Sprint(args...)) }

func trustOf(s *federation.Snapshot) map[string][][]byte {
	trust := map[string][][]byte{"spare.test": {trusted().der}} // where nobody is trusted, crossing gateways never start
	for _, c := range s.Clusters() {
		trust[c.Meta.TrustDomain] = [][]byte{trusted().der}
	}
	return trust
}

// made is what becomes of a world for its proxies.
type made struct {
	history *resolvetest.History
	states  map[translate.Proxy]*translate.State
	inputs  map[translate.Proxy]translate.Input
}

// follow follows a history, bringing all proxies up to date at each step as an agent does.
func follow(t testing.TB, fz *resolvetest.Fuzzer, world string, edits []byte, roots string) made {
	t.Helper()
	h := fz.History(world, edits)
	b := federation.NewBuilder()
	e := b.Edit()
	h.World.Put(t, e)
	snap, _ := e.Commit()
	res := resolve.Resolve(h.Local, snap)
	m := made{history: h, states: map[translate.Proxy]*translate.State{}, inputs: map[translate.Proxy]translate.Input{}}
	opts := translate.Options{AccessLog: "/dev/null", SystemRoots: roots, DebugHeaders: len(edits)%2 == 0}
	cache, trust := translate.NewCache(), trustOf(snap)
	bundles := translate.NewBundles(trust)
	var shared *translate.Shared
	for _, p := range []translate.Proxy{{Role: translate.RoleSidecar, Namespace: "app", Name: "a"}, {Role: translate.RoleSidecar, Namespace: "dev", Name: "a"}, {Role: translate.RoleCrossing, Namespace: "causeway-system", Name: "a"}} {
		p.Cluster = h.Local
		m.inputs[p] = translate.Input{Proxy: p, Bindings: anywhere(), Identity: trusted().identity, Options: opts, Cache: cache}
	}
	update := func(delta resolve.Delta) {
		if in := (translate.Input{Result: res, Options: opts, Cache: cache}); shared == nil {
			shared = translate.NewShared(in)
		} else {
			shared = shared.Update(in, delta)
		}
		for name := range gatewaysOf(res) {
			ns, n, _ := strings.Cut(name, "/")
			p := translate.Proxy{Cluster: h.Local, Role: translate.RoleGateway, Namespace: ns, Name: n}
			if _, ok := m.inputs[p]; !ok {
				m.inputs[p] = translate.Input{Proxy: p, Bindings: anywhere(), Identity: trusted().identity, Options: opts, Cache: cache}
			}
		}
		for p, in := range m.inputs {
			in.Result, in.Bundles, in.Shared = res, bundles, shared
			m.inputs[p] = in
			if s := m.states[p]; s == nil {
				m.states[p] = translate.Build(in)
			} else {
				m.states[p], _ = s.Update(in, delta)
			}
		}
	}
	update(resolve.Delta{})
	for e = b.Edit(); h.Next(e); e = b.Edit() {
		var changed federation.ChangeSet
		var delta resolve.Delta
		snap, changed = e.Commit()
		res, delta = res.Update(snap, changed)
		if now := trustOf(snap); !slices.Equal(slices.Sorted(maps.Keys(now)), slices.Sorted(maps.Keys(trust))) {
			trust, bundles = now, translate.NewBundles(now)
		}
		update(delta)
	}
	return m
}

func gatewaysOf(r *resolve.Result) map[string]*resolve.Gateway {
	out := map[string]*resolve.Gateway{}
	r.Gateways.Root().Walk(func(k []byte, g *resolve.Gateway) bool { out[string(k)] = g; return false })
	return out
}

// Whatever objects there are, with any content: the resources of every proxy pass
// the check that stands before Envoy, refer to nothing that is not there, are what
// a translation from scratch gives, and are no larger than so many times what went
// in. Whether Envoy takes them, TestEnvoyTakesWhatIsMade asks.
func FuzzTranslate(f *testing.F) {
	fz := resolvetest.NewFuzzer(f, fuzzDir)
	r := rand.New(rand.NewPCG(1, 2))
	for _, name := range fz.Names() {
		f.Add(name, someBytes(r, 64))
	}
	f.Fuzz(func(t *testing.T, world string, edits []byte) {
		m := follow(t, fz, world, edits, "/roots.pem")
		in, out := 0, 0
		for _, o := range m.history.Objects() {
			data, err := json.Marshal(o)
			if err != nil {
				t.Fatal(err)
			}
			in += len(data)
		}
		limits, _ := Limits{}.complete()
		for p, s := range m.states {
			for k := range kinds {
				for name, x := range s.Resources.All(k.URL()) {
					out += len(x.Body.Value)
					if err := unfit(k, x, &limits); err != nil {
						t.Errorf("%s %s of %s (%s): %v", k, name, p.ID(), x.Subject, err)
					}
					// What the proxy makes of the bytes is what was seen in the making.
					m, err := x.Body.UnmarshalNew()
					if err != nil {
						t.Fatalf("%s %s of %s (%s): %v", k, name, p.ID(), x.Subject, err)
					}
					if read := translate.FactsOf(m); read.Err != nil || read.Name != name || !slices.Equal(read.Refs, x.Facts.Refs) {
						t.Errorf("%s %s of %s refers to %v and not to %v, or is not valid: %v", k, name, p.ID(), read.Refs, x.Facts.Refs, read.Err)
					}
					for _, ref := range x.Facts.Refs {
						if _, ok := s.Resources.Get(ref.Kind.URL(), ref.Name); !ok && ref.Name != "none" { // of what has nowhere to go
							t.Errorf("%s %s of %s refers to %s %q, which is not there", k, name, p.ID(), ref.Kind, ref.Name)
						}
					}
				}
			}
			for _, x := range s.Problems() {
				if x.Message == "" || len(x.Message) > 2000 || len(x.Subject) > 2000 {
					t.Errorf("%s: a problem of %d bytes with %.2000q", p.ID(), len(x.Message), x.Subject)
				}
			}
			fresh := m.inputs[p]
			fresh.Cache, fresh.Shared = nil, nil
			built := translate.Build(fresh)
			if !slices.Equal(built.Problems(), s.Problems()) {
				t.Errorf("%s: updated, it has problems\n%v\nbuilt,\n%v", p.ID(), s.Problems(), built.Problems())
			}
			for _, typ := range translate.Types {
				got, want := maps.Collect(s.Resources.All(typ)), maps.Collect(built.Resources.All(typ))
				for name, x := range want {
					if y := got[name]; y == nil || y.Version != x.Version || y.Subject != x.Subject || !bytes.Equal(y.Body.Value, x.Body.Value) {
						t.Errorf("%s: updated, %s %s is not what is built", p.ID(), typ, name)
					}
					delete(got, name)
				}
				for name := range got {
					t.Errorf("%s: updated, there is a %s %s, which is not built", p.ID(), typ, name)
				}
			}
		}
		if out > 1<<20+300*in {
			t.Errorf("%d bytes of objects became %d", in, out)
		}
	})
}

func someBytes(r *rand.Rand, n int) []byte {
	out := make([]byte, n)
	for i := range out {
		out[i] = byte(r.Uint32())
	}
	return out
}

// sample is one input of FuzzTranslate.
type sample struct {
	name  string // for people
	world string
	edits []byte
}

// readCorpus reads a folder in which go test keeps inputs.
func readCorpus(t *testing.T, dir string) (out []sample) {
	t.Helper()
	files, err := filepath.Glob(filepath.Join(dir, "*"))
	if err != nil {
		t.Fatal(err)
	}
	for _, file := range files {
		data, err := os.ReadFile(file)
		if err != nil {
			t.Fatal(err)
		}
		lines := strings.Split(strings.TrimSpace(string(data)), "\n")
		value := func(line, kind string) string {
			text, ok := strings.CutPrefix(line, kind+"(")
			s, err := strconv.Unquote(strings.TrimSuffix(text, ")"))
			if !ok || err != nil {
				t.Fatalf("%s is no input of FuzzTranslate: %v", file, err)
			}
			return s
		}
		if len(lines) != 3 {
			t.Fatalf("%s is no input of FuzzTranslate", file)
		}
		out = append(out, sample{name: file, world: value(lines[1], "string"), edits: []byte(value(lines[2], "[]byte"))})
	}
	return out
}

// The real Envoy accepts what becomes of made-up worlds, of those that the fuzzer
// found worth keeping, and of their beginnings as they are.
func TestEnvoyTakesWhatIsMade(t *testing.T) {
	binary := envoytest.Binary(t)
	fz := resolvetest.NewFuzzer(t, fuzzDir)
	samples := readCorpus(t, "testdata/fuzz/FuzzTranslate")
	r := rand.New(rand.NewPCG(*fuzzSeed, 0))
	if *fuzzCorpus != "" {
		found := readCorpus(t, *fuzzCorpus)
		r.Shuffle(len(found), func(i, j int) { found[i], found[j] = found[j], found[i] })
		samples = append(samples, found[:min(len(found), *fuzzWorlds)]...)
	}
	for _, name := range fz.Names() {
		samples = append(samples, sample{name: name, world: name})
	}
	for i := range *fuzzWorlds {
		name := fz.Names()[r.IntN(len(fz.Names()))]
		samples = append(samples, sample{name: fmt.Sprintf("%s, %d of seed %d", name, i, *fuzzSeed), world: name, edits: someBytes(r, 20+r.IntN(180))})
	}
	cert, _ := resolvetest.PEM(t)
	roots := filepath.Join(t.TempDir(), "roots.pem")
	if err := os.WriteFile(roots, cert, 0o600); err != nil {
		t.Fatal(err)
	}
	boot, err := translate.Bootstrap(translate.BootstrapConfig{Proxy: translate.Proxy{Cluster: "east", Role: translate.RoleGateway, Namespace: "app", Name: "gw"},
		XDSAddress: "127.0.0.1:1", ServerID: "spiffe://x/agent", Dir: t.TempDir(), Credential: t.TempDir()})
	if err != nil {
		t.Fatal(err)
	}
	looked := 0
	check := func(states ...*translate.State) error {
		var all envoytest.Static
		for _, s := range states {
			if err := all.Add(resourcesOf(s)); err != nil {
				return err
			}
		}
		looked += all.Len()
		return all.Validate(context.Background(), binary, t.TempDir(), boot[translate.FileBootstrap])
	}
	type one struct {
		sample
		translate.Proxy
		*translate.State
	}
	var batch []one
	size := 0
	flush := func() {
		var states []*translate.State
		for _, x := range batch {
			states = append(states, x.State)
		}
		if err := check(states...); err != nil {
			found := false
			for _, x := range batch {
				if err := check(x.State); err != nil {
					found = true
					t.Errorf("world %s: string(%q) []byte(%q): %s: %.3000s", x.Name, x.world, x.edits, x.ID(), err)
				}
			}
			if !found {
				t.Errorf("together, not one by one: %.3000s", err)
			}
		}
		batch, size = nil, 0
	}
	for _, s := range samples {
		m := follow(t, fz, s.world, s.edits, roots)
		for p, state := range m.states {
			batch = append(batch, one{s, p, state})
			for _, list := range translate.Types {
				for range state.Resources.All(list) {
					size++
				}
			}
		}
		if size > 2000 {
			flush()
		}
	}
	flush()
	t.Logf("Envoy looked at %d clusters, listeners and secrets of %d worlds", looked, len(samples))
}

func resourcesOf(s *translate.State) (out envoytest.Resources) {
	for typ, list := range map[string]*[]*anypb.Any{translate.TypeSecret: &out.Secrets, translate.TypeCluster: &out.Clusters, translate.TypeEndpoint: &out.Endpoints, translate.TypeListener: &out.Listeners, translate.TypeRoute: &out.Routes} {
		for _, r := range s.Resources.All(typ) {
			*list = append(*list, r.Body)
		}
	}
	return out
}
