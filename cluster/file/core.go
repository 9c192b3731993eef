package file

import (
	"encoding/base64"
	"maps"
	"slices"

	appsv1 "k8s.io/api/apps/v1"
	corev1 "k8s.io/api/core/v1"
	apivalidation "k8s.io/apimachinery/pkg/api/validation"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
	metav1validation "k8s.io/apimachinery/pkg/apis/meta/v1/validation"
	"k8s.io/apimachinery/pkg/labels"
	"k8s.io/apimachinery/pkg/util/validation"
	"k8s.io/apimachinery/pkg/util/validation/field"

	"github.com/causeway-mesh/causeway/cluster"
)

func readNamespace(_ *reader, d *document) (any, *metav1.ObjectMeta) {
	var o corev1.Namespace
	d.core(&o, &o.ObjectMeta, apivalidation.ValidateNamespaceName)
	o.Spec, o.Status = corev1.NamespaceSpec{}, corev1.NamespaceStatus{}
	o.Labels = withName(o.Labels, o.Name)
	return &o, &o.ObjectMeta
}

// withName adds the label by which selectors find a namespace.
func withName(l map[string]string, name string) map[string]string {
	l = maps.Clone(l)
	if l == nil {
		l = map[string]string{}
	}
	l[cluster.LabelNamespaceName] = name
	return l
}

func readSecret(_ *reader, d *document) (any, *metav1.ObjectMeta) {
	var o corev1.Secret
	encoded, _ := d.obj["data"].(map[string]any)
	for _, key := range slices.Sorted(maps.Keys(encoded)) {
		if text, ok := encoded[key].(string); ok {
			if _, err := base64.StdEncoding.DecodeString(text); err != nil {
				d.fail("data."+key, "data[%s]: is not base64: encode it, or put it in stringData as it is", key)
			}
		}
	}
	if len(d.problems) > 0 {
		return nil, &o.ObjectMeta
	}
	d.core(&o, &o.ObjectMeta, apivalidation.NameIsDNSSubdomain)
	size := 0
	for key, text := range o.StringData {
		if o.Data == nil {
			o.Data = map[string][]byte{}
		}
		o.Data[key] = []byte(text)
	}
	o.StringData = nil
	for key, value := range o.Data {
		d.key("data", key)
		size += len(value)
	}
	if size > corev1.MaxSecretSize {
		d.fail("data", "data: is %d bytes long, at most %d are allowed", size, corev1.MaxSecretSize)
	}
	if o.Type == "" {
		o.Type = corev1.SecretTypeOpaque
	}
	if o.Type == corev1.SecretTypeTLS && len(d.problems) == 0 {
		for _, key := range []string{corev1.TLSCertKey, corev1.TLSPrivateKeyKey} {
			if _, ok := o.Data[key]; !ok {
				d.fail("data", "data[%s]: is missing, a Secret of the type %s needs it", key, o.Type)
			}
		}
	}
	return &o, &o.ObjectMeta
}

func readConfigMap(_ *reader, d *document) (any, *metav1.ObjectMeta) {
	var o corev1.ConfigMap
	d.core(&o, &o.ObjectMeta, apivalidation.NameIsDNSSubdomain)
	size := 0
	for key, value := range o.Data {
		d.key("data", key)
		size += len(value)
	}
	for key, value := range o.BinaryData {
		d.key("binaryData", key)
		if _, both := o.Data[key]; both {
			d.fail("binaryData."+key, "binaryData[%s]: is in data too", key)
		}
		size += len(value)
	}
	if size > corev1.MaxSecretSize {
		d.fail("data", "data: is %d bytes long, at most %d are allowed", size, corev1.MaxSecretSize)
	}
	return &o, &o.ObjectMeta
}

func (d *document) key(in, key string) {
	for _, why := range validation.IsConfigMapKey(key) {
		d.fail(in+"."+key, "%s[%s]: %s", in, key, why)
	}
}

