{{/* Names ------------------------------------------------------------------------------------------------------- */}}

{{- define "flagside.chartName" -}}
{{- default .Chart.Name .Values.nameOverride | trunc 63 | trimSuffix "-" -}}
{{- end -}}

{{/* What the names of objects begin with. */}}
{{- define "flagside.fullname" -}}
{{- if .Values.fullnameOverride -}}
{{- .Values.fullnameOverride | trunc 63 | trimSuffix "-" -}}
{{- else -}}
{{- $name := include "flagside.chartName" . -}}
{{- if contains $name .Release.Name -}}
{{- .Release.Name | trunc 63 | trimSuffix "-" -}}
{{- else -}}
{{- printf "%s-%s" .Release.Name $name | trunc 63 | trimSuffix "-" -}}
{{- end -}}
{{- end -}}
{{- end -}}

{{/* That name with a suffix, together at most 63 characters: (list $ "injector"). */}}
{{- define "flagside.named" -}}
{{- $suffix := index . 1 -}}
{{- $room := int (sub 62 (len $suffix)) -}}
{{- printf "%s-%s" (include "flagside.fullname" (index . 0) | trunc $room | trimSuffix "-") $suffix -}}
{{- end -}}

{{- define "flagside.namespace" -}}
{{- default .Release.Namespace .Values.namespaceOverride -}}
{{- end -}}

{{- define "flagside.serviceAccountName" -}}
{{- if .Values.serviceAccount.create -}}
{{- default (include "flagside.fullname" .) .Values.serviceAccount.name -}}
{{- else -}}
{{- default "default" .Values.serviceAccount.name -}}
{{- end -}}
{{- end -}}

{{/* Labels ------------------------------------------------------------------------------------------------------ */}}

{{- define "flagside.injectorName" -}}
{{- printf "%s-injector" (include "flagside.chartName" . | trunc 54 | trimSuffix "-") -}}
{{- end -}}

{{/* What selects pods: never more than this, for selectors cannot be changed. (list $ "shared" or "injector") */}}
{{- define "flagside.selector" -}}
{{- $root := index . 0 -}}
app.kubernetes.io/name: {{ if eq (index . 1) "injector" }}{{ include "flagside.injectorName" $root }}{{ else }}{{ include "flagside.chartName" $root }}{{ end }}
app.kubernetes.io/instance: {{ $root.Release.Name | quote }}
{{- end -}}

{{/* Labels of an object: (list $ component) */}}
{{- define "flagside.labels" -}}
{{- $root := index . 0 -}}
{{- $labels := include "flagside.selector" . | fromYaml -}}
{{- $_ := set $labels "app.kubernetes.io/component" (index . 1) -}}
{{- $_ := set $labels "app.kubernetes.io/part-of" "flagside" -}}
{{- $_ := set $labels "app.kubernetes.io/managed-by" $root.Release.Service -}}
{{- $_ := set $labels "app.kubernetes.io/version" ($root.Chart.AppVersion | replace "+" "_" | trunc 63) -}}
{{- $_ := set $labels "helm.sh/chart" (printf "%s-%s" $root.Chart.Name $root.Chart.Version | replace "+" "_" | trunc 63 | trimSuffix "-") -}}
{{- toYaml (mergeOverwrite (deepCopy (default dict $root.Values.commonLabels)) $labels) -}}
{{- end -}}

{{/* The inside of an object's metadata: (dict "root" $ "component" "shared" "name" … "labels" … "annotations" … "namespace" …) */}}
{{- define "flagside.metadata" -}}
name: {{ .name | quote }}
{{- if not .cluster }}
namespace: {{ default (include "flagside.namespace" .root) .namespace | quote }}
{{- end }}
labels:
  {{- $own := include "flagside.labels" (list .root .component) | fromYaml }}
  {{- toYaml (mergeOverwrite (deepCopy (default dict .labels)) $own) | nindent 2 }}
{{- with mergeOverwrite (deepCopy (default dict .root.Values.commonAnnotations)) (default dict .annotations) }}
annotations:
  {{- toYaml . | nindent 2 }}
{{- end }}
{{- end -}}

