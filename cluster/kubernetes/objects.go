package kubernetes

import (
	"context"
	"errors"
	"fmt"
	"io/fs"
	"strings"
	"time"

	authenticationv1 "k8s.io/api/authentication/v1"
	authorizationv1 "k8s.io/api/authorization/v1"
	corev1 "k8s.io/api/core/v1"
	apierrors "k8s.io/apimachinery/pkg/api/errors"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
	authenticationclient "k8s.io/client-go/kubernetes/typed/authentication/v1"
	authorizationclient "k8s.io/client-go/kubernetes/typed/authorization/v1"
	coordinationclient "k8s.io/client-go/kubernetes/typed/coordination/v1"
	coreclient "k8s.io/client-go/kubernetes/typed/core/v1"

	"github.com/causeway-mesh/causeway/cluster/attest"
	"github.com/causeway-mesh/causeway/cluster/identity"
)

// ReviewToken asks the API server whose ServiceAccount token it is, and whether it
// was made for an audience. attest.ErrRefused says that it proves nothing.
func (c *Client) ReviewToken(ctx context.Context, token, audience string) (attest.Account, error) {
	account, _, err := c.review(ctx, token, audience)
	return account, err
}

// ReviewAccess is ReviewToken for the query API: it also asks whether the bearer may
// see everything (attest.AccessVerb on attest.AccessResource).
func (c *Client) ReviewAccess(ctx context.Context, token, audience string) (attest.Access, error) {
	account, user, err := c.review(ctx, token, audience)
	if err != nil {
		return attest.Access{}, err
	}
	api, err := authorizationclient.NewForConfigAndClient(c.cfg, c.http)
	if err != nil {
		return attest.Access{}, err
	}
	extra := make(map[string]authorizationv1.ExtraValue, len(user.Extra))
	for k, v := range user.Extra {
		extra[k] = authorizationv1.ExtraValue(v)
	}
	review, err := api.SubjectAccessReviews().Create(ctx, &authorizationv1.SubjectAccessReview{Spec: authorizationv1.SubjectAccessReviewSpec{
		User: user.Username, Groups: user.Groups, UID: user.UID, Extra: extra,
		ResourceAttributes: &authorizationv1.ResourceAttributes{Verb: attest.AccessVerb, Group: attest.AccessGroup, Resource: attest.AccessResource},
	}}, metav1.CreateOptions{})
	if err != nil {
		return attest.Access{}, fmt.Errorf("review the rights of ServiceAccount %s: %w", account, err)
	}
	return attest.Access{Account: account, All: review.Status.Allowed && !review.Status.Denied}, nil
}

func (c *Client) review(ctx context.Context, token, audience string) (attest.Account, authenticationv1.UserInfo, error) {
	refused := func(format string, a ...any) (attest.Account, authenticationv1.UserInfo, error) {
		return attest.Account{}, authenticationv1.UserInfo{}, fmt.Errorf("%w: %s", attest.ErrRefused, fmt.Sprintf(format, a...))
	}
	api, err := authenticationclient.NewForConfigAndClient(c.cfg, c.http)
	if err != nil {
		return attest.Account{}, authenticationv1.UserInfo{}, err
	}
	review, err := api.TokenReviews().Create(ctx, &authenticationv1.TokenReview{Spec: authenticationv1.TokenReviewSpec{Token: token, Audiences: []string{audience}}}, metav1.CreateOptions{})
	if err != nil {
		return attest.Account{}, authenticationv1.UserInfo{}, fmt.Errorf("review a token: %w", err)
	}
	if !review.Status.Authenticated {
		why := review.Status.Error
		if len(why) > 200 {
			why = why[:200]
		}
		return refused("it is not genuine, has expired, or was not made for %q: %s", audience, why)
	}
	for _, a := range review.Status.Audiences {
		if a != audience {
			continue
		}
		rest, ok := strings.CutPrefix(review.Status.User.Username, "system:serviceaccount:")
		ns, name, ok2 := strings.Cut(rest, ":")
		if !ok || !ok2 || ns == "" || name == "" {
			return refused("it is not of a ServiceAccount")
		}
		return attest.Account{Namespace: ns, Name: name}, review.Status.User, nil
	}
	return refused("it was not made for %q", audience)
}

// agentSelector finds the agents' pods, as the chart labels them.
const agentSelector = "app.kubernetes.io/name=causeway-agent"

// secretTimeout bounds a request for the authority's Secret.
const secretTimeout = 5 * time.Second

// SecretStorage keeps an authority in a Secret, which all agents of a cluster share,
// and the last that was read of it in a file with mode 0600, with which a start
// without the API server begins.
func (c *Client) SecretStorage(namespace, name, cache string) (identity.Storage, error) {
	api, err := coreclient.NewForConfigAndClient(c.cfg, c.http)
	if err != nil {
		return nil, err
	}
	return &secretStorage{api: api.Secrets(namespace), namespace: namespace, name: name, cache: cache}, nil
}

// secretKey is where the Secret has it.
const secretKey = "authority.pem"

type secretStorage struct {
	api                    coreclient.SecretInterface
	namespace, name, cache string
	seen                   string // resourceVersion; identity calls under its own lock
}

// String names the Secret.
func (s *secretStorage) String() string {
	return fmt.Sprintf("Secret %s/%s", s.namespace, s.name)
}

