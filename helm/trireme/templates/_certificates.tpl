{{/* A certificate of an authority of its own, whose key is thrown away: takes (list $ secret names addresses days). */}}
{{- define "trireme.generatedTls" -}}
{{- $root := index . 0 -}}
{{- $secret := index . 1 -}}
{{- $names := index . 2 -}}
{{- $kept := dig "data" (dict) (lookup "v1" "Secret" $root.Release.Namespace $secret | default dict) }}
---
apiVersion: v1
kind: Secret
metadata:
  name: {{ $secret }}
  labels:
    {{- include "trireme.labels" $root | nindent 4 }}
type: kubernetes.io/tls
data:
  {{- if hasKey $kept "tls.key" }}
  {{- range $key := list "ca.crt" "tls.crt" "tls.key" }}
  {{ $key }}: {{ index $kept $key | quote }}
  {{- end }}
  {{- else }}
  {{- $ca := genCAWithKey (printf "%s-ca" $secret) (index . 4) (genPrivateKey "ecdsa") }}
  {{- $made := genSignedCertWithKey (first $names) (index . 3) $names (index . 4) $ca (genPrivateKey "ecdsa") }}
  ca.crt: {{ $ca.Cert | b64enc | quote }}
  tls.crt: {{ $made.Cert | b64enc | quote }}
  tls.key: {{ $made.Key | b64enc | quote }}
  {{- end }}
{{- end }}

{{/* The same by cert-manager, which renews it; the server reads it anew. Takes (list $ secret names addresses). */}}
{{- define "trireme.certificate" -}}
{{- $root := index . 0 -}}
{{- $manager := $root.Values.tls.certManager }}
---
apiVersion: cert-manager.io/v1
kind: Certificate
metadata:
  name: {{ index . 1 }}
  labels:
    {{- include "trireme.labels" $root | nindent 4 }}
spec:
  secretName: {{ index . 1 }}
  duration: {{ $manager.duration }}
  renewBefore: {{ $manager.renewBefore }}
  privateKey: {algorithm: ECDSA, size: 256, rotationPolicy: Always}
  usages: [digital signature, server auth, client auth]
  dnsNames:
    {{- toYaml (index . 2) | nindent 4 }}
  {{- with index . 3 }}
  ipAddresses:
    {{- toYaml . | nindent 4 }}
  {{- end }}
  issuerRef:
    {{- toYaml $manager.issuerRef | nindent 4 }}
{{- end }}
