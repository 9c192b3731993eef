package provision

import (
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"strconv"

	appsv1 "k8s.io/api/apps/v1"
	corev1 "k8s.io/api/core/v1"
	discoveryv1 "k8s.io/api/discovery/v1"
	policyv1 "k8s.io/api/policy/v1"
	apierrors "k8s.io/apimachinery/pkg/api/errors"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
	"k8s.io/apimachinery/pkg/apis/meta/v1/unstructured"
	"k8s.io/apimachinery/pkg/runtime"
	"k8s.io/apimachinery/pkg/runtime/schema"
	"k8s.io/apimachinery/pkg/types"
	"k8s.io/apimachinery/pkg/watch"
	"k8s.io/client-go/discovery"
	"k8s.io/client-go/dynamic"
	"k8s.io/client-go/tools/cache"
	mcsv1beta1 "sigs.k8s.io/mcs-api/pkg/apis/v1beta1"

	"github.com/causeway-mesh/causeway/cluster/kubernetes"
)

// The resources that we write. That of ServiceImports has a version: what is served.
var (
	servicesResource    = schema.GroupVersionResource{Version: "v1", Resource: "services"}
	slicesResource      = schema.GroupVersionResource{Group: discoveryv1.GroupName, Version: "v1", Resource: "endpointslices"}
	accountsResource    = schema.GroupVersionResource{Version: "v1", Resource: "serviceaccounts"}
	configMapsResource  = schema.GroupVersionResource{Version: "v1", Resource: "configmaps"}
	deploymentsResource = schema.GroupVersionResource{Group: appsv1.GroupName, Version: "v1", Resource: "deployments"}
	budgetsResource     = schema.GroupVersionResource{Group: policyv1.GroupName, Version: "v1", Resource: "poddisruptionbudgets"}
	importVersions      = []string{"v1beta1", "v1alpha1"}
)

// gatewayResources are those of which each Gateway has one object.
var gatewayResources = []schema.GroupVersionResource{accountsResource, configMapsResource, servicesResource, deploymentsResource, budgetsResource}

func importsResource(version string) schema.GroupVersionResource {
	return schema.GroupVersionResource{Group: mcsv1beta1.GroupName, Version: version, Resource: mcsv1beta1.ServiceImportPluralName}
}

// client writes and watches our objects, on the connection of the agent's own client.
type client struct {
	dynamic   dynamic.Interface
	discovery discovery.DiscoveryInterface
}

func newClient(c *kubernetes.Client) (*client, error) {
	d, err := dynamic.NewForConfigAndClient(c.Config(), c.HTTP())
	if err != nil {
		return nil, err
	}
	disc, err := discovery.NewDiscoveryClientForConfigAndClient(c.Config(), c.HTTP())
	if err != nil {
		return nil, err
	}
	return &client{dynamic: d, discovery: disc}, nil
}

// importVersion gives the best version of ServiceImports that is served, empty if none is.
func (c *client) importVersion() (string, error) {
	for _, v := range importVersions {
		list, err := c.discovery.ServerResourcesForGroupVersion(mcsv1beta1.GroupName + "/" + v)
		if apierrors.IsNotFound(err) {
			continue
		}
		if err != nil {
			return "", fmt.Errorf("ask which versions of ServiceImports are served: %w", err)
		}
		for _, r := range list.APIResources {
			if r.Name == mcsv1beta1.ServiceImportPluralName {
				return v, nil
			}
		}
	}
	return "", nil
}

// resourceOf tells where an object lives.
func resourceOf(o metav1.Object, version string) schema.GroupVersionResource {
	switch o.(type) {
	case *mcsv1beta1.ServiceImport:
		return importsResource(version)
	case *corev1.Service:
		return servicesResource
	case *corev1.ServiceAccount:
		return accountsResource
	case *corev1.ConfigMap:
		return configMapsResource
	case *appsv1.Deployment:
		return deploymentsResource
	case *policyv1.PodDisruptionBudget:
		return budgetsResource
	}
	return slicesResource
}

func kindOf(o metav1.Object) string {
	switch o.(type) {
	case *mcsv1beta1.ServiceImport:
		return mcsv1beta1.ServiceImportKindName
	case *corev1.Service:
		return "Service"
	case *corev1.ServiceAccount:
		return "ServiceAccount"
	case *corev1.ConfigMap:
		return "ConfigMap"
	case *appsv1.Deployment:
		return "Deployment"
	case *policyv1.PodDisruptionBudget:
		return "PodDisruptionBudget"
	}
	return "EndpointSlice"
}

