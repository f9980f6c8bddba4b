{{- define "flopsd.name" -}}
{{ .Values.nameOverride | default .Chart.Name | trunc 63 | trimSuffix "-" }}
{{- end -}}

{{- define "flopsd.fullname" -}}
{{- $name := include "flopsd.name" . -}}
{{- $whole := ternary .Release.Name (printf "%s-%s" .Release.Name $name) (contains $name .Release.Name) -}}
{{ .Values.fullnameOverride | default $whole | trunc 63 | trimSuffix "-" }}
{{- end -}}

{{- define "flopsd.namespace" -}}
{{ .Values.namespaceOverride | default .Release.Namespace }}
{{- end -}}

{{- define "flopsd.image" -}}
{{- if not .Values.image.repository -}}
{{- fail "image.repository is required: no image is published. docs/container.md builds one and pushes it to your registry" -}}
{{- else if .Values.image.digest -}}
{{ .Values.image.repository }}@{{ .Values.image.digest }}
{{- else -}}
{{ .Values.image.repository }}:{{ .Values.image.tag | default .Chart.AppVersion }}
{{- end -}}
{{- end -}}

{{- define "flopsd.selector" -}}
app.kubernetes.io/name: {{ include "flopsd.name" . | quote }}
app.kubernetes.io/instance: {{ .Release.Name | quote }}
{{- end -}}

{{/* {root: context; optional, for this object in addition to the common ones: name, namespace, labels, annotations}. */}}
{{- define "flopsd.metadata" -}}
{{- $own := dict
  "app.kubernetes.io/version" (.root.Chart.AppVersion | replace "+" "_")
  "app.kubernetes.io/managed-by" .root.Release.Service
  "helm.sh/chart" (printf "%s-%s" .root.Chart.Name .root.Chart.Version | replace "+" "_" | trunc 63) -}}
{{- $labels := merge (include "flopsd.selector" .root | fromYaml) $own (deepCopy (default dict .labels)) .root.Values.commonLabels -}}
name: {{ .name | default (include "flopsd.fullname" .root) | quote }}
namespace: {{ .namespace | default (include "flopsd.namespace" .root) | quote }}
labels:
  {{- toYaml $labels | nindent 2 }}
{{- with merge (deepCopy (default dict .annotations)) .root.Values.commonAnnotations }}
annotations:
  {{- toYaml . | nindent 2 }}
{{- end }}
{{- end -}}

{{- define "flopsd.serviceAccountName" -}}
{{ .Values.serviceAccount.name | default (ternary (include "flopsd.fullname" .) "default" .Values.serviceAccount.create) }}
{{- end -}}

{{/* A file of config/prometheus or config/grafana: {root: context, name: its path in the chart}. */}}
{{- define "flopsd.file" -}}
{{- with .root.Files.Get .name -}}
{{ . }}
{{- else -}}
{{- fail (printf "%s is missing: it is a symbolic link to a file of the checkout. Install from there, or from what `helm package` made" .name) -}}
{{- end -}}
{{- end -}}

{{- define "flopsd.args" -}}
{{ concat (list "run") .Values.extraArgs | toYaml }}
{{- end -}}

{{/* {root: context, asRoot: whether it needs root's files}. SYS_ADMIN is only for the MIG monitor. */}}
{{- define "flopsd.securityContext" -}}
{{- if or .asRoot .root.Values.gpu.migMonitor }}
runAsNonRoot: false
runAsUser: 0
runAsGroup: 0
{{- else }}
runAsNonRoot: true
runAsUser: 65532
runAsGroup: 65532
{{- end }}
allowPrivilegeEscalation: {{ .root.Values.gpu.migMonitor }}
readOnlyRootFilesystem: true
capabilities:
  drop: [ALL]
  {{- if .root.Values.gpu.migMonitor }}
  add: [SYS_ADMIN]
  {{- end }}
seccompProfile: {type: RuntimeDefault}
{{- end -}}

{{- define "flopsd.port" -}}
{{ .Values.listen | splitList ":" | last }}
{{- end -}}

{{- define "flopsd.commonMounts" -}}
- name: flopsd-state
  mountPath: /var/lib/flopsd
{{- if .Values.key.secretName }}
- name: flopsd-key
  mountPath: /etc/flopsd/key
  readOnly: true
{{- end }}
{{- if .Values.web.secretName }}
- name: flopsd-web
  mountPath: /etc/flopsd/web
  readOnly: true
{{- end }}
{{- if eq .Values.gpu.visibility "volume-mounts" }}
- name: flopsd-gpus
  mountPath: /var/run/nvidia-container-devices/all
{{- end }}
{{- with .Values.extraVolumeMounts }}
{{ toYaml . }}
{{- end }}
{{- end -}}

{{/* {root: context, asRoot: as above}. A Secret's files belong to root: another user can read only files that everybody may. */}}
{{- define "flopsd.commonVolumes" -}}
{{- $mode := ternary "0400" "0444" (or .asRoot .root.Values.gpu.migMonitor) }}
{{- range $name, $secret := dict "flopsd-key" .root.Values.key.secretName "flopsd-web" .root.Values.web.secretName }}
{{- with $secret }}
- name: {{ $name }}
  secret:
    secretName: {{ . | quote }}
    defaultMode: {{ $mode }}
{{- end }}
{{- end }}
{{- if eq .root.Values.gpu.visibility "volume-mounts" }}
- name: flopsd-gpus
  hostPath: {path: /dev/null}
{{- end }}
{{- with .root.Values.extraVolumes }}
{{ toYaml . }}
{{- end }}
{{- end -}}
