{{/* Pods of the Ray cluster: the head, the workers, and the node beside the coordinator through which it drives Ray. */}}

{{- define "trireme.rayEnv" -}}
- {name: POD_IP, valueFrom: {fieldRef: {fieldPath: status.podIP}}}
- {name: POD_NAME, valueFrom: {fieldRef: {fieldPath: metadata.name}}}
- {name: HOME, value: /tmp}
{{- end }}

{{- define "trireme.rayEnvFrom" -}}
- configMapRef: {name: {{ include "trireme.fullname" . }}-ray}
{{- end }}

{{- define "trireme.rayMounts" -}}
- {name: ray-auth, mountPath: /etc/trireme/ray-auth, readOnly: true}
- {name: ray, mountPath: /var/lib/ray}
- {name: shm, mountPath: /dev/shm}
- {name: tmp, mountPath: /tmp}
{{- end }}

{{- define "trireme.rayVolumes" -}}
- name: ray-auth
  secret:
    secretName: {{ default (include "trireme.authSecret" .) .Values.ray.auth.existingSecret }}
    defaultMode: 0440
    items:
      - {key: {{ .Values.ray.auth.key }}, path: token}
- {name: ray, emptyDir: {sizeLimit: 2Gi}}
- {name: shm, emptyDir: {medium: Memory, sizeLimit: {{ include "trireme.shmMi" . }}Mi}}
- {name: tmp, emptyDir: {sizeLimit: 1Gi}}
{{- end }}

{{- define "trireme.shmMi" -}}
{{- add 16 (.Values.ray.objectStore | trimSuffix "Mi" | int64) -}}
{{- end }}

{{- define "trireme.objectStoreBytes" -}}
{{- mul 1048576 (.Values.ray.objectStore | trimSuffix "Mi" | int64) -}}
{{- end }}

{{/* Arguments of `ray start` that all nodes share. Takes (list $ cpus). */}}
{{- define "trireme.rayArgs" -}}
- --block
- --node-ip-address=$(POD_IP)
- --node-name=$(POD_NAME)
- --node-manager-port=6380
- --num-cpus={{ index . 1 }}
- --object-store-memory={{ include "trireme.objectStoreBytes" (index . 0) }}
- --temp-dir=/var/lib/ray
- --disable-usage-stats
- --log-color=false
{{- end }}

{{/* Waits until the head answers; with a wrong token it never does, and the log says so. */}}
{{- define "trireme.waitForRay" -}}
- name: wait-for-ray
  {{- include "trireme.container" . | nindent 2 }}
  command: [sh, -c]
  args:
    - until ray health-check --address={{ include "trireme.rayHost" . }}:6379 2> /tmp/ray-health; do echo "Waiting for the Ray head, $(tail -n 1 /tmp/ray-health)"; sleep 2; done
  env:
    {{- include "trireme.rayEnv" . | nindent 4 }}
  envFrom:
    {{- include "trireme.rayEnvFrom" . | nindent 4 }}
  resources:
    requests: {cpu: 500m, memory: 512Mi}
    limits: {cpu: 500m, memory: 512Mi}
  volumeMounts:
    - {name: ray-auth, mountPath: /etc/trireme/ray-auth, readOnly: true}
    - {name: tmp, mountPath: /tmp}
{{- end }}

{{/* Probes of the head. Takes the root. */}}
{{- define "trireme.headProbes" -}}
startupProbe:
  exec: {command: [sh, -c, 'exec ray health-check --address="$POD_IP:6379"']}
  periodSeconds: 10
  timeoutSeconds: 20
  failureThreshold: 30
livenessProbe:
  exec: {command: [sh, -c, 'exec ray health-check --address="$POD_IP:6379"']}
  periodSeconds: 60
  timeoutSeconds: 30
  failureThreshold: 3
readinessProbe:
  tcpSocket: {port: gcs}
  periodSeconds: 5
{{- end }}

{{/* A worker's node ends with its process; asking it more often would cost time of the kernels. Takes the group. */}}
{{- define "trireme.workerProbes" -}}
startupProbe:
  tcpSocket: {port: node-manager}
  periodSeconds: 5
  failureThreshold: {{ max 1 (div (int64 .startupSeconds) 5) }}
livenessProbe:
  tcpSocket: {port: node-manager}
  periodSeconds: 20
  failureThreshold: 3
readinessProbe:
  tcpSocket: {port: node-manager}
  periodSeconds: 5
{{- end }}