// apply writes an object by server-side apply: what it says is ours, the rest is left. have
// is what it goes over, nil for nothing; if there is something else by now it fails with a
// conflict, and so it does if o names a resourceVersion that isn't the object's any more. It gives what the API server made of it.
func (c *client) apply(ctx context.Context, o, have metav1.Object, version string) (metav1.Object, error) {
	m, err := runtime.DefaultUnstructuredConverter.ToUnstructured(o)
	if err != nil {
		return nil, err
	}
	delete(m, "status")
	unstructured.RemoveNestedField(m, "metadata", "creationTimestamp")
	u := &unstructured.Unstructured{Object: m}
	if have != nil {
		u.SetUID(have.GetUID())
	}
	data, err := json.Marshal(u)
	if err != nil {
		return nil, err
	}
	force := true
	out, err := c.dynamic.Resource(resourceOf(o, version)).Namespace(o.GetNamespace()).Patch(ctx, o.GetName(), types.ApplyPatchType, data, metav1.PatchOptions{FieldManager: Manager, Force: &force})
	if err != nil {
		return nil, err
	}
	return typed(out)
}

// get finds an object, nil if there is none.
func (c *client) get(ctx context.Context, like metav1.Object, version string) (metav1.Object, error) {
	u, err := c.dynamic.Resource(resourceOf(like, version)).Namespace(like.GetNamespace()).Get(ctx, like.GetName(), metav1.GetOptions{})
	if apierrors.IsNotFound(err) {
		return nil, nil
	}
	if err != nil {
		return nil, err
	}
	return typed(u)
}

// remove deletes the very object that was seen.
func (c *client) remove(ctx context.Context, o metav1.Object, version string) error {
	return c.delete(ctx, resourceOf(o, version), o)
}

// delete is remove of an object of a resource.
func (c *client) delete(ctx context.Context, r schema.GroupVersionResource, o metav1.Object) error {
	uid := o.GetUID()
	err := c.dynamic.Resource(r).Namespace(o.GetNamespace()).Delete(ctx, o.GetName(), metav1.DeleteOptions{Preconditions: &metav1.Preconditions{UID: &uid}})
	if apierrors.IsNotFound(err) || apierrors.IsConflict(err) {
		return nil // it is gone, or another one has its name by now
	}
	return err
}

// informer watches a resource, and files objects by what they are there for.
func (c *client) informer(resource schema.GroupVersionResource, selector string, of func(metav1.Object) Name) (cache.SharedIndexInformer, error) {
	at := c.dynamic.Resource(resource)
	i := cache.NewSharedIndexInformer(&cache.ListWatch{
		ListWithContextFunc: func(ctx context.Context, o metav1.ListOptions) (runtime.Object, error) {
			o.LabelSelector = selector
			return at.List(ctx, o)
		},
		WatchFuncWithContext: func(ctx context.Context, o metav1.ListOptions) (watch.Interface, error) {
			o.LabelSelector = selector
			return at.Watch(ctx, o)
		},
	}, &unstructured.Unstructured{}, 0, cache.Indexers{byOwner: func(o any) ([]string, error) {
		m, ok := o.(metav1.Object)
		if !ok {
			return nil, fmt.Errorf("%T is no object", o)
		}
		return []string{of(m).String()}, nil
	}})
	err := i.SetTransform(func(o any) (any, error) {
		u, ok := o.(*unstructured.Unstructured)
		if !ok {
			return o, nil
		}
		return typed(u)
	})
	return i, err
}

// byOwner is the index of objects by what they are there for.
const byOwner = "owner"

// importFor names the import for which an object is there.
func importFor(o metav1.Object) Name {
	if _, ok := o.(*mcsv1beta1.ServiceImport); ok {
		return Name{o.GetNamespace(), o.GetName()}
	}
	return Name{o.GetNamespace(), o.GetLabels()[mcsv1beta1.LabelServiceName]}
}

// typed reads an object into its Go type, without what nobody here needs.
func typed(u *unstructured.Unstructured) (metav1.Object, error) {
	var o metav1.Object
	switch u.GetKind() {
	case mcsv1beta1.ServiceImportKindName:
		o = &mcsv1beta1.ServiceImport{}
	case "Service":
		o = &corev1.Service{}
	case "EndpointSlice":
		o = &discoveryv1.EndpointSlice{}
	case "ServiceAccount":
		o = &corev1.ServiceAccount{}
	case "ConfigMap":
		o = &corev1.ConfigMap{}
	case "Deployment":
		o = &appsv1.Deployment{}
	case "PodDisruptionBudget":
		o = &policyv1.PodDisruptionBudget{}
	default:
		return nil, fmt.Errorf("%s is not a kind that is watched here", u.GetKind())
	}
	if err := runtime.DefaultUnstructuredConverter.FromUnstructured(u.Object, o); err != nil {
		return nil, fmt.Errorf("%s %s/%s: %w", u.GetKind(), u.GetNamespace(), u.GetName(), err)
	}
	o.SetManagedFields(nil)
	return o, nil
}

// newer reports whether a version of an object is at least as new as another.
func newer(a, b metav1.Object) bool {
	x, err1 := strconv.ParseUint(a.GetResourceVersion(), 10, 64)
	y, err2 := strconv.ParseUint(b.GetResourceVersion(), 10, 64)
	if errors.Join(err1, err2) != nil {
		return a.GetResourceVersion() == b.GetResourceVersion()
	}
	return x >= y
}
