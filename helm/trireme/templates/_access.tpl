{{/* Who gets in: TLS of the gRPC port and of the streams between stages, API keys, tokens of an identity provider. */}}

{{- define "trireme.authenticates" -}}
{{- if or .Values.auth.keys.enabled .Values.auth.jwt.issuer (and .Values.tls.enabled .Values.tls.clientCa.existingSecret) }}true{{ end -}}
{{- end }}

{{- define "trireme.tlsSecret" -}}
{{- default (printf "%s-tls" (include "trireme.fullname" .)) .Values.tls.existingSecret -}}
{{- end }}

{{- define "trireme.stageTlsSecret" -}}
{{- default (printf "%s-stage-tls" (include "trireme.fullname" .)) .Values.tls.stages.existingSecret -}}
{{- end }}

{{- define "trireme.keysSecret" -}}
{{- default (printf "%s-keys" (include "trireme.fullname" .)) .Values.auth.keys.existingSecret -}}
{{- end }}

{{/* Where a plain key is, for the chart's own test and for the first steps. */}}
{{- define "trireme.clientSecret" -}}
{{- default (printf "%s-client" (include "trireme.fullname" .)) .Values.auth.keys.clientSecret -}}
{{- end }}

{{/* Names under which clients reach the coordinator: a JSON list. localhost is what a port-forward has. */}}
{{- define "trireme.tlsNames" -}}
{{- $name := include "trireme.fullname" . -}}
{{- $inside := list $name (printf "%s.%s" $name .Release.Namespace) (printf "%s.%s.svc" $name .Release.Namespace) (printf "%s.%s.svc.cluster.local" $name .Release.Namespace) "localhost" -}}
{{- concat $inside .Values.ingress.hosts .Values.gateway.hostnames .Values.tls.names | uniq | toJson -}}
{{- end }}

{{/* Settings of the coordinator about all of this; files are at the paths below. */}}
{{- define "trireme.accessSettings" -}}
{{- $v := .Values -}}
{{- if $v.tls.enabled }}
TRIREME_TLS_CERT: /etc/trireme/tls/tls.crt
TRIREME_TLS_KEY: /etc/trireme/tls/tls.key
{{- else }}
TRIREME_INSECURE_NO_TLS: "true"
{{- end }}
{{- if and $v.tls.enabled $v.tls.clientCa.existingSecret }}
TRIREME_TLS_CLIENT_CA: /etc/trireme/client-ca/ca.crt
{{- end }}
{{- if $v.tls.stages.enabled }}
TRIREME_STAGE_TLS_DIR: /etc/trireme/stage-tls
{{- else }}
TRIREME_INSECURE_NO_STAGE_TLS: "true"
{{- end }}
{{- if include "trireme.redisCa" . }}
TRIREME_REDIS_CA: /etc/trireme/redis-ca/ca.crt
{{- end }}
{{- if $v.auth.keys.enabled }}
TRIREME_KEYS: /etc/trireme/keys/keys.json
{{- end }}
{{- with $v.auth.jwt }}
{{- if .issuer }}
TRIREME_JWT_ISSUER: {{ .issuer | quote }}
TRIREME_JWT_AUDIENCE: {{ .audience | quote }}
TRIREME_JWT_ALGORITHMS: {{ join "," .algorithms }}
TRIREME_JWT_LEEWAY: {{ int64 .leewaySeconds | quote }}
TRIREME_JWT_TENANT_CLAIM: {{ .tenantClaim | quote }}
TRIREME_JWT_SCOPE_CLAIM: {{ .scopeClaim | quote }}
{{- end }}
{{- if and .issuer .jwksConfigMap }}
TRIREME_JWT_JWKS: /etc/trireme/jwks/jwks.json
{{- else if and .issuer .jwksUrl }}
TRIREME_JWT_JWKS: {{ .jwksUrl | quote }}
{{- end }}
{{- end }}
{{- if not (include "trireme.authenticates" .) }}
TRIREME_INSECURE_NO_AUTH: "true"
{{- end }}
TRIREME_QUOTA_REQUESTS: {{ int64 $v.auth.quota.requestsPerMinute | quote }}
TRIREME_QUOTA_TOKENS: {{ int64 $v.auth.quota.tokensPerMinute | quote }}
TRIREME_QUOTA_STREAMS: {{ int64 $v.auth.quota.streams | quote }}
TRIREME_REFLECTION: {{ $v.auth.reflection | quote }}
{{- if $v.auth.auditLog }}
TRIREME_AUDIT_LOG: "-"
{{- end }}
{{- end }}