func readDeployment(_ *reader, d *document) (any, *metav1.ObjectMeta) {
	var o appsv1.Deployment
	d.core(&o, &o.ObjectMeta, apivalidation.NameIsDNSSubdomain)
	o.Status = appsv1.DeploymentStatus{}
	if len(d.problems) > 0 {
		return &o, &o.ObjectMeta
	}
	var errs field.ErrorList
	spec := field.NewPath("spec")
	if o.Spec.Replicas != nil {
		errs = append(errs, apivalidation.ValidateNonnegativeField(int64(*o.Spec.Replicas), spec.Child("replicas"))...)
	}
	if o.Spec.Selector == nil {
		errs = append(errs, field.Required(spec.Child("selector"), ""))
	} else {
		errs = append(errs, metav1validation.ValidateLabelSelector(o.Spec.Selector, metav1validation.LabelSelectorValidationOptions{}, spec.Child("selector"))...)
		if len(o.Spec.Selector.MatchLabels)+len(o.Spec.Selector.MatchExpressions) == 0 {
			errs = append(errs, field.Invalid(spec.Child("selector"), "", "is empty: it must select the pod template's labels"))
		} else if s, err := metav1.LabelSelectorAsSelector(o.Spec.Selector); err == nil && !s.Matches(labels.Set(o.Spec.Template.Labels)) {
			errs = append(errs, field.Invalid(spec.Child("template", "metadata", "labels"), o.Spec.Template.Labels, "spec.selector does not match them"))
		}
	}
	template := spec.Child("template", "metadata")
	errs = append(errs, metav1validation.ValidateLabels(o.Spec.Template.Labels, template.Child("labels"))...)
	errs = append(errs, apivalidation.ValidateAnnotations(o.Spec.Template.Annotations, template.Child("annotations"))...)
	containers := spec.Child("template", "spec", "containers")
	if len(o.Spec.Template.Spec.Containers) == 0 {
		errs = append(errs, field.Required(containers, "a pod needs at least one"))
	}
	names := map[string]bool{}
	for i, c := range o.Spec.Template.Spec.Containers {
		at := containers.Index(i)
		if c.Name == "" {
			errs = append(errs, field.Required(at.Child("name"), ""))
		} else if names[c.Name] {
			errs = append(errs, field.Duplicate(at.Child("name"), c.Name))
		}
		names[c.Name] = true
		errs = append(errs, containerPorts(c.Ports, at.Child("ports"))...)
	}
	d.fails(errs)
	return &o, &o.ObjectMeta
}

func containerPorts(ports []corev1.ContainerPort, at *field.Path) (errs field.ErrorList) {
	names := map[string]bool{}
	for i := range ports {
		p := &ports[i]
		if p.Protocol == "" {
			p.Protocol = corev1.ProtocolTCP
		}
		if p.Name != "" {
			for _, why := range validation.IsValidPortName(p.Name) {
				errs = append(errs, field.Invalid(at.Index(i).Child("name"), p.Name, why))
			}
			if names[p.Name] {
				errs = append(errs, field.Duplicate(at.Index(i).Child("name"), p.Name))
			}
			names[p.Name] = true
		}
		errs = append(errs, portNumber(int(p.ContainerPort), at.Index(i).Child("containerPort"))...)
		errs = append(errs, protocol(p.Protocol, at.Index(i).Child("protocol"))...)
	}
	return errs
}

func portNumber(port int, at *field.Path) (errs field.ErrorList) {
	for _, why := range validation.IsValidPortNum(port) {
		errs = append(errs, field.Invalid(at, port, why))
	}
	return errs
}

func protocol(p corev1.Protocol, at *field.Path) field.ErrorList {
	switch p {
	case corev1.ProtocolTCP, corev1.ProtocolUDP, corev1.ProtocolSCTP:
		return nil
	}
	return field.ErrorList{field.NotSupported(at, p, []corev1.Protocol{corev1.ProtocolTCP, corev1.ProtocolUDP, corev1.ProtocolSCTP})}
}

// core decodes an object of a built-in kind and settles its metadata.
func (d *document) core(into any, om *metav1.ObjectMeta, validName apivalidation.ValidateNameFunc) {
	d.strict("", d.obj, into)
	d.settle(om, validName)
}
