{{/* All variables: the pod's first and extraEnv next, so that settings can use them by $(NAME).
     {root: context, form: "sidecar" or "node"}. */}}
{{- define "flopsd.env" -}}
{{- $fields := list -}}
{{- $settings := list -}}
{{- range fromYamlArray (printf "%s\n%s" (include "flopsd.commonEnv" .root | trim) (include (printf "flopsd.%sEnv" .form) .root | trim)) -}}
  {{- if .valueFrom }}{{ $fields = append $fields . }}{{ else }}{{ $settings = append $settings . }}{{ end -}}
{{- end -}}
{{- $all := concat $fields .root.Values.extraEnv $settings -}}
{{- $names := list -}}
{{- range $all -}}
  {{- if has .name $names }}{{ fail (printf "extraEnv: %s is set by other values too" .name) }}{{ end -}}
  {{- $names = append $names .name -}}
{{- end -}}
{{ toYaml $all }}
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
{{- /* Training pods mount neither state nor key, and the ledger states this. */}}
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
{{- if .Values.web.secretName }}
- name: FLOPSD_WEB_CONFIG_FILE
  value: {{ printf "/etc/flopsd/web/%s" .Values.web.file | quote }}
{{- end }}
{{- end -}}

{{- define "flopsd.sidecarEnv" -}}
{{- with .Values.sidecar }}
{{- if .jobLabels.name }}
- name: JOB_NAME
  valueFrom: {fieldRef: {fieldPath: "metadata.labels['{{ .jobLabels.name }}']"}}
{{- end }}
{{- if .jobLabels.uid }}
- name: JOB_UID
  valueFrom: {fieldRef: {fieldPath: "metadata.labels['{{ .jobLabels.uid }}']"}}
{{- end }}
{{- if .indexLabel }}
- name: JOB_COMPLETION_INDEX
  valueFrom: {fieldRef: {fieldPath: "metadata.labels['{{ .indexLabel }}']"}}
{{- end }}
{{- if .instanceType }}
- name: INSTANCE_TYPE
  value: {{ .instanceType | quote }}
{{- end }}
- name: FLOPSD_DEVICES
  value: {{ .devices | quote }}
- name: FLOPSD_CLIENT_SOCKET
  value: /run/flopsd/client.sock
{{- if .clientUids }}
- name: FLOPSD_CLIENT_UIDS
  {{- $uids := list }}
  {{- range .clientUids }}{{ $uids = append $uids (int64 . | toString) }}{{ end }}
  value: {{ join "," $uids | quote }}
{{- end }}
{{- end }}
{{- with .Values.ledgerCopy.sidecar }}
- name: FLOPSD_LEDGER_COPY
  value: {{ . | quote }}
{{- end }}
{{- end -}}

{{- define "flopsd.nodeEnv" -}}
- name: NODE_NAME
  valueFrom: {fieldRef: {fieldPath: spec.nodeName}}
- name: FLOPSD_DEVICES
  value: all
- name: FLOPSD_CLIENT_SOCKET
  value: "off"
- name: FLOPSD_RUN_ID
  value: $(NODE_NAME)
{{- with .Values.ledgerCopy.node }}
- name: FLOPSD_LEDGER_COPY
  value: {{ . | quote }}
{{- end }}
{{- end -}}
