{{/* Configuration of the shared Deployment --------------------------------------------------------------------------- */}}

{{/* The configuration as given; where it says nothing, mode and listeners are the chart's. */}}
{{- define "flagside.config" -}}
{{- $config := deepCopy (default dict .Values.config) -}}
{{- $listen := default dict $config.listen -}}
{{- $_ := set $config "mode" (default "shared" $config.mode) -}}
{{- $_ := set $config "listen" (mergeOverwrite $listen (dict "data" (include "flagside.addresses" (list . $listen.data 3546) | fromYamlArray) "admin" (include "flagside.addresses" (list . $listen.admin 3547) | fromYamlArray))) -}}
{{- toYaml $config -}}
{{- end -}}

{{/* An address setting (a list, text with commas, or a port) as a list of ADDRESS:PORT: (list $ value default) */}}
{{- define "flagside.addresses" -}}
{{- $root := index . 0 -}}
{{- $given := index . 1 -}}
{{- if has (toString $given) (list "" "<nil>" "[]") -}}
{{- $given = index . 2 -}}
{{- end -}}
{{- if not (kindIs "slice" $given) -}}
{{- $given = splitList "," (include "flagside.text" $given) -}}
{{- end -}}
{{- $addresses := list -}}
{{- range $given -}}
{{- $address := include "flagside.text" . | trim -}}
{{- if regexMatch "^:?[0-9]+$" $address -}}
{{- $address = printf "%s:%s" $root.Values.listenAddress (trimPrefix ":" $address) -}}
{{- end -}}
{{- if $address -}}
{{- $addresses = append $addresses $address -}}
{{- end -}}
{{- end -}}
{{- toYaml $addresses -}}
{{- end -}}

{{/* The port of the first address that can be reached from outside of the pod: (list $ "admin") */}}
{{- define "flagside.port" -}}
{{- $listen := (include "flagside.config" (index . 0) | fromYaml).listen -}}
{{- $name := index . 1 -}}
{{- $port := "" -}}
{{- range $address := index $listen $name -}}
{{- if not (regexMatch "^.+:[1-9][0-9]{0,4}$" $address) -}}
{{- fail (printf "config.listen.%s: the chart must know the port (got %s); expected ADDRESS:PORT or PORT" $name $address) -}}
{{- end -}}
{{- if and (not $port) (not (regexMatch "^(127\\.|\\[::1\\]|localhost:)" $address)) -}}
{{- $port = regexFind "[0-9]+$" $address -}}
{{- end -}}
{{- end -}}
{{- if not $port -}}
{{- fail (printf "config.listen.%s: nobody outside of the pod could reach it (got %s); expected 0.0.0.0:PORT or [::]:PORT" $name (join ", " (index $listen $name))) -}}
{{- end -}}
{{- $port -}}
{{- end -}}

{{- define "flagside.dataPort" -}}
{{- include "flagside.port" (list . "data") -}}
{{- end -}}

{{- define "flagside.adminPort" -}}
{{- include "flagside.port" (list . "admin") -}}
{{- end -}}

{{/* What flagside would refuse, or what would leave the Deployment without answers: fails with the remedy. */}}
{{- define "flagside.checkConfig" -}}
{{- $config := include "flagside.config" . | fromYaml -}}
{{- if ne (toString $config.mode | trim | lower) "shared" -}}
{{- fail (printf "config.mode: the chart's Deployment is a shared one (got %v); leave it out, or set shared.enabled: false and use the injector" $config.mode) -}}
{{- end -}}
{{- if eq (include "flagside.dataPort" .) (include "flagside.adminPort" .) -}}
{{- fail (printf "config.listen: data and admin are both on port %s; expected two ports" (include "flagside.dataPort" .)) -}}
{{- end -}}
{{- range .Values.extraEnv -}}
{{- if regexMatch "^FLAGSIDE_(CONFIG|MODE|LISTEN__(DATA|ADMIN).*|DRAIN__.*)$" .name -}}
{{- fail (printf "extraEnv: %s would be behind the chart's back; set it in config, from which ports, probes and grace period follow" .name) -}}
{{- end -}}
{{- end -}}
{{- range .Values.extraVolumes -}}
{{- if has .name (list "config" "keys") -}}
{{- fail (printf "extraVolumes: the chart has a volume called %s itself; expected another name" .name) -}}
{{- end -}}
{{- end -}}
{{- range .Values.extraArgs -}}
{{- if regexMatch "^(-c|--config|--mode|--listen|--admin-listen)(=|$)|^(--set=)?(mode|listen\\.(data|admin)|drain\\.[a-z]+)=" . -}}
{{- fail (printf "extraArgs: %s would be behind the chart's back; set it in config, from which ports, probes and grace period follow" .) -}}
{{- end -}}
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

