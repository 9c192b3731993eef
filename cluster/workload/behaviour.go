package workload

import (
	"crypto/tls"
	"fmt"
	"slices"
	"strconv"
	"strings"
	"time"

	corev1 "k8s.io/api/core/v1"

	"github.com/causeway-mesh/causeway/cluster"
	"github.com/causeway-mesh/causeway/cluster/workload/echo"
)

// Annotations of a Deployment, or of its pod template, which wins.
const (
	// AnnotationReady is the number of replicas that are ready.
	AnnotationReady = "causeway.dev/ready"
	// AnnotationFail makes replicas fail: a status from 400 to 599 that requests
	// are answered with, "reset" to break connections, or "refuse" to listen no
	// more. They stay ready: it is for proxies to find out.
	AnnotationFail = "causeway.dev/fail"
	// AnnotationSlow is a duration that comes before each answer.
	AnnotationSlow = "causeway.dev/slow"
	// AnnotationFaulty is the number of replicas that fail or are slow; all, if
	// it isn't there.
	AnnotationFaulty = "causeway.dev/faulty"
	// AnnotationTLSSecret names the Secret with the certificate that clients by
	// TLS see, in place of a self-signed one.
	AnnotationTLSSecret = "causeway.dev/tls-secret"
)

const (
	failReset  = "reset"
	failRefuse = "refuse"
	maxSlow    = time.Minute
)

// behaviour is what annotations ask of a Deployment's replicas.
type behaviour struct {
	faulty      int // so many fail or are slow
	status      int
	reset       bool
	refuse      bool
	slow        time.Duration
	certificate *tls.Certificate
}

// annotation gives the text of an annotation and whose it is.
func (w *workload) annotation(name string) (text, whose string) {
	if text := w.Spec.Template.Annotations[name]; text != "" {
		return text, "the pod template's"
	}
	return w.Annotations[name], "its"
}

// count reads an annotation that is a number of replicas.
func (p *plan) count(w *workload, lim limits, name, otherwise string) (n int, ok bool) {
	text, whose := w.annotation(name)
	if text == "" {
		return 0, false
	}
	n, err := strconv.Atoi(text)
	if err != nil || n < 0 {
		p.fail(w, lim, "%s annotation %s is not a number of replicas: %s", whose, name, otherwise)
		return 0, false
	}
	return min(n, len(w.pods)), true
}

func (p *plan) fail(w *workload, lim limits, format string, args ...any) {
	p.problems = append(p.problems, cluster.Problem{Cluster: lim.cluster, Where: w.Origin, Object: w.ref(), Message: fmt.Sprintf(format, args...)})
}

// behave reads how a Deployment's replicas behave.
func (p *plan) behave(w *workload, lim limits, secrets map[string]*corev1.Secret) {
	w.faulty = len(w.pods)
	if n, ok := p.count(w, lim, AnnotationFaulty, "all of them are meant"); ok {
		w.faulty = n
	}
	switch text, whose := w.annotation(AnnotationFail); text {
	case "":
	case failReset:
		w.reset = true
	case failRefuse:
		w.refuse = true
	default:
		status, err := strconv.Atoi(text)
		if err != nil || status < 400 || status > 599 {
			p.fail(w, lim, "%s annotation %s is neither a status from 400 to 599 nor %q or %q: nothing fails", whose, AnnotationFail, failReset, failRefuse)
			break
		}
		w.status = status
	}
	if text, whose := w.annotation(AnnotationSlow); text != "" {
		d, err := time.ParseDuration(text)
		if err != nil || d < 0 || d > maxSlow {
			p.fail(w, lim, "%s annotation %s is not a duration from 0s to %s: nothing is slow", whose, AnnotationSlow, maxSlow)
		} else {
			w.slow = d
		}
	}
	if name, whose := w.annotation(AnnotationTLSSecret); name != "" {
		const otherwise = "clients by TLS see a self-signed certificate"
		secret := secrets[w.Namespace+"/"+name]
		if secret == nil {
			p.fail(w, lim, "%s annotation %s names %q: there is no Secret of that name and the type %s in the namespace: %s", whose, AnnotationTLSSecret, name, corev1.SecretTypeTLS, otherwise)
			return
		}
		cert, err := tls.X509KeyPair(secret.Data[corev1.TLSCertKey], secret.Data[corev1.TLSPrivateKeyKey])
		if err != nil {
			p.fail(w, lim, "Secret %s, which %s annotation %s names, can't be used (%v): %s", name, whose, AnnotationTLSSecret, err, otherwise)
			return
		}
		w.certificate = &cert
	}
}

// server is what listens on a port of a workload's i-th pod for a Service and
// for those before it, whose server is given.
func (w *workload) server(s Service, before server, accepts echo.Accepts, i int) server {
	out := before
	if out.object == "" {
		out = server{origin: w.Origin, object: w.ref(), settings: echo.Settings{Service: s.Name, Accepts: accepts, Certificate: w.certificate}}
		if i < w.faulty {
			out.refuse, out.settings.Reset, out.settings.Fail, out.settings.Slow = w.refuse, w.reset, w.status, w.slow
		}
	}
	if out.settings.Accepts != accepts {
		out.settings.Accepts = echo.AcceptAny
	}
	out.settings.Names = slices.Concat(out.settings.Names, []string{
		s.Name + "." + s.Namespace + ".svc", s.Name + "." + s.Namespace + "." + cluster.DomainCluster, s.Name + "." + s.Namespace + "." + cluster.DomainClusterset,
	})
	return out
}

// acceptsOf tells what may call a port, by its appProtocol (KEP-3726, and names of IANA).
func acceptsOf(appProtocol string) echo.Accepts {
	switch strings.ToLower(appProtocol) {
	case "https", "tls", "kubernetes.io/wss":
		return echo.AcceptTLS
	case "kubernetes.io/h2c":
		return echo.AcceptH2C
	}
	return echo.AcceptAny
}
