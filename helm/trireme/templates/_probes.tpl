{{/* Probes of the coordinator. Kubernetes' own gRPC probes know no TLS: the port of the metrics answers them where it is
     open. Ready means that requests can be served: it says no while a stage is being replaced, to one that stands by, and
     where there is work and no step comes to an end. */}}
{{- define "trireme.coordinatorProbes" -}}
# It listens once the stages are loaded, checked and compiled and a token has come through all of them.
startupProbe:
  tcpSocket: {port: grpc}
  periodSeconds: 5
  failureThreshold: {{ max 1 (div (int64 .Values.coordinator.startupSeconds) 5) }}
livenessProbe:  # answers also while a stage is being replaced, which a restart would only delay
  {{- if .Values.metrics.enabled }}
  httpGet: {path: /healthz, port: metrics}
  {{- else }}
  grpc: {port: 50051, service: liveness}
  {{- end }}
  periodSeconds: 10
  timeoutSeconds: 5
  failureThreshold: 6
readinessProbe:
  {{- if .Values.metrics.enabled }}
  httpGet: {path: /readyz, port: metrics}
  {{- else }}
  grpc: {port: 50051}
  {{- end }}
  periodSeconds: 2
  timeoutSeconds: 2
  failureThreshold: 2
{{- end }}
