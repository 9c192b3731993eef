package echo

import (
	"net/http"
	"strings"
	"testing"
)

// Copies of requests, whose answers nobody gets, can be asked for afterwards.
func TestReceived(t *testing.T) {
	t.Parallel()
	_, addr := run(t, Settings{Fail: http.StatusTeapot})
	client := &http.Client{Transport: &http.Transport{}}
	t.Cleanup(client.CloseIdleConnections)
	for range 3 {
		get(t, client, "http://"+addr+"/pay?x=1", nil)
	}
	for path, want := range map[string]uint64{"/pay": 3, "/never": 0} {
		if _, e := get(t, client, "http://"+addr+"/?received="+path, nil); e.Received == nil || *e.Received != want {
			t.Errorf("%s: %v, want %d", path, e.Received, want)
		}
	}
	if _, e := get(t, client, "http://"+addr+"/", nil); e.Received != nil {
		t.Errorf("%d, and nobody has asked", *e.Received)
	}
}

func TestTallyIsBounded(t *testing.T) {
	t.Parallel()
	var c tally
	c.add("/" + strings.Repeat("x", maxPath))
	c.add("/first")
	for i := range 2 * maxPaths {
		c.add("/" + strings.Repeat("a", i%200) + strings.Repeat("b", i/200))
	}
	c.add("/first")
	if len(c.n) != maxPaths || c.of("/first") != 2 {
		t.Errorf("%d paths are kept, and the first was counted %d times", len(c.n), c.of("/first"))
	}
}
