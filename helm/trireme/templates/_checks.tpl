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
{{- if and $v.redis.embedded.tls (not $v.redis.embedded.image.repository) -}}
{{- fail "redis.embedded.tls needs redis.embedded.image: the Valkey of Trireme's own image speaks no TLS." -}}
{{- end -}}
{{- if and $v.redis.embedded.image.repository (not (or $v.redis.embedded.image.tag $v.redis.embedded.image.digest)) -}}
{{- fail "redis.embedded.image needs a tag or a digest." -}}
{{- end -}}
{{- if and $v.redis.embedded.persistence.enabled (lt (include "trireme.diskMi" $v.redis.embedded.persistence.size | int64) (div (mul (int64 $v.coordinator.kvStoreGb) 1500000000) 1048576)) -}}
{{- fail (printf "redis.embedded.persistence.size is %s; with coordinator.kvStoreGb it has to hold half as much again." $v.redis.embedded.persistence.size) -}}
{{- end -}}
{{- if not (or (include "trireme.authenticates" .) $v.allowUnauthenticated) -}}
{{- fail "Nobody would be asked who they are: enable auth.keys, or give auth.jwt.issuer. If everybody who reaches the gRPC port may use the model, set allowUnauthenticated." -}}
{{- end -}}
{{- if and $v.tls.enabled (not $v.metrics.enabled) -}}
{{- fail "tls.enabled needs metrics.enabled: the kubelet's own gRPC probes know no TLS, so that they ask the port of the metrics." -}}
{{- end -}}
{{- $open := or $v.ingress.enabled $v.gateway.enabled (ne $v.service.type "ClusterIP") -}}
{{- if and $open (not $v.tls.enabled) (not $v.allowUnauthenticated) -}}
{{- fail "An ingress, a gateway, or a service of another type than ClusterIP would carry keys in the clear to the coordinator: set tls.enabled." -}}
{{- end -}}
{{- if and $v.tests.enabled $v.auth.keys.existingSecret (not $v.auth.keys.clientSecret) -}}
{{- fail "auth.keys.existingSecret has hashes alone: the chart's own test needs a plain key in auth.keys.clientSecret, or set tests.enabled to false." -}}
{{- end -}}
{{- if and $v.tests.enabled (not $v.auth.keys.enabled) $v.auth.jwt.issuer (not $v.allowUnauthenticated) -}}
{{- fail "With tokens of an identity provider alone the chart's own test has none: set tests.enabled to false." -}}
{{- end -}}
{{- if and $v.tests.enabled $v.tls.enabled $v.tls.clientCa.existingSecret (not $v.tests.tlsSecret) -}}
{{- fail "With tls.clientCa the chart's own test needs a certificate too: give tests.tlsSecret, or set tests.enabled to false." -}}
{{- end -}}
{{- with $v.workers.autoscaling -}}
{{- if and .enabled (or $v.workers.groups $v.ray.kuberay.enabled) -}}
{{- fail "workers.autoscaling works with neither workers.groups nor ray.kuberay." -}}
{{- end -}}
{{- if and .enabled (lt (int64 .maxReplicas) (int64 $v.workers.replicas)) -}}
{{- fail "workers.autoscaling.maxReplicas is less than workers.replicas." -}}
{{- end -}}
{{- if and .enabled (eq .by "keda") (not .prometheus) -}}
{{- fail "workers.autoscaling by keda needs the URL of Prometheus: workers.autoscaling.prometheus." -}}
{{- end -}}
{{- if and .enabled (not $v.metrics.enabled) -}}
{{- fail "workers.autoscaling needs metrics.enabled." -}}
{{- end -}}
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
