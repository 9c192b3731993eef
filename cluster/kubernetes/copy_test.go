package kubernetes

import (
	"context"
	"fmt"
	"log/slog"
	"os"
	"testing"
	"testing/synctest"
	"time"
)

// At the end the copy is written once more if something has come since, and only then,
// within the pause after a writing and later.
func TestLastCopy(t *testing.T) {
	for _, x := range []struct {
		after time.Duration
		news  bool
	}{{0, false}, {0, true}, {time.Hour, false}, {time.Hour, true}} {
		t.Run(fmt.Sprintf("news %v after %v", x.news, x.after), func(t *testing.T) {
			dir := t.TempDir()
			synctest.Test(t, func(t *testing.T) {
				s, err := New(Config{Cluster: "east", Client: &Client{}, Dir: dir, Logger: slog.New(slog.NewTextHandler(t.Output(), nil))})
				if err != nil {
					t.Fatal(err)
				}
				s.full.Store(true)
				ctx, cancel := context.WithCancel(t.Context())
				done := make(chan struct{})
				go func() { s.saveCopies(ctx); close(done) }()
				synctest.Wait()
				time.Sleep(x.after)
				if err := os.Remove(s.copyPath()); err != nil {
					t.Error(err)
				}
				if x.news {
					s.state.mu.Lock()
					s.state.notify()
					s.state.mu.Unlock()
				}
				cancel()
				<-done
				if _, err := os.Stat(s.copyPath()); (err == nil) != x.news {
					t.Errorf("the copy at the end: %v", err)
				}
			})
		})
	}
}
