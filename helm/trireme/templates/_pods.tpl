{{/* What all pods have in common. */}}

{{- define "trireme.podSecurity" -}}
runAsNonRoot: true
runAsUser: 10001
runAsGroup: 10001
fsGroup: 10001
fsGroupChangePolicy: OnRootMismatch
seccompProfile: {type: RuntimeDefault}
{{- end }}

{{- define "trireme.containerSecurity" -}}
allowPrivilegeEscalation: false
readOnlyRootFilesystem: true
runAsNonRoot: true
capabilities: {drop: [ALL]}
{{- end }}

{{/* Head of every pod's spec. Takes (list $ selector tolerations). */}}
{{- define "trireme.podHead" -}}
{{- $root := index . 0 -}}
serviceAccountName: {{ include "trireme.serviceAccount" $root }}
automountServiceAccountToken: false
enableServiceLinks: false
securityContext:
  {{- include "trireme.podSecurity" $root | nindent 2 }}
{{- with $root.Values.image.pullSecrets }}
imagePullSecrets:
  {{- toYaml . | nindent 2 }}
{{- end }}
{{- with $root.Values.priorityClassName }}
priorityClassName: {{ . }}
{{- end }}
{{- with merge (dict) (index . 1) $root.Values.nodeSelector }}
nodeSelector:
  {{- toYaml . | nindent 2 }}
{{- end }}
{{- with concat $root.Values.tolerations (index . 2) }}
tolerations:
  {{- toYaml . | nindent 2 }}
{{- end }}
{{- end }}

{{/* Image and security of a container. */}}
{{- define "trireme.container" -}}
image: {{ include "trireme.image" . | quote }}
imagePullPolicy: {{ .Values.image.pullPolicy }}
securityContext:
  {{- include "trireme.containerSecurity" . | nindent 2 }}
{{- end }}

{{/* Annotations of a pod: what it is told starts it anew when it changes, and nothing else does. Takes (list $ file...). */}}
{{- define "trireme.podAnnotations" -}}
{{- $root := index . 0 -}}
{{- $told := "" -}}
{{- range rest . -}}
{{- $told = print $told (include (print $root.Template.BasePath "/" .) $root) -}}
{{- end -}}
checksum/config: {{ sha256sum $told }}
{{- with $root.Values.podAnnotations }}
{{ toYaml . }}
{{- end }}
{{- end }}

{{- define "trireme.packPath" -}}
{{- if ne .Values.model.source "bundled" -}}
{{- clean (printf "/models/%s" .Values.model.path) -}}
{{- end -}}
{{- end }}

{{- define "trireme.modelMount" -}}
{{- if ne .Values.model.source "bundled" }}
- {name: models, mountPath: /models, readOnly: true}
{{- end }}
{{- end }}

{{- define "trireme.modelVolume" -}}
{{- with .Values.model }}
{{- if eq .source "claim" }}
- {name: models, persistentVolumeClaim: {claimName: {{ .claim }}, readOnly: true}}
{{- else if eq .source "hostPath" }}
- {name: models, hostPath: {path: {{ .hostPath | quote }}, type: Directory}}
{{- else if and (eq .source "fetch") .fetch.claim }}
- {name: models, persistentVolumeClaim: {claimName: {{ .fetch.claim }}}}
{{- else if eq .source "fetch" }}
- {name: models, emptyDir: {}}
{{- end }}
{{- end }}
{{- end }}

{{/* Init container that brings the pack and checks its hashes. */}}
{{- define "trireme.fetch" -}}
{{- if eq .Values.model.source "fetch" }}
- name: fetch
  {{- include "trireme.container" . | nindent 2 }}
  command: [trireme, fetch]
  args: [{{ .Values.model.fetch.url | quote }}, {{ include "trireme.packPath" . | quote }}]
  env:
    - {name: HOME, value: /tmp}
  {{- with .Values.model.fetch.existingSecret }}
  envFrom:
    - secretRef: {name: {{ . }}}
  {{- end }}
  resources:
    requests: {cpu: "1", memory: 512Mi}
    limits: {cpu: "1", memory: 512Mi}
  volumeMounts:
    - {name: models, mountPath: /models}
    - {name: tmp, mountPath: /tmp}
{{- end }}
{{- end }}
