{{/* Configuration of the shared Deployment --------------------------------------------------------------------------- */}}

{{/* The user's configuration over what the chart sets, as YAML. */}}
{{- define "flagside.config" -}}
{{- $own := dict "mode" "shared" "listen" (dict "data" (list (printf "%s:3546" .Values.listenAddress)) "admin" (list (printf "%s:3547" .Values.listenAddress))) -}}
{{- toYaml (mergeOverwrite $own (deepCopy .Values.config)) -}}
{{- end -}}

{{/* What flagside would refuse, or what would leave the Deployment without answers: fails with the remedy. */}}
{{- define "flagside.checkConfig" -}}
{{- $config := include "flagside.config" . | fromYaml -}}
{{- if ne (toString $config.mode) "shared" -}}
{{- fail (printf "config.mode: the chart's Deployment is a shared one (got %v); leave it out, or set shared.enabled: false and use the injector" $config.mode) -}}
{{- end -}}
{{- range $name := list "data" "admin" -}}
{{- range $address := include "flagside.addresses" (index $config.listen $name) | fromYamlArray -}}
{{- if regexMatch "^(127\\.|\\[::1\\]|localhost:)" $address -}}
{{- fail (printf "config.listen.%s: nobody outside of the pod reaches %s; expected 0.0.0.0:PORT or [::]:PORT" $name $address) -}}
{{- end -}}
{{- if not (regexMatch "^(.*:)?[1-9][0-9]{0,4}$" $address) -}}
{{- fail (printf "config.listen.%s: no port to be found in it (got %s); expected ADDRESS:PORT, :PORT or PORT" $name $address) -}}
{{- end -}}
{{- end -}}
{{- end -}}
{{- if eq (include "flagside.dataPort" .) (include "flagside.adminPort" .) -}}
{{- fail (printf "config.listen: data and admin are both on port %s; expected two ports" (include "flagside.dataPort" .)) -}}
{{- end -}}
{{- if and .Values.secrets.create .Values.secrets.existingSecret -}}
{{- fail "secrets: either create or existingSecret, not both" -}}
{{- end -}}
{{- if and .Values.secrets.create (not .Values.secrets.data) -}}
{{- fail "secrets.create: there is nothing in secrets.data" -}}
{{- end -}}
{{- if and .Values.existingConfigMap .Values.config -}}
{{- fail "config: either this or existingConfigMap, not both" -}}
{{- end -}}
{{- end -}}

{{/* An address setting (a list, text with commas, or a number) as a list of text. */}}
{{- define "flagside.addresses" -}}
{{- $given := . -}}
{{- if not (kindIs "slice" $given) -}}
{{- $given = splitList "," (include "flagside.text" $given) -}}
{{- end -}}
{{- $addresses := list -}}
{{- range $given -}}
{{- $addresses = append $addresses (include "flagside.text" . | trim) -}}
{{- end -}}
{{- toYaml $addresses -}}
{{- end -}}

{{/* A scalar as text; numbers without exponent. */}}
{{- define "flagside.text" -}}
{{- if kindIs "float64" . }}{{ int64 . }}{{ else }}{{ toString . }}{{ end -}}
{{- end -}}

{{- define "flagside.dataPort" -}}
{{- $config := include "flagside.config" . | fromYaml -}}
{{- regexFind "[0-9]+$" (first (include "flagside.addresses" $config.listen.data | fromYamlArray)) -}}
{{- end -}}

{{- define "flagside.adminPort" -}}
{{- $config := include "flagside.config" . | fromYaml -}}
{{- regexFind "[0-9]+$" (first (include "flagside.addresses" $config.listen.admin | fromYamlArray)) -}}
{{- end -}}

{{/* "true" if anything in it is a key or another secret, rather than the name of a file with one. */}}
{{- define "flagside.holdsSecrets" -}}
{{- if kindIs "map" . -}}
{{- range $name, $value := . -}}
{{- if or (kindIs "map" $value) (and (kindIs "slice" $value) $value (kindIs "map" (first $value))) -}}
{{- include "flagside.holdsSecrets" $value -}}
{{- else if and (regexMatch "(?i)(key|secret|password|token|credential)s?$" $name) (not (kindIs "bool" $value)) $value -}}
true
{{- else if kindIs "string" $value -}}
{{- if regexMatch "://[^/@]*@" $value }}true{{ end -}}
{{- end -}}
{{- end -}}
{{- else if kindIs "slice" . -}}
{{- range . }}{{ include "flagside.holdsSecrets" . }}{{ end -}}
{{- end -}}
{{- end -}}

{{/* Seconds of a duration such as 250ms, 10s, 5m, 1h or 7d, rounded up: (list "drain.delay" "5s") */}}
{{- define "flagside.seconds" -}}
{{- $text := toString (index . 1) -}}
{{- if not (regexMatch "^[0-9]{1,9}(ms|s|m|h|d)$" $text) -}}
{{- fail (printf "config.%s: not a duration (got %s); expected a whole number with its unit, such as 10s" (index . 0) $text) -}}
{{- end -}}
{{- $number := regexFind "^[0-9]+" $text | int64 -}}
{{- $unit := regexFind "[a-z]+$" $text -}}
{{- if eq $unit "ms" -}}
{{- div (add $number 999) 1000 -}}
{{- else -}}
{{- mul $number (get (dict "s" 1 "m" 60 "h" 3600 "d" 86400) $unit) -}}
{{- end -}}
{{- end -}}

{{/* Seconds from SIGTERM to SIGKILL: the drain, and five for the rest. */}}
{{- define "flagside.gracePeriod" -}}
{{- $drain := default dict .Values.config.drain -}}
{{- $delay := include "flagside.seconds" (list "drain.delay" (default "5s" $drain.delay)) -}}
{{- $timeout := include "flagside.seconds" (list "drain.timeout" (default "25s" $drain.timeout)) -}}
{{- $needed := add (int64 $delay) (int64 $timeout) 5 -}}
{{- $given := .Values.terminationGracePeriodSeconds -}}
{{- if kindIs "invalid" $given -}}
{{- $needed -}}
{{- else if lt (int64 $given) $needed -}}
{{- fail (printf "terminationGracePeriodSeconds: too short (got %d); expected at least %d, which is drain.delay + drain.timeout + 5" (int64 $given) $needed) -}}
{{- else -}}
{{- int64 $given -}}
{{- end -}}
{{- end -}}

{{- define "flagside.secretName" -}}
{{- if .Values.secrets.existingSecret -}}
{{- .Values.secrets.existingSecret -}}
{{- else if .Values.secrets.create -}}
{{- include "flagside.named" (list . "keys") -}}
{{- end -}}
{{- end -}}