{{- define "trireme.headPod" -}}
{{- $head := .Values.ray.head -}}
{{ include "trireme.podHead" (list . $head.nodeSelector $head.tolerations) }}
shareProcessNamespace: true
terminationGracePeriodSeconds: 30
containers:
  - name: ray-head
    {{- include "trireme.container" . | nindent 4 }}
    {{- if not .Values.ray.kuberay.enabled }}
    command: [ray, start]
    args:
      - --head
      - --port=6379
      - --include-dashboard=false
      {{- include "trireme.rayArgs" (list . 0) | nindent 6 }}
    {{- end }}
    env:
      {{- include "trireme.rayEnv" . | nindent 6 }}
    envFrom:
      {{- include "trireme.rayEnvFrom" . | nindent 6 }}
    ports:
      - {name: gcs, containerPort: 6379}
      - {name: node-manager, containerPort: 6380}
    resources:
      requests: {cpu: {{ $head.cpu | quote }}, memory: {{ $head.memory }}}
      limits: {memory: {{ $head.memory }}}
    {{- include "trireme.headProbes" . | nindent 4 }}
    volumeMounts:
      {{- include "trireme.rayMounts" . | nindent 6 }}
volumes:
  {{- include "trireme.rayVolumes" . | nindent 2 }}
{{- end }}

{{/* Takes (list $ group). */}}
{{- define "trireme.workerPod" -}}
{{- $root := index . 0 -}}
{{- $group := index . 1 -}}
{{- $memory := default (printf "%sMi" (include "trireme.workerMiB" $root)) $group.memory -}}
{{ include "trireme.podHead" (list $root $group.nodeSelector $group.tolerations) }}
shareProcessNamespace: true
terminationGracePeriodSeconds: 30
{{- if ne $group.spread "none" }}
topologySpreadConstraints:
  - maxSkew: 1
    topologyKey: {{ $group.spreadOver }}
    whenUnsatisfiable: {{ ternary "DoNotSchedule" "ScheduleAnyway" (eq $group.spread "required") }}
    labelSelector:
      matchLabels:
        {{- include "trireme.selector" $root | nindent 8 }}
        app.kubernetes.io/component: ray-worker
        trireme/group: {{ $group.name }}
{{- end }}
{{- if or (not $root.Values.ray.kuberay.enabled) (eq $root.Values.model.source "fetch") (ne $group.largePages "ignore") }}
initContainers:
  {{- if not $root.Values.ray.kuberay.enabled }}
  {{- include "trireme.waitForRay" $root | nindent 2 }}
  {{- end }}
  {{- include "trireme.largePages" (list $root $group) | nindent 2 }}
  {{- include "trireme.fetch" $root | nindent 2 }}
{{- end }}
containers:
  - name: ray-worker
    {{- include "trireme.container" $root | nindent 4 }}
    {{- if not $root.Values.ray.kuberay.enabled }}
    command: [trireme-entrypoint, ray, start]  # brings the kernels that were compiled with the image
    args:
      - --address={{ include "trireme.rayHost" $root }}:6379
      {{- include "trireme.rayArgs" (list $root 1) | nindent 6 }}
    {{- end }}
    env:
      {{- include "trireme.rayEnv" $root | nindent 6 }}
      - {name: TRIREME_CACHE_DIR, value: /var/cache/trireme/kernels}
    envFrom:
      {{- include "trireme.rayEnvFrom" $root | nindent 6 }}
    ports:
      - {name: node-manager, containerPort: 6380}
    resources:
      requests: {cpu: {{ $group.cpu | quote }}, memory: {{ $memory }}}
      {{- if $group.guaranteed }}
      limits: {cpu: {{ $group.cpu | quote }}, memory: {{ $memory }}}
      {{- else }}
      limits: {memory: {{ $memory }}}
      {{- end }}
    {{- include "trireme.workerProbes" $group | nindent 4 }}
    volumeMounts:
      {{- include "trireme.rayMounts" $root | nindent 6 }}
      {{- include "trireme.linkMounts" $root | nindent 6 }}
      - {name: cache, mountPath: /var/cache/trireme}
      {{- include "trireme.modelMount" $root | nindent 6 }}
volumes:
  {{- include "trireme.rayVolumes" $root | nindent 2 }}
  {{- include "trireme.linkVolumes" $root | nindent 2 }}
  - {name: cache, emptyDir: {sizeLimit: {{ $group.cacheSize }}}}
  {{- include "trireme.modelVolume" $root | nindent 2 }}
{{- end }}

{{/* Large pages of the machine: looked at, or turned on by the one container of the chart that may. Takes (list $ group). */}}
{{- define "trireme.largePages" -}}
{{- $root := index . 0 -}}
{{- $group := index . 1 -}}
{{- if ne $group.largePages "ignore" }}
- name: large-pages
  {{- if eq $group.largePages "set" }}
  image: {{ include "trireme.image" $root | quote }}
  imagePullPolicy: {{ $root.Values.image.pullPolicy }}
  securityContext: {privileged: true, runAsUser: 0, runAsGroup: 0, runAsNonRoot: false, readOnlyRootFilesystem: true}
  {{- else }}
  {{- include "trireme.container" $root | nindent 2 }}
  {{- end }}
  command: [sh, -c]
  args:
    - |
      {{- $root.Files.Get "files/large_pages.sh" | nindent 6 }}
  env:
    - {name: LARGE_PAGES, value: {{ $group.largePages }}}
  resources:
    requests: {cpu: 100m, memory: 64Mi}
    limits: {cpu: 100m, memory: 64Mi}
{{- end }}
{{- end }}
