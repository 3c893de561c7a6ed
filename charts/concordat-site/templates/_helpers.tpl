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

{{- define "concordat.gatewayUrl" -}}
{{ .Values.gatewayUrl | default (printf "https://concordat-gateway.%s.svc" .Values.operator.namespace) }}
{{- end }}

{{- define "concordat.gatewayPort" -}}
{{- $url := urlParse (include "concordat.gatewayUrl" .) }}
{{- regexFind "[0-9]+$" (regexFind ":[0-9]+$" $url.host) | default "443" }}
{{- end }}