{{/* Labels of a pod: (list $ component podLabels) */}}
{{- define "flagside.podLabels" -}}
{{- $own := include "flagside.labels" . | fromYaml -}}
{{- $_ := unset $own "helm.sh/chart" -}}
{{- toYaml (mergeOverwrite (deepCopy (default dict (index . 2))) $own) -}}
{{- end -}}

{{/* What the cluster is --------------------------------------------------------------------------------------------- */}}

{{/* "true" if the cluster is at least this: (list $ "1.29") */}}
{{- define "flagside.kubernetes" -}}
{{- if semverCompare (printf ">=%s.0-0" (index . 1)) (index . 0).Capabilities.KubeVersion.Version }}true{{ end -}}
{{- end -}}

{{- define "flagside.hasMonitoring" -}}
{{- if or .Values.monitoring.ignoreCapabilities (.Capabilities.APIVersions.Has "monitoring.coreos.com/v1") }}true{{ end -}}
{{- end -}}

{{/* "true" if sidecars are native ones. */}}
{{- define "flagside.native" -}}
{{- if kindIs "bool" .Values.sidecar.native -}}
{{- if .Values.sidecar.native }}true{{ end -}}
{{- else -}}
{{- include "flagside.kubernetes" (list . "1.29") -}}
{{- end -}}
{{- end -}}

{{/* Containers -------------------------------------------------------------------------------------------------------- */}}

{{- define "flagside.image" -}}
{{- if .Values.image.digest -}}
{{- printf "%s@%s" .Values.image.repository .Values.image.digest -}}
{{- else -}}
{{- printf "%s:%s" .Values.image.repository (default .Chart.AppVersion .Values.image.tag) -}}
{{- end -}}
{{- end -}}

{{/* Fields that all pods share, but for those of `priorityClassName`. */}}
{{- define "flagside.podCommon" -}}
serviceAccountName: {{ include "flagside.serviceAccountName" . }}
# flagside never asks the API server.
automountServiceAccountToken: false
# Variables such as FLAGSIDE_PORT=tcp://… would look like configuration.
enableServiceLinks: false
{{- with .Values.imagePullSecrets }}
imagePullSecrets:
  {{- toYaml . | nindent 2 }}
{{- end }}
{{- with .Values.podSecurityContext }}
securityContext:
  {{- toYaml . | nindent 2 }}
{{- end }}
{{- with .Values.runtimeClassName }}
runtimeClassName: {{ . }}
{{- end }}
dnsPolicy: {{ .Values.dnsPolicy }}
{{- with .Values.dnsConfig }}
dnsConfig:
  {{- toYaml . | nindent 2 }}
{{- end }}
{{- with .Values.hostAliases }}
hostAliases:
  {{- toYaml . | nindent 2 }}
{{- end }}
{{- end -}}

{{/* What log lines can say about where they come from. */}}
{{- define "flagside.downwardEnv" -}}
- name: POD_NAME
  valueFrom:
    fieldRef:
      fieldPath: metadata.name
- name: POD_NAMESPACE
  valueFrom:
    fieldRef:
      fieldPath: metadata.namespace
- name: NODE_NAME
  valueFrom:
    fieldRef:
      fieldPath: spec.nodeName
{{- end -}}

{{/* How a ServiceMonitor or PodMonitor scrapes, from its values. */}}
{{- define "flagside.scrape" -}}
interval: {{ .interval }}
scrapeTimeout: {{ .scrapeTimeout }}
{{- with .relabelings }}
relabelings:
  {{- toYaml . | nindent 2 }}
{{- end }}
{{- with .metricRelabelings }}
metricRelabelings:
  {{- toYaml . | nindent 2 }}
{{- end }}
{{- end -}}
