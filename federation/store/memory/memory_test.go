package memory_test

import (
	"testing"
	"time"

	"github.com/causeway-mesh/causeway/federation/store/memory"
	"github.com/causeway-mesh/causeway/federation/store/storetest"
)

func TestStore(t *testing.T) {
	storetest.Run(t, func(t *testing.T) *storetest.Backend {
		s, err := memory.New(memory.Config{ProgressInterval: 50 * time.Millisecond})
		if err != nil {
			t.Fatal(err)
		}
		return &storetest.Backend{
			Store:   s,
			Foreign: s,
			Compact: func(t testing.TB, rev int64) {
				if err := s.Compact(rev); err != nil {
					t.Fatal(err)
				}
			},
			Expire: func(_ testing.TB, key string) { s.Expire(key) },
			Stop:   func(testing.TB) { s.SetAvailable(false) },
			Start:  func(testing.TB) { s.SetAvailable(true) },
		}
	})
}
