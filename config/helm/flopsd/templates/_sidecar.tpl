{{/*
Templates for a chart with a training pod that has flopsd among its dependencies; docs/kubernetes.md shows an example:

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
  image: {{ include "flopsd.image" . | quote }}
  imagePullPolicy: {{ .Values.image.pullPolicy }}
  restartPolicy: Always
  args:
    {{- include "flopsd.args" . | nindent 4 }}
  env:
    {{- include "flopsd.env" (dict "root" . "form" "sidecar") | nindent 4 }}
  {{- with .Values.envFrom }}
  envFrom:
    {{- toYaml . | nindent 4 }}
  {{- end }}
  ports:
    - name: flopsd
      containerPort: {{ include "flopsd.port" . }}
      protocol: TCP
  resources:
    {{- toYaml .Values.resources | nindent 4 }}
  terminationMessagePolicy: FallbackToLogsOnError
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
  hostPath: {path: {{ .Values.sidecar.kubeletPath | quote }}, type: Directory}
{{- end }}
{{- with include "flopsd.commonVolumes" (dict "root" . "asRoot" (eq .Values.sidecar.devices "pod")) | trim }}
{{ . }}
{{- end }}
{{- end -}}
