{{- define "flopsd.image" -}}
{{- if .Values.image.digest -}}
{{ .Values.image.repository }}@{{ .Values.image.digest }}
{{- else -}}
{{ .Values.image.repository }}:{{ .Values.image.tag | default .Chart.AppVersion }}
{{- end -}}
{{- end -}}

{{- define "flopsd.labels" -}}
app.kubernetes.io/name: flopsd
app.kubernetes.io/instance: {{ .Release.Name }}
app.kubernetes.io/version: {{ .Chart.AppVersion | quote }}
app.kubernetes.io/managed-by: {{ .Release.Service }}
helm.sh/chart: {{ printf "%s-%s" .Chart.Name .Chart.Version }}
{{- end -}}

{{- define "flopsd.selector" -}}
app.kubernetes.io/name: flopsd
app.kubernetes.io/instance: {{ .Release.Name }}
{{- end -}}

{{- define "flopsd.serviceAccountName" -}}
{{ .Values.serviceAccount.name | default (ternary "flopsd" "default" .Values.serviceAccount.create) }}
{{- end -}}

{{/* The settings of both forms. */}}
{{- define "flopsd.commonEnv" -}}
- name: POD_NAME
  valueFrom: {fieldRef: {fieldPath: metadata.name}}
- name: POD_NAMESPACE
  valueFrom: {fieldRef: {fieldPath: metadata.namespace}}
{{- range $flag, $value := merge dict .Values.settings .Values.sourceOptions }}
- name: FLOPSD_{{ $flag | replace "-" "_" | upper }}
  value: {{ $value | toString | quote }}
{{- end }}
{{- if eq .Values.gpu.visibility "env" }}
- name: NVIDIA_VISIBLE_DEVICES
  value: all
{{- else }}
- name: NVIDIA_VISIBLE_DEVICES
  value: /var/run/nvidia-container-devices
{{- end }}
- name: NVIDIA_DRIVER_CAPABILITIES
  value: utility
{{- if .Values.gpu.migMonitor }}
- name: NVIDIA_MIG_MONITOR_DEVICES
  value: all
{{- end }}
- name: FLOPSD_WAIT_FOR_SOURCE
  value: "true"
- name: FLOPSD_LISTEN
  value: {{ .Values.listen | quote }}
- name: FLOPSD_STATE_DIR
  value: /var/lib/flopsd
{{- /* Pods that train mount neither state nor key, and the ledger says so. */}}
- name: FLOPSD_JOB_USER
  value: container
- name: FLOPSD_STOP_WITHIN
  value: {{ .Values.stopWithinSeconds | quote }}
{{- if .Values.key.uri }}
- name: FLOPSD_KEY
  value: {{ .Values.key.uri | quote }}
{{- else if .Values.key.secretName }}
- name: FLOPSD_KEY
  value: /etc/flopsd/key/key.pem
{{- end }}
{{- end -}}

{{/* {root: context, asRoot: whether it needs root's files}. SYS_ADMIN is for the MIG monitor alone. */}}
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
{{- if eq .Values.gpu.visibility "volume-mounts" }}
- name: flopsd-gpus
  mountPath: /var/run/nvidia-container-devices/all
{{- end }}
{{- with .Values.extraVolumeMounts }}
{{ toYaml . }}
{{- end }}
{{- end -}}

{{/* {root: context, asRoot: as above}. Files of a Secret are root's: another user reads what everybody may. */}}
{{- define "flopsd.commonVolumes" -}}
{{- if .root.Values.key.secretName }}
- name: flopsd-key
  secret:
    secretName: {{ .root.Values.key.secretName | quote }}
    defaultMode: {{ ternary "0400" "0444" (or .asRoot .root.Values.gpu.migMonitor) }}
{{- end }}
{{- if eq .root.Values.gpu.visibility "volume-mounts" }}
- name: flopsd-gpus
  hostPath: {path: /dev/null}
{{- end }}
{{- with .root.Values.extraVolumes }}
{{ toYaml . }}
{{- end }}
{{- end -}}
