{{/* What the injector adds to pods, as `flagside inject --template` reads it too. */}}
{{- define "flagside.template" -}}
{{- with .Values.sidecar -}}
image: {{ include "flagside.image" $ | quote }}
image-pull-policy: {{ $.Values.image.pullPolicy }}
allow-image-override: {{ $.Values.injector.allowImageOverride }}
native: {{ if include "flagside.native" $ }}true{{ else }}false{{ end }}
config: {{ .config | quote }}
secret: {{ .secret | quote }}
log-level: {{ .logLevel }}
port: {{ int .port }}
admin-port: {{ int .adminPort }}
cpu-request: {{ include "flagside.text" .cpuRequest | quote }}
memory-request: {{ include "flagside.text" .memoryRequest | quote }}
memory-limit: {{ include "flagside.text" .memoryLimit | quote }}
{{- with .setEnv }}
set-env:
  {{- range $name, $value := . }}
  - {{ printf "%s=%s" $name $value | quote }}
  {{- end }}
{{- end }}
{{- with .container }}
container:
  {{- toYaml . | nindent 2 }}
{{- end }}
{{- if eq (int .port) (int .adminPort) }}
{{- fail (printf "sidecar.adminPort: the same as sidecar.port (%d); expected two ports" (int .port)) }}
{{- end }}
{{- end -}}
{{- end -}}

{{/* Where nothing is injected. */}}
{{- define "flagside.excludedNamespaces" -}}
{{- append (default list .Values.injector.excludedNamespaces) (include "flagside.namespace" .) | uniq | toYaml -}}
{{- end -}}

{{/* The Secret with the webhook's certificate and key. */}}
{{- define "flagside.certificateSecret" -}}
{{- if eq .Values.injector.certificate.source "secret" -}}
{{- required "injector.certificate.secretName: name the Secret that has tls.crt and tls.key" .Values.injector.certificate.secretName -}}
{{- else -}}
{{- default (include "flagside.named" (list . "injector-tls")) .Values.injector.certificate.secretName -}}
{{- end -}}
{{- end -}}

{{/* Certificate, key and signer, base64: what is there already, else new ones. */}}
{{- define "flagside.helmCertificate" -}}
{{- $there := lookup "v1" "Secret" (include "flagside.namespace" .) (include "flagside.certificateSecret" .) -}}
{{- $data := default dict $there.data -}}
{{- if and (index $data "ca.crt") (index $data "tls.crt") (index $data "tls.key") -}}
{{- dict "ca.crt" (index $data "ca.crt") "tls.crt" (index $data "tls.crt") "tls.key" (index $data "tls.key") | toYaml -}}
{{- else -}}
{{- $service := printf "%s.%s.svc" (include "flagside.named" (list . "injector")) (include "flagside.namespace" .) -}}
{{- $days := int .Values.injector.certificate.validityDays -}}
{{- $ca := genCA "flagside-injector-ca" $days -}}
{{- $pair := genSignedCert "flagside-injector" nil (list $service (printf "%s.cluster.local" $service)) $days $ca -}}
{{- dict "ca.crt" ($ca.Cert | b64enc) "tls.crt" ($pair.Cert | b64enc) "tls.key" ($pair.Key | b64enc) | toYaml -}}
{{- end -}}
{{- end -}}
