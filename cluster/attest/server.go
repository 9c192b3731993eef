package attest

import (
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"log/slog"
	"net"
	"net/http"
	"strings"
	"time"

	"github.com/prometheus/client_golang/prometheus"

	"github.com/causeway-mesh/causeway/cluster/identity"
)

// ErrRefused says that a token proves nothing: it is not genuine, or not for here.
// Any other error of Config.Review says that nothing is known.
var ErrRefused = errors.New("the token is refused")

// Config makes a Server. All but Registerer are required.
type Config struct {
	Authority *identity.Authority
	// Server is the agent's SVID.
	Server identity.SVIDSource
	// Review says whose token it is.
	Review func(ctx context.Context, token string) (Account, error)
	// Entitled tells why an account may not be a proxy.
	Entitled   func(who Account, role identity.Role, namespace, name string) error
	Logger     *slog.Logger
	Registerer prometheus.Registerer
}

// Server answers requests for SVIDs.
type Server struct {
	cfg     Config
	slots   chan struct{}
	answers *prometheus.CounterVec
}

// Bounds of the server.
const (
	maxConcurrent = 32
	reviewTimeout = 10 * time.Second
)

// NewServer validates and starts nothing.
func NewServer(cfg Config) (*Server, error) {
	if cfg.Authority == nil || cfg.Server == nil || cfg.Review == nil || cfg.Entitled == nil || cfg.Logger == nil {
		return nil, errors.New("attestation: the configuration is not complete")
	}
	s := &Server{cfg: cfg, slots: make(chan struct{}, maxConcurrent), answers: prometheus.NewCounterVec(prometheus.CounterOpts{
		Name: "causeway_attestation_answers_total", Help: "Requests of Envoys for their certificate, by the answer's status.",
	}, []string{"code"})}
	if cfg.Registerer != nil {
		if err := cfg.Registerer.Register(s.answers); err != nil {
			return nil, fmt.Errorf("attestation: register metrics: %w", err)
		}
	}
	return s, nil
}

// Run serves on l until ctx ends, and closes it. Once.
func (s *Server) Run(ctx context.Context, l net.Listener) error {
	mux := http.NewServeMux()
	mux.HandleFunc("POST "+Path, s.handle)
	tlsConfig := identity.AnyoneServerConfig(s.cfg.Server)
	tlsConfig.NextProtos = []string{"http/1.1"}
	srv := &http.Server{
		Handler: mux, TLSConfig: tlsConfig, ReadHeaderTimeout: 5 * time.Second, ReadTimeout: 10 * time.Second, WriteTimeout: 20 * time.Second,
		IdleTimeout: time.Minute, MaxHeaderBytes: maxToken + 4<<10, ErrorLog: slog.NewLogLogger(s.cfg.Logger.Handler(), slog.LevelDebug),
	}
	stop := context.AfterFunc(ctx, func() { _ = srv.Close() })
	defer stop()
	if err := srv.ServeTLS(l, "", ""); err != nil && !errors.Is(err, http.ErrServerClosed) {
		return fmt.Errorf("serve the attestation of Envoys: %w", err)
	}
	return nil
}

// refusal is an answer that says why not.
type refusal struct {
	code int
	err  error
}

func (s *Server) handle(w http.ResponseWriter, r *http.Request) {
	select {
	case s.slots <- struct{}{}:
		defer func() { <-s.slots }()
	default:
		s.answer(w, nil, &refusal{http.StatusTooManyRequests, errors.New("too many requests at a time: ask again")})
		return
	}
	ctx, cancel := context.WithTimeout(r.Context(), reviewTimeout)
	defer cancel()
	resp, no := s.issue(ctx, r)
	s.answer(w, resp, no)
}

func (s *Server) answer(w http.ResponseWriter, resp *response, no *refusal) {
	code := http.StatusOK
	if no != nil {
		code = no.code
	}
	s.answers.WithLabelValues(fmt.Sprint(code)).Inc()
	if no != nil {
		s.cfg.Logger.Warn("an Envoy gets no certificate", "code", code, "reason", no.err)
		http.Error(w, no.err.Error(), code)
		return
	}
	w.Header().Set("Content-Type", "application/json")
	_ = json.NewEncoder(w).Encode(resp)
}

func (s *Server) issue(ctx context.Context, r *http.Request) (*response, *refusal) {
	token, ok := strings.CutPrefix(r.Header.Get("Authorization"), "Bearer ")
	if !ok || token == "" || len(token) > maxToken {
		return nil, &refusal{http.StatusUnauthorized, errors.New("a ServiceAccount token is needed, as Authorization: Bearer")}
	}
	body, err := io.ReadAll(io.LimitReader(r.Body, maxRequest+1))
	if err != nil || len(body) > maxRequest {
		return nil, &refusal{http.StatusBadRequest, fmt.Errorf("the request can't be read, or has more than %d bytes", maxRequest)}
	}
	var req request
	if err := json.Unmarshal(body, &req); err != nil {
		return nil, &refusal{http.StatusBadRequest, fmt.Errorf("the request is not what is expected: %w", err)}
	}
	who, err := s.cfg.Review(ctx, token)
	switch {
	case errors.Is(err, ErrRefused):
		return nil, &refusal{http.StatusUnauthorized, err}
	case err != nil:
		return nil, &refusal{http.StatusServiceUnavailable, fmt.Errorf("the API server can't be asked about the token: %w", err)}
	}
	if err := s.cfg.Entitled(who, req.Role, req.Namespace, req.Name); err != nil {
		return nil, &refusal{http.StatusForbidden, err}
	}
	id, err := identity.ProxyID(s.cfg.Authority.TrustDomain(), req.Role, req.Namespace, req.Name)
	if err != nil {
		return nil, &refusal{http.StatusBadRequest, err}
	}
	chain, err := s.cfg.Authority.Certify(identity.SVIDRequest{ID: id}, req.CSR)
	if err != nil {
		return nil, &refusal{http.StatusBadRequest, err}
	}
	s.cfg.Logger.Info("issued a certificate", "proxy", id.String(), "to", who.String())
	return &response{Chain: string(chain), Roots: string(identity.BundlePEM(s.cfg.Authority.Bundle()))}, nil
}
