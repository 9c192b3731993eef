package provision

import (
	"context"
	"errors"
	"fmt"
	"slices"

	rbacv1 "k8s.io/api/rbac/v1"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
	"k8s.io/apimachinery/pkg/apis/meta/v1/unstructured"
	"k8s.io/apimachinery/pkg/runtime"
	"k8s.io/apimachinery/pkg/runtime/schema"
	"k8s.io/client-go/tools/pager"
	mcsv1beta1 "sigs.k8s.io/mcs-api/pkg/apis/v1beta1"

	"github.com/causeway-mesh/causeway/cluster/kubernetes"
)

// Remove deletes all that Provisioners and Gateways have made in a cluster, and says how many
// objects it were. None of them may run meanwhile: it would make them again.
func Remove(ctx context.Context, k *kubernetes.Client) (int, error) {
	c, err := newClient(k)
	if err != nil {
		return 0, err
	}
	version, err := c.importVersion()
	if err != nil {
		return 0, err
	}
	// ServiceImports and Deployments first: they are how the others are found and used.
	resources := []schema.GroupVersionResource{deploymentsResource, budgetsResource, servicesResource, slicesResource, configMapsResource, accountsResource}
	if version != "" {
		resources = slices.Insert(resources, 0, importsResource(version))
	}
	removed := 0
	var errs []error
	for _, r := range resources {
		list := pager.New(func(ctx context.Context, o metav1.ListOptions) (runtime.Object, error) {
			return c.dynamic.Resource(r).List(ctx, o)
		})
		err := list.EachListItem(ctx, metav1.ListOptions{LabelSelector: LabelManagedBy + "=" + Manager}, func(o runtime.Object) error {
			u, ok := o.(*unstructured.Unstructured)
			if !ok || r.Group != mcsv1beta1.GroupName && u.GetLabels()[kubernetes.LabelDerived] == "" && u.GetLabels()[LabelGateway] == "" {
				return nil
			}
			if err := c.delete(ctx, r, u); err != nil {
				errs = append(errs, fmt.Errorf("delete %s %s/%s: %w", r.Resource, u.GetNamespace(), u.GetName(), err))
				return nil
			}
			removed++
			return nil
		})
		if err != nil {
			errs = append(errs, fmt.Errorf("list %s: %w", r.Resource, err))
		}
	}
	return removed, errors.Join(errs...)
}

// RemoveRules lists the rights that Remove needs, cluster-wide.
func RemoveRules() []kubernetes.Rule {
	rule := func(why, group string, resources ...string) kubernetes.Rule {
		return kubernetes.Rule{PolicyRule: rbacv1.PolicyRule{APIGroups: []string{group}, Resources: resources, Verbs: []string{"list", "delete"}}, Why: why}
	}
	return []kubernetes.Rule{
		rule("the ServiceImports that agents made", mcsv1beta1.GroupName, mcsv1beta1.ServiceImportPluralName),
		rule("the derived Services, and what belonged to Gateways", "", "services", "configmaps", "serviceaccounts"),
		rule("the EndpointSlices of imports", "discovery.k8s.io", "endpointslices"),
		rule("the Envoys of Gateways", "apps", "deployments"),
		rule("how many of them may be away", "policy", "poddisruptionbudgets"),
	}
}