{{/* Mounts of the coordinator, beside those that a worker has too. */}}
{{- define "trireme.accessMounts" -}}
{{- if .Values.tls.enabled }}
- {name: tls, mountPath: /etc/trireme/tls, readOnly: true}
{{- end }}
{{- if and .Values.tls.enabled .Values.tls.clientCa.existingSecret }}
- {name: client-ca, mountPath: /etc/trireme/client-ca, readOnly: true}
{{- end }}
{{- if .Values.auth.keys.enabled }}
- {name: keys, mountPath: /etc/trireme/keys, readOnly: true}
{{- end }}
{{- if and .Values.auth.jwt.issuer .Values.auth.jwt.jwksConfigMap }}
- {name: jwks, mountPath: /etc/trireme/jwks, readOnly: true}
{{- end }}
{{- end }}

{{- define "trireme.accessVolumes" -}}
{{- if .Values.tls.enabled }}
{{- include "trireme.pairVolume" (list "tls" (include "trireme.tlsSecret" .) (list "tls.crt" "tls.key")) }}
{{- end }}
{{- if and .Values.tls.enabled .Values.tls.clientCa.existingSecret }}
- name: client-ca
  secret:
    secretName: {{ .Values.tls.clientCa.existingSecret }}
    defaultMode: 0440
    items: [{key: {{ .Values.tls.clientCa.key }}, path: ca.crt}]
{{- end }}
{{- if .Values.auth.keys.enabled }}
- name: keys
  secret:
    secretName: {{ include "trireme.keysSecret" . }}
    defaultMode: 0440
    items: [{key: {{ .Values.auth.keys.key }}, path: keys.json}]
{{- end }}
{{- if and .Values.auth.jwt.issuer .Values.auth.jwt.jwksConfigMap }}
- {name: jwks, configMap: {name: {{ .Values.auth.jwt.jwksConfigMap }}, defaultMode: 0444}}
{{- end }}
{{- end }}

{{/* What coordinator and workers share: their own certificate, and who signed Redis'. */}}
{{- define "trireme.linkMounts" -}}
{{- if .Values.tls.stages.enabled }}
- {name: stage-tls, mountPath: /etc/trireme/stage-tls, readOnly: true}
{{- end }}
{{- if include "trireme.redisCa" . }}
- {name: redis-ca, mountPath: /etc/trireme/redis-ca, readOnly: true}
{{- end }}
{{- end }}

{{- define "trireme.linkVolumes" -}}
{{- if .Values.tls.stages.enabled }}
{{- include "trireme.pairVolume" (list "stage-tls" (include "trireme.stageTlsSecret" .) (list "ca.crt" "tls.crt" "tls.key")) }}
{{- end }}
{{- with include "trireme.redisCa" . | fromJson }}
{{- if .secret }}
- name: redis-ca
  secret:
    secretName: {{ .secret }}
    defaultMode: 0440
    items: [{key: {{ .key }}, path: ca.crt}]
{{- end }}
{{- end }}
{{- end }}

{{/* A secret as a volume; a renewed one appears in it, as no subPath is used. Takes (list name secret keys). */}}
{{- define "trireme.pairVolume" }}
- name: {{ index . 0 }}
  secret:
    secretName: {{ index . 1 }}
    defaultMode: 0440
    items:
      {{- range index . 2 }}
      - {key: {{ . }}, path: {{ . }}}
      {{- end }}
{{- end }}

{{/* Where the certificate is that signed Redis', as JSON; nothing where Redis has none of a private authority. */}}
{{- define "trireme.redisCa" -}}
{{- if and .Values.redis.embedded.enabled .Values.redis.embedded.tls -}}
{{- dict "secret" (printf "%s-redis-tls" (include "trireme.fullname" .)) "key" "ca.crt" | toJson -}}
{{- else if and (not .Values.redis.embedded.enabled) .Values.redis.external.caSecret -}}
{{- dict "secret" .Values.redis.external.caSecret "key" .Values.redis.external.caKey | toJson -}}
{{- end -}}
{{- end }}