{{/* A scalar as text; numbers without exponent. */}}
{{- define "flagside.text" -}}
{{- if and (kindIs "float64" .) (eq (floor .) .) }}{{ int64 . }}{{ else }}{{ toString . }}{{ end -}}
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
{{- $text := regexReplaceAll "^0+([0-9])" (toString (index . 1) | nospace) "${1}" -}}
{{- if not (regexMatch "^[0-9]{1,9}(ms|s|m|h|d)$" $text) -}}
{{- fail (printf "config.%s: the chart must know how long that is (got %s); expected a whole number with its unit, such as 10s" (index . 0) $text) -}}
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
{{- $drain := default dict (default dict .Values.config).drain -}}
{{- $delay := default "5s" $drain.delay -}}
{{- $timeout := default "25s" $drain.timeout -}}
{{- $given := .Values.terminationGracePeriodSeconds -}}
{{- if and (not (kindIs "invalid" $given)) (contains "${" (printf "%v %v" $delay $timeout)) -}}
{{- int64 $given -}}
{{- else -}}
{{- $needed := add (include "flagside.seconds" (list "drain.delay" $delay) | int64) (include "flagside.seconds" (list "drain.timeout" $timeout) | int64) 5 -}}
{{- if kindIs "invalid" $given -}}
{{- $needed -}}
{{- else if lt (int64 $given) $needed -}}
{{- fail (printf "terminationGracePeriodSeconds: too short (got %d); expected at least %d, which is drain.delay + drain.timeout + 5" (int64 $given) $needed) -}}
{{- else -}}
{{- int64 $given -}}
{{- end -}}
{{- end -}}
{{- end -}}

{{/* What the start-up probe asks: /readyz, which opens at the latest after readiness.deadline. A strict proxy waits for
upstream however long that takes, and must not be restarted meanwhile: it only has to be alive. */}}
{{- define "flagside.startupPath" -}}
{{- $readiness := default dict (default dict .Values.config).readiness -}}
{{- if has (toString $readiness.strict | trim | lower) (list "" "<nil>" "false") -}}
{{- $deadline := default "10s" $readiness.deadline -}}
{{- $probe := default dict .Values.probes.startup -}}
{{- $patience := mul (default 10 $probe.periodSeconds | int64) (default 3 $probe.failureThreshold | int64) -}}
{{- if and (not (contains "${" $deadline)) (ge (include "flagside.seconds" (list "readiness.deadline" $deadline) | int64) $patience) -}}
{{- fail (printf "probes.startup: gives up after %d s, before readiness.deadline (%s) is over, so an outage would restart the pods for ever; expected a larger failureThreshold" $patience $deadline) -}}
{{- end -}}
/readyz
{{- else -}}
/healthz
{{- end -}}
{{- end -}}

{{- define "flagside.secretName" -}}
{{- if .Values.secrets.existingSecret -}}
{{- .Values.secrets.existingSecret -}}
{{- else if .Values.secrets.create -}}
{{- include "flagside.named" (list . "keys") -}}
{{- end -}}
{{- end -}}
