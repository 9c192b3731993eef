package etcd

import (
	"context"
	"errors"
	"fmt"
	"slices"

	"go.etcd.io/etcd/api/v3/authpb"
	"go.etcd.io/etcd/api/v3/v3rpc/rpctypes"
	clientv3 "go.etcd.io/etcd/client/v3"

	"github.com/causeway-mesh/causeway/federation/store"
)

// Names of etcd users, that is, common names of client certificates. No user has
// a password: a certificate is the only way in.
const (
	// AdminUser is etcd's own administrator: it writes the policy and runs
	// Bootstrap and RemoveCluster.
	AdminUser = "root"
	// HubUser may read everything and write nothing.
	HubUser = "hub"
	// PolicyUser may read everything and write the policy: for what carries out
	// administrators' commands and needs no other power.
	PolicyUser = "policy"
)

// AgentUser is the user of a cluster's agents: it may read everything and write
// below the cluster's own prefix.
func AgentUser(cluster string) string { return "agent:" + cluster }

const (
	rootRole   = "root"
	readerRole = "causeway:reader"
	policyRole = "causeway:policy"
)

func writerRole(cluster string) string { return "causeway:writer:" + cluster }

// Bootstrap makes etcd enforce who may write what: it creates the users and roles
// of the hub, of the policy and of the given clusters, as far as they are missing,
// takes from them what they should not have, and enables authentication. Other clusters'
// users stay as they are, so that it also adds a cluster to a running clusterset.
// It may be repeated at any time. The store's certificate must be AdminUser's.
func Bootstrap(ctx context.Context, s *Store, clusters ...string) error {
	for _, c := range clusters {
		if _, err := store.ClusterPrefix(c); err != nil {
			return fmt.Errorf("bootstrap: %w", err)
		}
	}
	if err := s.bootstrap(ctx, clusters); err != nil {
		return fmt.Errorf("bootstrap of the store's users: %w", err)
	}
	return nil
}

func (s *Store) bootstrap(ctx context.Context, clusters []string) error {
	// etcd itself takes the root role for all permissions; it lists none.
	if err := s.ensureRole(ctx, rootRole, ""); err != nil {
		return err
	}
	if err := s.ensureUser(ctx, AdminUser, rootRole); err != nil {
		return err
	}
	if err := s.ensureRole(ctx, readerRole, store.Root); err != nil {
		return err
	}
	if err := s.ensureUser(ctx, HubUser, readerRole); err != nil {
		return err
	}
	if err := s.ensureRole(ctx, policyRole, store.PolicyPrefix); err != nil {
		return err
	}
	if err := s.ensureUser(ctx, PolicyUser, readerRole, policyRole); err != nil {
		return err
	}
	for _, c := range clusters {
		prefix, err := store.ClusterPrefix(c)
		if err != nil {
			return err
		}
		if err := s.ensureRole(ctx, writerRole(c), prefix); err != nil {
			return err
		}
		if err := s.ensureUser(ctx, AgentUser(c), readerRole, writerRole(c)); err != nil {
			return err
		}
	}
	var enabled bool
	if err := s.admin(ctx, func(ctx context.Context) error {
		resp, err := s.client.AuthStatus(ctx)
		if err == nil {
			enabled = resp.Enabled
		}
		return err
	}); err != nil || enabled {
		return err
	}
	return s.admin(ctx, func(ctx context.Context) error {
		_, err := s.client.AuthEnable(ctx)
		return err
	})
}

// ensureRole makes a role that permits the prefix (reading for the reader, else
// writing) and nothing else.
func (s *Store) ensureRole(ctx context.Context, role, prefix string) error {
	var have []*authpb.Permission
	err := s.admin(ctx, func(ctx context.Context) error {
		resp, err := s.client.RoleGet(ctx, role)
		if err == nil {
			have = resp.Perm
		}
		return err
	})
	if errors.Is(err, rpctypes.ErrRoleNotFound) {
		err = s.admin(ctx, func(ctx context.Context) error {
			_, err := s.client.RoleAdd(ctx, role)
			return ignore(err, rpctypes.ErrRoleAlreadyExist)
		})
	}
	if err != nil {
		return fmt.Errorf("role %q: %w", role, err)
	}
	if prefix == "" {
		return nil
	}
	end, kind := clientv3.GetPrefixRangeEnd(prefix), clientv3.PermWrite
	if role == readerRole {
		kind = clientv3.PermRead
	}
	granted := false
	for _, p := range have {
		same := string(p.GetKey()) == prefix && string(p.GetRangeEnd()) == end
		if same && int32(p.GetPermType()) == int32(kind) {
			granted = true
			continue
		}
		if err := s.admin(ctx, func(ctx context.Context) error {
			_, err := s.client.RoleRevokePermission(ctx, role, string(p.GetKey()), string(p.GetRangeEnd()))
			return ignore(err, rpctypes.ErrPermissionNotGranted)
		}); err != nil {
			return fmt.Errorf("role %q: revoking permission for %q: %w", role, p.GetKey(), err)
		}
	}
	if granted {
		return nil
	}
	if err := s.admin(ctx, func(ctx context.Context) error {
		_, err := s.client.RoleGrantPermission(ctx, role, prefix, end, clientv3.PermissionType(kind))
		return err
	}); err != nil {
		return fmt.Errorf("role %q: permission for %q: %w", role, prefix, err)
	}
	return nil
}