// Load implements identity.Storage.
func (s *secretStorage) Load() ([]byte, error) {
	ctx, cancel := context.WithTimeout(context.Background(), secretTimeout)
	defer cancel()
	secret, err := s.api.Get(ctx, s.name, metav1.GetOptions{})
	switch {
	case apierrors.IsNotFound(err):
		return nil, fmt.Errorf("%s: %w", s, fs.ErrNotExist)
	case err != nil && s.seen == "":
		// The first time what the last run has read does.
		if data, cerr := identity.ReadSecretFile(s.cache); cerr == nil {
			return data, nil
		}
		return nil, fmt.Errorf("read %s: %w", s, err)
	case err != nil:
		return nil, fmt.Errorf("read %s: %w", s, err)
	}
	data := secret.Data[secretKey]
	if len(data) == 0 {
		return nil, fmt.Errorf("%s has no %s: remove it to have a new authority, or restore it", s, secretKey)
	}
	s.seen = secret.ResourceVersion
	return data, s.remember(data)
}

// Create implements identity.Storage.
func (s *secretStorage) Create(data []byte) error {
	ctx, cancel := context.WithTimeout(context.Background(), secretTimeout)
	defer cancel()
	secret, err := s.api.Create(ctx, &corev1.Secret{
		ObjectMeta: metav1.ObjectMeta{Name: s.name, Namespace: s.namespace, Labels: map[string]string{"app.kubernetes.io/name": "causeway"}},
		Type:       "causeway.dev/authority", Data: map[string][]byte{secretKey: data},
	}, metav1.CreateOptions{})
	if apierrors.IsAlreadyExists(err) {
		return fmt.Errorf("%s: %w", s, fs.ErrExist)
	}
	if err != nil {
		return fmt.Errorf("create %s: %w", s, err)
	}
	s.seen = secret.ResourceVersion
	return s.remember(data)
}

// Save implements identity.Storage. It fails if somebody else has saved since.
func (s *secretStorage) Save(data []byte) error {
	if s.seen == "" {
		return errors.New("the authority was read from its copy on disk: it can't be changed before the API server answers")
	}
	ctx, cancel := context.WithTimeout(context.Background(), secretTimeout)
	defer cancel()
	secret, err := s.api.Update(ctx, &corev1.Secret{
		ObjectMeta: metav1.ObjectMeta{Name: s.name, Namespace: s.namespace, ResourceVersion: s.seen, Labels: map[string]string{"app.kubernetes.io/name": "causeway"}},
		Type:       "causeway.dev/authority", Data: map[string][]byte{secretKey: data},
	}, metav1.UpdateOptions{})
	if err != nil {
		return fmt.Errorf("save %s: %w", s, err)
	}
	s.seen = secret.ResourceVersion
	return s.remember(data)
}

func (s *secretStorage) remember(data []byte) error {
	if s.cache == "" {
		return nil
	}
	return identity.WriteFile(s.cache, data, 0o600)
}

// KeepConfigMap makes a ConfigMap say data under a key, and leaves its other keys.
func (c *Client) KeepConfigMap(ctx context.Context, namespace, name, key, data string) error {
	api, err := coreclient.NewForConfigAndClient(c.cfg, c.http)
	if err != nil {
		return err
	}
	maps := api.ConfigMaps(namespace)
	have, err := maps.Get(ctx, name, metav1.GetOptions{})
	switch {
	case apierrors.IsNotFound(err):
		_, err = maps.Create(ctx, &corev1.ConfigMap{
			ObjectMeta: metav1.ObjectMeta{Name: name, Namespace: namespace, Labels: map[string]string{"app.kubernetes.io/name": "causeway"}},
			Data:       map[string]string{key: data},
		}, metav1.CreateOptions{})
	case err == nil && have.Data[key] != data:
		have = have.DeepCopy()
		if have.Data == nil {
			have.Data = map[string]string{}
		}
		have.Data[key] = data
		_, err = maps.Update(ctx, have, metav1.UpdateOptions{})
	}
	if err != nil {
		return fmt.Errorf("ConfigMap %s/%s: %w", namespace, name, err)
	}
	return nil
}

// AgentsGone gives an error that names the agents whose pods are still there.
func (c *Client) AgentsGone(ctx context.Context, namespace string) error {
	api, err := coreclient.NewForConfigAndClient(c.cfg, c.http)
	if err != nil {
		return err
	}
	pods, err := api.Pods(namespace).List(ctx, metav1.ListOptions{LabelSelector: agentSelector})
	if err != nil {
		return fmt.Errorf("look for agents in namespace %s: %w", namespace, err)
	}
	if len(pods.Items) == 0 {
		return nil
	}
	var names []string
	for _, p := range pods.Items {
		names = append(names, p.Name)
	}
	return fmt.Errorf("agents still run in namespace %s: %s", namespace, strings.Join(names, ", "))
}

// Remove deletes the agents' own objects: the Secret of the authority, the ConfigMap of the
// roots and the Lease.
func (c *Client) Remove(ctx context.Context, namespace string) error {
	core, err := coreclient.NewForConfigAndClient(c.cfg, c.http)
	if err != nil {
		return err
	}
	coordination, err := coordinationclient.NewForConfigAndClient(c.cfg, c.http)
	if err != nil {
		return err
	}
	var errs []error
	for _, x := range []struct {
		kind, name string
		delete     func(context.Context, string, metav1.DeleteOptions) error
	}{
		{"Secret", AuthoritySecret, core.Secrets(namespace).Delete},
		{"ConfigMap", TrustConfigMap, core.ConfigMaps(namespace).Delete},
		{"Lease", LeaderLease, coordination.Leases(namespace).Delete},
	} {
		if err := x.delete(ctx, x.name, metav1.DeleteOptions{}); err != nil && !apierrors.IsNotFound(err) {
			errs = append(errs, fmt.Errorf("delete %s %s/%s: %w", x.kind, namespace, x.name, err))
		}
	}
	return errors.Join(errs...)
}
