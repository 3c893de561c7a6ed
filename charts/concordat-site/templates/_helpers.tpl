{{- define "concordat.labels" -}}
helm.sh/chart: {{ .root.Chart.Name }}-{{ .root.Chart.Version }}
app.kubernetes.io/version: {{ .root.Chart.AppVersion | quote }}
app.kubernetes.io/managed-by: {{ .root.Release.Service }}
app.kubernetes.io/part-of: concordat
{{ include "concordat.selector" . }}
{{- end }}

{{- define "concordat.selector" -}}
app.kubernetes.io/name: {{ .name }}
app.kubernetes.io/instance: {{ .root.Release.Name }}
{{- end }}

{{- define "concordat.registryUrl" -}}
{{ .Values.registryUrl | default (printf "http://concordat-registry.%s.svc:5000" .Values.operator.namespace) }}
{{- end }}

{{- define "concordat.registryPort" -}}
{{- $url := urlParse (include "concordat.registryUrl" .) }}
{{- $port := regexFind "[0-9]+$" (regexFind ":[0-9]+$" $url.host) }}
{{- $port | default (ternary "443" "80" (eq $url.scheme "https")) }}
{{- end }}
