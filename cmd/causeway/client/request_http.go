package client

import (
	"context"
	"crypto/tls"
	"errors"
	"fmt"
	"io"
	"maps"
	"net"
	"net/http"
	"net/url"
	"strconv"
	"strings"
)

// wire is where requests go and what they have in common.
type wire struct {
	address string
	tls     *tls.Config // nil: not encrypted
	headers []header
}

// transport opens connections to the address, whatever the URL's host resolves to.
func (w wire) transport(r *requester, protocols *http.Protocols) *http.Transport {
	var dialer net.Dialer
	return &http.Transport{
		DialContext: func(ctx context.Context, _, _ string) (net.Conn, error) {
			return dialer.DialContext(ctx, "tcp", w.address)
		},
		TLSClientConfig:     w.tls,
		Protocols:           protocols,
		MaxIdleConnsPerHost: r.concurrency,
		DisableCompression:  true, // or the answer's headers would not be the server's
	}
}

// exchange sends a request and reads the whole answer, whose body is beside it.
type exchange func(*http.Request) (Answer, []byte, error)

// exchanges follow no redirects. They share connections, unless each is to have
// its own.
func (w wire) exchanges(r *requester, protocols *http.Protocols) (e exchange, done func()) {
	client := func() *http.Client {
		return &http.Client{
			Transport:     w.transport(r, protocols),
			CheckRedirect: func(*http.Request, []*http.Request) error { return http.ErrUseLastResponse },
		}
	}
	if r.reconnect {
		return func(req *http.Request) (Answer, []byte, error) {
			c := client()
			defer c.CloseIdleConnections()
			return do(c, req)
		}, func() {}
	}
	c := client()
	return func(req *http.Request) (Answer, []byte, error) { return do(c, req) }, c.CloseIdleConnections
}

// requests are those of http and https.
func (r *requester) requests(t target, w wire) (call, func(), error) {
	if _, err := http.NewRequest(r.method, t.url.String(), nil); err != nil {
		return nil, nil, fmt.Errorf("request: %w", err)
	}
	protocols := new(http.Protocols)
	protocols.SetHTTP1(!r.http2)
	protocols.SetHTTP2(t.TLS())
	protocols.SetUnencryptedHTTP2(r.http2 && !t.TLS())
	exchange, done := w.exchanges(r, protocols)
	return func(ctx context.Context) Answer {
		var body io.Reader
		if r.data != "" {
			body = strings.NewReader(r.data)
		}
		req, err := http.NewRequestWithContext(ctx, r.method, t.url.String(), body)
		if err != nil {
			return none(err)
		}
		addHeaders(req, w.headers)
		a, data, err := exchange(req)
		if err != nil {
			return none(err)
		}
		a.Body = bodyJSON(data)
		return a
	}, done, nil
}

func addHeaders(req *http.Request, headers []header) {
	req.Header.Set("User-Agent", "causeway")
	for _, h := range headers {
		switch strings.ToLower(h.name) {
		case "host":
			req.Host = h.value
		case "user-agent":
			req.Header.Set(h.name, h.value)
		default:
			req.Header.Add(h.name, h.value)
		}
	}
}

func do(client *http.Client, req *http.Request) (Answer, []byte, error) {
	resp, err := client.Do(req)
	if err != nil {
		var ue *url.Error
		if errors.As(err, &ue) {
			err = ue.Err // without the URL, which is the same for all
		}
		return Answer{}, nil, err
	}
	defer func() { _ = resp.Body.Close() }()
	data, err := io.ReadAll(io.LimitReader(resp.Body, maxBodyBytes+1))
	if err != nil {
		return Answer{}, nil, fmt.Errorf("read the answer with status %d: %w", resp.StatusCode, err)
	}
	if len(data) > maxBodyBytes {
		return Answer{}, nil, fmt.Errorf("the answer with status %d is larger than %d bytes", resp.StatusCode, maxBodyBytes)
	}
	a := answerOf(resp)
	a.Trailers = resp.Trailer // known only now
	maps.DeleteFunc(a.Trailers, func(_ string, values []string) bool {
		return values == nil // announced, and never sent
	})
	return a, data, nil
}

// answerOf is what an answer over HTTP says of itself, without its body.
func answerOf(resp *http.Response) Answer {
	return Answer{Status: resp.StatusCode, Result: strconv.Itoa(resp.StatusCode), Proto: resp.Proto, Headers: resp.Header, TLS: tlsSeen(resp.TLS)}
}
