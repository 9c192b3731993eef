{{- define "causeway.labels" -}}
app.kubernetes.io/part-of: causeway
app.kubernetes.io/managed-by: {{ .Release.Service }}
app.kubernetes.io/version: {{ .Chart.AppVersion | quote }}
helm.sh/chart: {{ printf "%s-%s" .Chart.Name .Chart.Version }}
{{- end }}

{{- define "agent.selector" -}}
app.kubernetes.io/name: causeway-agent
app.kubernetes.io/instance: {{ .Release.Name }}
{{- end }}

{{- define "crossing.selector" -}}
app.kubernetes.io/name: causeway-crossing
app.kubernetes.io/instance: {{ .Release.Name }}
{{- end }}

{{- define "causeway.secret" -}}
{{ .Values.secret.existing | default "causeway-clusterset" }}
{{- end }}

{{- define "causeway.podSecurity" -}}
runAsNonRoot: true
runAsUser: 65532
runAsGroup: 65532
fsGroup: 65532
seccompProfile: {type: RuntimeDefault}
{{- end }}

{{- define "causeway.containerSecurity" -}}
allowPrivilegeEscalation: false
readOnlyRootFilesystem: true
capabilities: {drop: [ALL]}
{{- end }}

{{- /* Annotations of what runs once the chart is uninstalled; its weight orders them. */ -}}
{{- define "uninstall.hook" -}}
helm.sh/hook: post-delete
helm.sh/hook-weight: {{ . | quote }}
helm.sh/hook-delete-policy: before-hook-creation,hook-succeeded
{{- end }}
