{{/* Labels that select the pods of a role: (list . "node"). They never change. */}}
{{- define "egress-enforcer.selector" -}}
app.kubernetes.io/name: egress-enforcer
app.kubernetes.io/component: {{ index . 1 }}
{{- end }}

{{/* Labels of the chart's objects. */}}
{{- define "egress-enforcer.labels" -}}
{{ include "egress-enforcer.selector" . }}
app.kubernetes.io/part-of: egress-enforcer
app.kubernetes.io/version: {{ (index . 0).Chart.AppVersion | quote }}
{{- end }}

{{/* The labels of a gateway: those of its Service's selector, which `Gateway` resources select. */}}
{{- define "egress-enforcer.gatewayLabels" -}}
{{ include "egress-enforcer.selector" (list . "gateway") }}
{{ toYaml .Values.gateway.labels }}
{{- end }}

{{- define "egress-enforcer.image" -}}
{{- with .Values.image -}}
{{- if .digest -}}
{{ .repository }}@{{ .digest }}
{{- else -}}
{{ .repository }}:{{ .tag | default $.Chart.AppVersion }}
{{- end -}}
{{- end -}}
{{- end }}

{{- define "egress-enforcer.pullSecrets" -}}
{{- with .Values.image.pullSecrets }}
imagePullSecrets:
{{- range . }}
- name: {{ . }}
{{- end }}
{{- end }}
{{- end }}

{{/* The node's own address and a port, in an argument: (list . 15020). */}}
{{- define "egress-enforcer.nodeAddress" -}}
{{- if eq (index . 0).Values.nodeAddressFamily "IPv6" -}}
[$(HOST_IP)]:{{ index . 1 }}
{{- else -}}
$(HOST_IP):{{ index . 1 }}
{{- end -}}
{{- end }}

{{/* The options of both roles that say where the configuration is. */}}
{{- define "egress-enforcer.source" -}}
- --source=kubernetes
- --mesh-config-map={{ .Release.Namespace }}/{{ .Values.mesh.configMap }}
- --gateway-namespace={{ .Release.Namespace }}
{{- if .Values.mesh.externalNameServices }}
- --external-name-services
{{- end }}
{{- end }}

{{/* Options, mounts and volumes of an identity. */}}
{{- define "egress-enforcer.identityArgs" -}}
{{- if eq .source "secret" }}
- --identity-dir=/etc/egress/identity
{{- else if eq .source "workloadApi" }}
- --workload-api=unix:/run/egress-identity/{{ .socketName }}
{{- end }}
{{- end }}

{{- define "egress-enforcer.identityMounts" -}}
{{- if eq .source "secret" }}
- name: identity
  mountPath: /etc/egress/identity
  readOnly: true
{{- else if eq .source "workloadApi" }}
- name: identity
  mountPath: /run/egress-identity
  readOnly: true
{{- end }}
{{- end }}

{{- define "egress-enforcer.identityVolumes" -}}
{{- if eq .source "secret" }}
- name: identity
  secret:
    secretName: {{ required "identity.source is `secret`: give its secretName" (.secretName | default nil) }}
{{- else if eq .source "workloadApi" }}
- name: identity
  hostPath:
    path: {{ .socketDirectory }}
    type: Directory
{{- end }}
{{- end }}

{{/* Variables of the export over OTLP: of this endpoint. */}}
{{- define "egress-enforcer.otlpEnv" -}}
{{- $otlp := (index . 0).Values.otlp -}}
{{- with index . 1 }}
- name: OTEL_EXPORTER_OTLP_ENDPOINT
  value: {{ . | quote }}
{{- with $otlp.headersSecret.name }}
- name: OTEL_EXPORTER_OTLP_HEADERS
  valueFrom:
    secretKeyRef:
      name: {{ . }}
      key: {{ $otlp.headersSecret.key }}
{{- end }}
{{- if $otlp.authorityConfigMap.name }}
- name: OTEL_EXPORTER_OTLP_CERTIFICATE
  value: /etc/otlp/{{ $otlp.authorityConfigMap.key }}
{{- end }}
{{- range $name, $value := $otlp.environment }}
- name: {{ $name }}
  value: {{ $value | quote }}
{{- end }}
{{- end }}
{{- end }}

{{/* Where the collector's authority is, and the volume that holds it. */}}
{{- define "egress-enforcer.otlpMounts" -}}
{{- if .Values.otlp.authorityConfigMap.name }}
- name: otlp-authority
  mountPath: /etc/otlp
  readOnly: true
{{- end }}
{{- end }}
{{- define "egress-enforcer.otlpVolumes" -}}
{{- with .Values.otlp.authorityConfigMap.name }}
- name: otlp-authority
  configMap:
    name: {{ . }}
{{- end }}
{{- end }}
