{{/*
What a chart with a training pod includes, with flopsd among its dependencies; docs/kubernetes.md shows where:

  flopsd.podLabels            below the pod's metadata.labels
  flopsd.sidecar              below initContainers
  flopsd.trainerEnv           below the trainer's env
  flopsd.trainerVolumeMounts  below the trainer's volumeMounts
  flopsd.volumes              below volumes

Each takes the chart's own context: include "flopsd.sidecar" .Subcharts.flopsd
*/}}
{{- define "flopsd.podLabels" -}}
flopsd/meter: sidecar
{{- end -}}

{{- define "flopsd.sidecar" -}}
- name: flopsd
  image: {{ include "flopsd.image" . }}
  imagePullPolicy: {{ .Values.image.pullPolicy }}
  restartPolicy: Always
  args: [run]
  env:
    {{- include "flopsd.commonEnv" . | trim | nindent 4 }}
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
    {{- with $.Values.ledgerCopy.sidecar }}
    - name: FLOPSD_LEDGER_COPY
      value: {{ . | quote }}
    {{- end }}
    {{- with .env }}
    {{- toYaml . | nindent 4 }}
    {{- end }}
    {{- end }}
  ports:
    - name: flopsd
      containerPort: {{ include "flopsd.port" . }}
      protocol: TCP
  resources:
    {{- toYaml .Values.sidecar.resources | nindent 4 }}
  securityContext:
    {{- include "flopsd.securityContext" (dict "root" . "asRoot" (eq .Values.sidecar.devices "pod")) | trim | nindent 4 }}
  volumeMounts:
    {{- include "flopsd.commonMounts" . | trim | nindent 4 }}
    - name: flopsd-socket
      mountPath: /run/flopsd
    {{- if eq .Values.sidecar.devices "pod" }}
    - name: flopsd-pod-resources
      mountPath: /var/lib/kubelet/pod-resources
      readOnly: true
    {{- end }}
{{- end -}}

{{- define "flopsd.trainerEnv" -}}
- name: FLOPSD_SOCKET
  value: /run/flopsd/client.sock
{{- end -}}

{{- define "flopsd.trainerVolumeMounts" -}}
- name: flopsd-socket
  mountPath: /run/flopsd
  readOnly: true
{{- end -}}

{{- define "flopsd.volumes" -}}
- name: flopsd-state
  emptyDir: {}
- name: flopsd-socket
  emptyDir: {}
{{- if eq .Values.sidecar.devices "pod" }}
- name: flopsd-pod-resources
  hostPath: {path: /var/lib/kubelet/pod-resources, type: Directory}
{{- end }}
{{- with include "flopsd.commonVolumes" (dict "root" . "asRoot" (eq .Values.sidecar.devices "pod")) | trim }}
{{ . }}
{{- end }}
{{- end -}}
