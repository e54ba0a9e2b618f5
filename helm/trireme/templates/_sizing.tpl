{{/* How many stages, threads and bytes. The formula of a worker's memory is described in helm/README.md. */}}

{{/* Groups of workers as a JSON list: each has all keys, those that it does not give come from `workers`. */}}
{{- define "trireme.groups" -}}
{{- $common := omit .Values.workers "groups" "podDisruptionBudget" "autoscaling" -}}
{{- $groups := list -}}
{{- range (default (list (dict "name" "worker")) .Values.workers.groups) -}}
{{- $group := deepCopy . -}}
{{- range $key, $value := $common -}}
{{- if not (hasKey $group $key) -}}
{{- $_ := set $group $key $value -}}
{{- end -}}
{{- end -}}
{{- $groups = append $groups $group -}}
{{- end -}}
{{- toJson $groups -}}
{{- end }}

{{- define "trireme.workerPods" -}}
{{- $pods := 0 -}}
{{- range (include "trireme.groups" . | fromJsonArray) -}}
{{- $pods = add $pods (int64 .replicas) -}}
{{- end -}}
{{- $pods -}}
{{- end }}

{{- define "trireme.stages" -}}
{{- default (include "trireme.workerPods" . | int64) (int64 .Values.coordinator.stages) -}}
{{- end }}

{{- define "trireme.stagesPerPod" -}}
{{- $pods := include "trireme.workerPods" . | int64 -}}
{{- div (add (include "trireme.stages" . | int64) $pods -1) $pods -}}
{{- end }}

{{/* Kernel threads of a stage: the CPUs of the smallest worker, shared by its stages. */}}
{{- define "trireme.threads" -}}
{{- $least := 1024 -}}
{{- range (include "trireme.groups" . | fromJsonArray) -}}
{{- $least = min $least (int64 .cpu) -}}
{{- end -}}
{{- default (max 1 (div $least (include "trireme.stagesPerPod" . | int64))) (int64 .Values.coordinator.threads) -}}
{{- end }}

{{/* Sizes of the model, bytes. */}}
{{- define "trireme.shape" -}}
{{- if eq .Values.model.shape "custom" -}}
{{- toJson .Values.model.custom -}}
{{- else -}}
{{- .Files.Get "files/shapes.yaml" | fromYaml | dig .Values.model.shape (dict) | toJson -}}
{{- end -}}
{{- end }}

{{- define "trireme.kvTokens" -}}
{{- $shape := include "trireme.shape" . | fromJson -}}
{{- default (max (mul 8 (int64 $shape.context)) 16384) (int64 .Values.coordinator.kvTokens) -}}
{{- end }}

{{/* Bytes of keys and values of a token in a layer. */}}
{{- define "trireme.kvBytes" -}}
{{- $shape := include "trireme.shape" . | fromJson -}}
{{- $width := mul 32 (div (add (int64 $shape.headDim) 31) 32) -}}
{{- $elements := mul 2 (int64 $shape.kvHeads) $width -}}
{{- if eq .Values.coordinator.kvDtype "float32" -}}
{{- mul 4 $elements -}}
{{- else if eq .Values.coordinator.kvDtype "float16" -}}
{{- mul 2 $elements -}}
{{- else -}}
{{- add $elements (mul 8 (int64 $shape.kvHeads)) -}}
{{- end -}}
{{- end }}

{{/* Most layers of a stage. The head counts as layers of the last one, so that the others get more than an even part;
     where it is more than such a part, the last one gets a single layer and the others share the rest. */}}
{{- define "trireme.layersPerStage" -}}
{{- $shape := include "trireme.shape" . | fromJson -}}
{{- $stages := include "trireme.stages" . | int64 -}}
{{- $layer := int64 $shape.layerBytes -}}
{{- $layers := int64 $shape.layers -}}
{{- $total := add (mul $layers $layer) (int64 $shape.headBytes) -}}
{{- $even := div (add $total (mul $stages $layer) -1) (mul $stages $layer) -}}
{{- if eq $stages 1 -}}
{{- $layers -}}
{{- else if gt (add (int64 $shape.headBytes) $layer) (mul $even $layer) -}}
{{- div (add $layers $stages -3) (sub $stages 1) -}}
{{- else -}}
{{- min $layers $even -}}
{{- end -}}
{{- end }}

{{/* Memory of a worker pod, MiB. */}}
{{- define "trireme.workerMiB" -}}
{{- $shape := include "trireme.shape" . | fromJson -}}
{{- $stages := include "trireme.stages" . | int64 -}}
{{- $perPod := include "trireme.stagesPerPod" . | int64 -}}
{{- $layers := min (int64 $shape.layers) (mul $perPod (include "trireme.layersPerStage" . | int64)) -}}
{{- $layer := add (int64 $shape.layerBytes) (mul (include "trireme.kvTokens" . | int64) (include "trireme.kvBytes" . | int64)) -}}
{{- $process := mul $perPod 400000000 -}}
{{- $ray := 900000000 -}}
{{- $bytes := add (mul $layers $layer) (int64 $shape.embeddingBytes) (int64 $shape.headBytes) $process $ray -}}
{{- div (add (div (mul $bytes 105) 100) 1048575) 1048576 -}}
{{- end }}

{{/* How fast an autoscaler may go: a worker that goes away makes the pipeline pause, one that comes does not. */}}
{{- define "trireme.scaling" -}}
scaleUp:
  stabilizationWindowSeconds: 60
  policies: [{type: Pods, value: 1, periodSeconds: 60}]
scaleDown:
  stabilizationWindowSeconds: {{ int64 .Values.workers.autoscaling.cooldownSeconds }}
  policies: [{type: Pods, value: 1, periodSeconds: 300}]
{{- end }}

{{/* Memory of the embedded session store, MiB: what is asked for, and half as much again as the KV pages in it. */}}
{{- define "trireme.redisMiB" -}}
{{- $given := .Values.redis.embedded.memory | trimSuffix "Gi" | int64 | mul 1024 -}}
{{- add $given (div (mul (int64 .Values.coordinator.kvStoreGb) 1500000000) 1048576) -}}
{{- end }}

{{/* A size such as 8Gi in MiB. */}}
{{- define "trireme.diskMi" -}}
{{- $number := regexFind "^[0-9]+" . | int64 -}}
{{- mul $number (get (dict "Mi" 1 "Gi" 1024 "Ti" 1048576) (regexFind "[MGT]i$" .)) -}}
{{- end }}
