package incluster

import (
	"context"
	"crypto/tls"
	"errors"
	"fmt"
	"time"

	"github.com/causeway-mesh/causeway/cluster"
	"github.com/causeway-mesh/causeway/cluster/identity"
	"github.com/causeway-mesh/causeway/cmd/causeway/agent"
	"github.com/causeway-mesh/causeway/xds/translate"
)

// stuck is how long what everything goes through may take for one step.
const stuck = 20 * time.Second

// live tells whether what everything goes through does not get on.
func (s *service) live(ctx context.Context) error {
	alive := make(chan struct{})
	go func() {
		s.agent.Serves(translate.Proxy{}) // waits for the step under way
		close(alive)
	}()
	select {
	case <-alive:
		return nil
	case <-ctx.Done():
		return ctx.Err()
	case <-time.After(stuck):
		return errors.New("the agent does not get on")
	}
}

// ready tells why the agent isn't, nil if it is. The first time that it is goes to the log.
func (s *service) ready(context.Context) error {
	err := s.unready()
	if err == nil {
		s.first.Do(func() { s.log.Info("this agent is ready", "seconds", time.Since(s.began).Seconds()) })
	}
	return err
}

func (s *service) unready() error {
	switch {
	case s.stopping.Load():
		return errors.New("the agent is stopping")
	case s.agent.Result() == nil:
		if missing := s.source.Missing(); len(missing) > 0 {
			return fmt.Errorf("the cluster has not been read: %v", missing)
		}
		return fmt.Errorf("nothing is resolved: waiting for %s", s.agent.Loop().State().Waiting)
	case !s.imports.Ready():
		return errors.New("the entry ports of this cluster's clients are not known")
	case !s.agent.Serves(agent.Crossing(cluster.ID(s.o.cluster))):
		return errors.New("nothing is translated for the crossing gateways")
	}
	return nil
}

// metricsTLS admits members of the clusterset and people of this cluster.
func (s *service) metricsTLS() *tls.Config {
	own := s.authority.TrustDomain()
	return identity.ServerConfig(s.agent.SVID(), callers{s.set, s.dir.Domain(s.set), s.authority}, func(peer identity.Identity) error {
		if peer.TrustDomain != s.set && (peer.TrustDomain != own || peer.Kind == identity.KindProxy) {
			return fmt.Errorf("%s has no business with the metrics of cluster %s", peer, s.o.cluster)
		}
		return nil
	})
}
