package client

import (
	"net/http"
	"net/http/httptest"
	"reflect"
	"testing"
)

// Servers of gRPC announce trailers that they don't send.
func TestTrailersThatDoNotCome(t *testing.T) {
	t.Parallel()
	server := httptest.NewServer(http.HandlerFunc(func(w http.ResponseWriter, _ *http.Request) {
		w.Header().Set("Trailer", "Sent, Kept-Back")
		w.WriteHeader(http.StatusOK)
		_, _ = w.Write([]byte("x"))
		w.Header().Set("Sent", "yes")
	}))
	t.Cleanup(server.Close)
	req, err := http.NewRequestWithContext(t.Context(), http.MethodGet, server.URL, nil)
	if err != nil {
		t.Fatal(err)
	}
	a, _, err := do(server.Client(), req)
	if err != nil || !reflect.DeepEqual(a.Trailers, map[string][]string{"Sent": {"yes"}}) {
		t.Errorf("trailers %v, %v", a.Trailers, err)
	}
}
