{{/* What a schema cannot say: values that contradict each other are refused with a sentence. */}}
{{- define "trireme.checks" -}}
{{- $v := .Values -}}
{{- if and (ne $v.model.source "bundled") (eq $v.model.shape "tiny") -}}
{{- fail "model.shape is tiny, the bundled model's: give the shape of your own model, or custom with model.custom." -}}
{{- end -}}
{{- if and (eq $v.model.source "bundled") (ne $v.model.shape "tiny") -}}
{{- fail "model.source is bundled, so that model.shape must be tiny." -}}
{{- end -}}
{{- if and (ne $v.model.source "bundled") (contains ".." $v.model.path) -}}
{{- fail "model.path must not contain '..'." -}}
{{- end -}}
{{- $shape := include "trireme.shape" . | fromJson -}}
{{- if gt (include "trireme.stages" . | int64) (int64 $shape.layers) -}}
{{- fail (printf "%s stages are not possible: the model has %d layers, and a stage takes at least one. Lower workers.replicas or coordinator.stages." (include "trireme.stages" .) (int64 $shape.layers)) -}}
{{- end -}}
{{- if lt (include "trireme.stages" . | int64) (include "trireme.workerPods" . | int64) -}}
{{- fail (printf "coordinator.stages is %d, but there are %s workers: some would stay without a stage." (int64 $v.coordinator.stages) (include "trireme.workerPods" .)) -}}
{{- end -}}
{{- if and $v.redis.embedded.enabled $v.redis.external.existingSecret -}}
{{- fail "redis.external.existingSecret is given, so that redis.embedded.enabled must be false." -}}
{{- end -}}
{{- if not (or $v.redis.embedded.enabled $v.redis.external.existingSecret) -}}
{{- fail "There is no Redis: give redis.external.existingSecret, or set redis.embedded.enabled." -}}
{{- end -}}
{{- $open := or $v.ingress.enabled $v.gateway.enabled (ne $v.service.type "ClusterIP") -}}
{{- if and $open (not $v.allowUnauthenticated) -}}
{{- fail "An ingress, a gateway, or a service of another type than ClusterIP would let anybody who reaches it use the model: there is no authentication on the gRPC port yet. If that is what you want, set allowUnauthenticated." -}}
{{- end -}}
{{- if and $open $v.networkPolicy.enabled (not $v.networkPolicy.clients) -}}
{{- fail "An ingress, a gateway, or a service of another type than ClusterIP needs networkPolicy.clients, else its controller cannot reach the coordinator." -}}
{{- end -}}
{{- $names := list -}}
{{- range (include "trireme.groups" . | fromJsonArray) -}}
{{- if has .name $names -}}
{{- fail (printf "workers.groups has two groups named %s." .name) -}}
{{- end -}}
{{- $names = append $names .name -}}
{{- end -}}
{{- end }}
