package provision

import (
	"fmt"

	appsv1 "k8s.io/api/apps/v1"
	corev1 "k8s.io/api/core/v1"
	"k8s.io/apimachinery/pkg/api/resource"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
	"k8s.io/apimachinery/pkg/util/intstr"
)

// Times of a Gateway's pods.
const (
	drainSeconds = 10
	graceSeconds = 20 // with Envoy's own end
	tokenSeconds = 3600
	probeTimeout = 5
	nonRoot      = 65532 // as the images have it
)

func intOrString(n int32) intstr.IntOrString { return intstr.FromInt32(n) }

// deployment runs the Gateway's Envoys. Nothing in it depends on the Gateway's listeners:
// these come and go without a restart. Its replicas are left open (see replicas).
func (in *gatewayInput) deployment() *appsv1.Deployment {
	head := in.head()
	head.Annotations[AnnotationReplicas] = fmt.Sprint(in.asked())
	none, one := intOrString(0), intOrString(1)
	pod := in.head()
	pod.Namespace, pod.Name, pod.OwnerReferences = "", "", nil
	history := int32(2)
	return &appsv1.Deployment{
		TypeMeta: metav1.TypeMeta{APIVersion: "apps/v1", Kind: "Deployment"}, ObjectMeta: head,
		Spec: appsv1.DeploymentSpec{
			RevisionHistoryLimit: &history,
			Strategy:             appsv1.DeploymentStrategy{Type: appsv1.RollingUpdateDeploymentStrategyType, RollingUpdate: &appsv1.RollingUpdateDeployment{MaxUnavailable: &none, MaxSurge: &one}},
			Selector:             &metav1.LabelSelector{MatchLabels: in.selector()},
			Template:             corev1.PodTemplateSpec{ObjectMeta: pod, Spec: in.pod(head.Name)},
		},
	}
}

func (in *gatewayInput) pod(name string) corev1.PodSpec {
	yes, no := true, false
	user, grace, token := int64(nonRoot), int64(graceSeconds), int64(tokenSeconds)
	limit := resource.MustParse("256Mi")
	return corev1.PodSpec{
		EnableServiceLinks: &no, ServiceAccountName: name, AutomountServiceAccountToken: &no, TerminationGracePeriodSeconds: &grace,
		SecurityContext: &corev1.PodSecurityContext{
			RunAsNonRoot: &yes, RunAsUser: &user, RunAsGroup: &user, FSGroup: &user,
			SeccompProfile: &corev1.SeccompProfile{Type: corev1.SeccompProfileTypeRuntimeDefault},
		},
		Containers: []corev1.Container{in.container()},
		Volumes: []corev1.Volume{
			{Name: "token", VolumeSource: corev1.VolumeSource{Projected: &corev1.ProjectedVolumeSource{Sources: []corev1.VolumeProjection{{
				ServiceAccountToken: &corev1.ServiceAccountTokenProjection{Audience: in.settings.Audience, ExpirationSeconds: &token, Path: "token"},
			}}}}},
			{Name: "trust", VolumeSource: corev1.VolumeSource{ConfigMap: &corev1.ConfigMapVolumeSource{LocalObjectReference: corev1.LocalObjectReference{Name: name}}}},
			{Name: "run", VolumeSource: corev1.VolumeSource{EmptyDir: &corev1.EmptyDirVolumeSource{SizeLimit: &limit}}},
		},
		TopologySpreadConstraints: []corev1.TopologySpreadConstraint{{
			MaxSkew: 1, TopologyKey: corev1.LabelHostname, WhenUnsatisfiable: corev1.ScheduleAnyway, LabelSelector: &metav1.LabelSelector{MatchLabels: in.selector()},
		}},
	}
}

func (in *gatewayInput) container() corev1.Container {
	w, s := in.want, in.settings
	yes, no := true, false
	probe := func(path string) corev1.ProbeHandler {
		return corev1.ProbeHandler{HTTPGet: &corev1.HTTPGetAction{Path: path, Port: intOrString(ProbePort)}}
	}
	c := corev1.Container{
		Name: "envoy", Image: s.Image, ImagePullPolicy: s.PullPolicy,
		Args: []string{
			"proxy", "--role=gateway", "--name=" + in.name.Name, "--namespace=" + in.name.Namespace,
			"--cluster=" + s.Cluster, "--clusterset=" + s.Clusterset, "--region=" + s.Region, "--zone=" + s.Zone,
			fmt.Sprintf("--probe=:%d", ProbePort), fmt.Sprintf("--drain=%ds", drainSeconds),
		},
		// One that has got its configuration within a second takes traffic within two.
		StartupProbe: &corev1.Probe{ProbeHandler: probe("/readyz"), PeriodSeconds: 1, FailureThreshold: 300},
		// Who has no time for kubelet may well have it for traffic.
		LivenessProbe:  &corev1.Probe{ProbeHandler: probe("/livez"), PeriodSeconds: 10, FailureThreshold: 6, TimeoutSeconds: probeTimeout},
		ReadinessProbe: &corev1.Probe{ProbeHandler: probe("/readyz"), PeriodSeconds: 2, TimeoutSeconds: probeTimeout},
		SecurityContext: &corev1.SecurityContext{
			AllowPrivilegeEscalation: &no, ReadOnlyRootFilesystem: &yes, Capabilities: &corev1.Capabilities{Drop: []corev1.Capability{"ALL"}},
		},
		Resources: corev1.ResourceRequirements{Requests: corev1.ResourceList{corev1.ResourceCPU: resource.MustParse("10m"), corev1.ResourceMemory: resource.MustParse("64Mi")}},
		VolumeMounts: []corev1.VolumeMount{
			{Name: "token", MountPath: "/var/run/secrets/causeway.dev", ReadOnly: true},
			{Name: "trust", MountPath: "/etc/causeway/trust", ReadOnly: true},
			{Name: "run", MountPath: "/run/causeway"},
		},
	}
	p := w.Parameters
	if p.Image != "" {
		c.Image = p.Image
	}
	if p.Resources != nil {
		c.Resources = *p.Resources
	}
	if p.LogLevel != "" {
		c.Args = append(c.Args, "--log-level="+p.LogLevel)
	}
	return c
}
