{{/* Names and labels. A StatefulSet gives its pods its name and a hash as a label: 52 characters at most for the name. */}}
{{- define "trireme.name" -}}
{{- default .Chart.Name .Values.nameOverride | trunc 40 | trimSuffix "-" -}}
{{- end }}

{{- define "trireme.fullname" -}}
{{- if .Values.fullnameOverride -}}
{{- .Values.fullnameOverride | trunc 32 | trimSuffix "-" -}}
{{- else if contains (include "trireme.name" .) .Release.Name -}}
{{- .Release.Name | trunc 32 | trimSuffix "-" -}}
{{- else -}}
{{- printf "%s-%s" .Release.Name (include "trireme.name" .) | trunc 32 | trimSuffix "-" -}}
{{- end -}}
{{- end }}

{{- define "trireme.selector" -}}
app.kubernetes.io/name: {{ include "trireme.name" . }}
app.kubernetes.io/instance: {{ .Release.Name }}
{{- end }}

{{- define "trireme.labels" -}}
helm.sh/chart: {{ printf "%s-%s" .Chart.Name .Chart.Version }}
app.kubernetes.io/version: {{ .Chart.AppVersion | quote }}
app.kubernetes.io/managed-by: {{ .Release.Service }}
{{ include "trireme.selector" . }}
{{- end }}

{{- define "trireme.serviceAccount" -}}
{{- if .Values.serviceAccount.create -}}
{{- default (include "trireme.fullname" .) .Values.serviceAccount.name -}}
{{- else -}}
{{- default "default" .Values.serviceAccount.name -}}
{{- end -}}
{{- end }}

{{- define "trireme.image" -}}
{{- if .Values.image.digest -}}
{{- printf "%s@%s" .Values.image.repository .Values.image.digest -}}
{{- else -}}
{{- printf "%s:%s" .Values.image.repository (default .Chart.AppVersion .Values.image.tag) -}}
{{- end -}}
{{- end }}

{{- define "trireme.authSecret" -}}
{{ include "trireme.fullname" . }}-auth
{{- end }}

{{- define "trireme.rayHost" -}}
{{- if .Values.ray.kuberay.enabled -}}
{{ include "trireme.fullname" . }}-head-svc
{{- else -}}
{{ include "trireme.fullname" . }}-ray-head
{{- end -}}
{{- end }}
