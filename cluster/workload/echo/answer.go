package echo

import (
	"crypto/tls"
	"unicode/utf8"
)

// Identity says who answers.
type Identity struct {
	Namespace string `json:"namespace"`
	Ingress   string `json:"ingress"` // always empty; Gateway API's echo-basic has it
	Service   string `json:"service"`
	Pod       string `json:"pod"`
	Cluster   string `json:"cluster"`
}

// HTTP is the answer to a request, in the fields of Gateway API's echo-basic
// and some of our own. An answer over gRPC or WebSocket has them too.
type HTTP struct {
	Path    string              `json:"path"`
	Host    string              `json:"host"`
	Method  string              `json:"method"`
	Proto   string              `json:"proto"`
	Headers map[string][]string `json:"headers"`
	Identity
	TLS  *TLS  `json:"tls,omitempty"`
	GRPC *GRPC `json:"grpc,omitempty"`
	// Received is the number of requests that the server has had for the path which
	// the query received=PATH names; nil: it was not asked.
	Received *uint64 `json:"received,omitempty"`
	// Data is the message over gRPC or WebSocket.
	*Data
}

// GRPC names the method that was called.
type GRPC struct {
	Service string `json:"service"`
	Method  string `json:"method"`
}

// Stream is the answer to what came over TCP, TLS without HTTP, or UDP.
type Stream struct {
	Protocol string `json:"protocol"` // "TCP", "TLS" or "UDP"
	Identity
	TLS *TLS `json:"tls,omitempty"`
	Data
}

// Data is what the client has sent.
type Data struct {
	Data string `json:"data"`
	// Encoding is "base64" if the data is no text.
	Encoding string `json:"encoding,omitempty"`
	// Truncated says that not all of the data is here, for lack of room in a datagram.
	Truncated bool `json:"truncated,omitempty"`
}

func dataOf(b []byte) Data {
	if utf8.Valid(b) {
		return Data{Data: string(b)}
	}
	return Data{Data: base64Text(b), Encoding: "base64"}
}

// TLS is a connection as the server sees it.
type TLS struct {
	Version            string `json:"version"` // "TLSv1.3"
	ServerName         string `json:"serverName"`
	NegotiatedProtocol string `json:"negotiatedProtocol,omitempty"`
	CipherSuite        string `json:"cipherSuite"`
	// Client is whose certificate the client has shown, which nobody has verified;
	// nil if it has shown none.
	Client *Client `json:"client,omitempty"`
}

// Client is of a client's certificate.
type Client struct {
	Subject  string   `json:"subject"`
	URIs     []string `json:"uris,omitempty"`
	DNSNames []string `json:"dnsNames,omitempty"`
}

func tlsOf(s *tls.ConnectionState) *TLS {
	if s == nil {
		return nil
	}
	out := &TLS{
		Version: "TLSv1." + string(rune('0'+int(s.Version)-tls.VersionTLS10)), ServerName: s.ServerName,
		NegotiatedProtocol: s.NegotiatedProtocol, CipherSuite: tls.CipherSuiteName(s.CipherSuite),
	}
	if len(s.PeerCertificates) > 0 {
		leaf := s.PeerCertificates[0]
		out.Client = &Client{Subject: leaf.Subject.String(), DNSNames: leaf.DNSNames}
		for _, u := range leaf.URIs {
			out.Client.URIs = append(out.Client.URIs, u.String())
		}
	}
	return out
}