// ensureUser makes a user, without password, that has exactly the given roles.
func (s *Store) ensureUser(ctx context.Context, user string, roles ...string) error {
	var have []string
	err := s.admin(ctx, func(ctx context.Context) error {
		resp, err := s.client.UserGet(ctx, user)
		if err == nil {
			have = resp.Roles
		}
		return err
	})
	if errors.Is(err, rpctypes.ErrUserNotFound) {
		err = s.admin(ctx, func(ctx context.Context) error {
			_, err := s.client.UserAddWithOptions(ctx, user, "", &clientv3.UserAddOptions{NoPassword: true})
			return ignore(err, rpctypes.ErrUserAlreadyExist)
		})
	}
	if err != nil {
		return fmt.Errorf("user %q: %w", user, err)
	}
	for _, r := range roles {
		if slices.Contains(have, r) {
			continue
		}
		if err := s.admin(ctx, func(ctx context.Context) error {
			_, err := s.client.UserGrantRole(ctx, user, r)
			return err
		}); err != nil {
			return fmt.Errorf("user %q: role %q: %w", user, r, err)
		}
	}
	for _, r := range have {
		if slices.Contains(roles, r) {
			continue
		}
		if err := s.admin(ctx, func(ctx context.Context) error {
			_, err := s.client.UserRevokeRole(ctx, user, r)
			return ignore(err, rpctypes.ErrRoleNotGranted)
		}); err != nil {
			return fmt.Errorf("user %q: revoking role %q: %w", user, r, err)
		}
	}
	return nil
}

// RemoveCluster ends a cluster's membership: its user and role go first, so that
// its agents can write no more, then all its keys and what the policy says of its
// draining, in one transaction, so that a cluster of that name which comes later
// starts afresh. It returns the revision after which the cluster is gone. It may be repeated. The store's
// certificate must be AdminUser's.
func RemoveCluster(ctx context.Context, s *Store, cluster string) (int64, error) {
	prefix, err := store.ClusterPrefix(cluster)
	if err != nil {
		return 0, fmt.Errorf("remove cluster: %w", err)
	}
	drain, err := store.DrainKey(cluster)
	if err != nil {
		return 0, fmt.Errorf("remove cluster: %w", err)
	}
	rev, err := s.removeCluster(ctx, cluster, prefix, drain)
	if err != nil {
		return 0, fmt.Errorf("removing cluster %q from the store: %w", cluster, err)
	}
	return rev, nil
}

func (s *Store) removeCluster(ctx context.Context, cluster, prefix, drain string) (int64, error) {
	if err := s.admin(ctx, func(ctx context.Context) error {
		_, err := s.client.UserDelete(ctx, AgentUser(cluster))
		return ignore(err, rpctypes.ErrUserNotFound)
	}); err != nil {
		return 0, err
	}
	if err := s.admin(ctx, func(ctx context.Context) error {
		_, err := s.client.RoleDelete(ctx, writerRole(cluster))
		return ignore(err, rpctypes.ErrRoleNotFound)
	}); err != nil {
		return 0, err
	}
	var rev int64
	err := s.admin(ctx, func(ctx context.Context) error {
		resp, err := s.client.Txn(ctx).Then(clientv3.OpDelete(prefix, clientv3.WithPrefix()), clientv3.OpDelete(drain)).Commit()
		if err == nil {
			rev = resp.Header.GetRevision()
		}
		return err
	})
	return rev, err
}

// admin makes one administrative request; all of them may be repeated, so it
// waits for the store like a read.
func (s *Store) admin(ctx context.Context, f func(context.Context) error) error {
	return s.retry(ctx, "admin", func(ctx context.Context) error { return f(ctx) })
}

// ignore returns nil for the error that says that the work was done before.
func ignore(err, done error) error {
	if errors.Is(err, done) {
		return nil
	}
	return err
}
