{{- define "hub.labels" -}}
app.kubernetes.io/part-of: causeway
app.kubernetes.io/managed-by: {{ .Release.Service }}
app.kubernetes.io/version: {{ .Chart.AppVersion | quote }}
helm.sh/chart: {{ printf "%s-%s" .Chart.Name .Chart.Version }}
{{- end }}

{{- define "hub.selector" -}}
app.kubernetes.io/name: causeway-hub
app.kubernetes.io/instance: {{ .Release.Name }}
{{- end }}

{{- define "etcd.selector" -}}
app.kubernetes.io/name: causeway-etcd
app.kubernetes.io/instance: {{ .Release.Name }}
{{- end }}

{{- define "hub.image" -}}
{{ .Values.image.repository }}:{{ .Values.image.tag | default .Chart.AppVersion }}
{{- end }}

{{- define "hub.secret" -}}
{{ .Values.secret.existing | default "causeway-hub" }}
{{- end }}

{{- define "hub.podSecurity" -}}
runAsNonRoot: true
runAsUser: 65532
runAsGroup: 65532
fsGroup: 65532
seccompProfile: {type: RuntimeDefault}
{{- end }}

{{- define "hub.containerSecurity" -}}
allowPrivilegeEscalation: false
readOnlyRootFilesystem: true
capabilities: {drop: [ALL]}
{{- end }}

{{- /* The store as those inside the cluster reach it. */ -}}
{{- define "hub.endpoints" -}}
{{- if .Values.etcd.enabled -}}
{{- $list := list -}}
{{- range $i := until (int .Values.etcd.members) -}}
{{- $list = append $list (printf "https://causeway-etcd-%d.causeway-etcd.%s.svc:2379" $i $.Release.Namespace) -}}
{{- end -}}
{{ join "," $list }}
{{- else -}}
{{ join "," .Values.store.endpoints }}
{{- end -}}
{{- end }}
