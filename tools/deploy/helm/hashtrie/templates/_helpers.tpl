{{- define "hashtrie.fullname" -}}
{{- if .Values.fullnameOverride -}}
{{- .Values.fullnameOverride | trunc 50 | trimSuffix "-" -}}
{{- else -}}
{{- $name := default .Chart.Name .Values.nameOverride -}}
{{- if contains $name .Release.Name -}}
{{- .Release.Name | trunc 50 | trimSuffix "-" -}}
{{- else -}}
{{- printf "%s-%s" .Release.Name $name | trunc 50 | trimSuffix "-" -}}
{{- end -}}
{{- end -}}
{{- end -}}

{{- define "hashtrie.selector" -}}
app.kubernetes.io/name: {{ default .Chart.Name .Values.nameOverride | trunc 63 | trimSuffix "-" }}
app.kubernetes.io/instance: {{ .Release.Name }}
{{- end -}}

{{- define "hashtrie.labels" -}}
{{ include "hashtrie.selector" . }}
app.kubernetes.io/version: {{ .Chart.AppVersion | quote }}
app.kubernetes.io/managed-by: {{ .Release.Service }}
helm.sh/chart: {{ printf "%s-%s" .Chart.Name .Chart.Version | replace "+" "_" }}
{{- end -}}

{{- define "hashtrie.serviceAccount" -}}
{{- if .Values.serviceAccount.create -}}
{{- default (include "hashtrie.fullname" .) .Values.serviceAccount.name -}}
{{- else -}}
{{- default "default" .Values.serviceAccount.name -}}
{{- end -}}
{{- end -}}

{{- define "hashtrie.image" -}}
{{- if .Values.image.digest -}}
{{- printf "%s@%s" .Values.image.repository .Values.image.digest -}}
{{- else -}}
{{- printf "%s:%s" .Values.image.repository (default .Chart.AppVersion .Values.image.tag) -}}
{{- end -}}
{{- end -}}

{{- define "hashtrie.engineNamespace" -}}
{{- default .Release.Namespace .Values.k8s.namespace -}}
{{- end -}}

{{- /* A quantity in MiB; values.schema.json lets whole Mi, Gi and Ti through only. */ -}}
{{- define "hashtrie.mebibytes" -}}
{{- $number := regexFind "^[0-9]+" . | int64 -}}
{{- if hasSuffix "Ti" . -}}{{ mul $number 1048576 }}
{{- else if hasSuffix "Gi" . -}}{{ mul $number 1024 }}
{{- else -}}{{ $number }}
{{- end -}}
{{- end -}}

{{- /* Says what is wrong with values that each alone are fine. */ -}}
{{- define "hashtrie.check" -}}
{{- if and (eq .Values.serviceDiscovery "static") (not .Values.static.backends) -}}
{{- fail "static.backends is empty: name the engines, or set serviceDiscovery to k8s" -}}
{{- end -}}
{{- if and (eq .Values.serviceDiscovery "k8s") (not .Values.k8s.labelSelector) -}}
{{- fail "k8s.labelSelector is empty: every pod of the namespace would be taken for an engine" -}}
{{- end -}}
{{- if and (eq .Values.routingLogic "session") (not .Values.sessionKey) -}}
{{- fail "routingLogic session needs sessionKey" -}}
{{- end -}}
{{- if .Values.store.enabled -}}
{{- $cap := include "hashtrie.mebibytes" .Values.store.maxSize | int64 -}}
{{- $volume := include "hashtrie.mebibytes" .Values.store.volumeSize | int64 -}}
{{- $copies := 2 -}}
{{- if .Values.store.snapshots.enabled -}}
{{- $copies = add 3 .Values.store.snapshots.keep -}}
{{- end -}}
{{- $needed := mul $copies $cap -}}
{{- if lt $volume $needed -}}
{{- fail (printf "store.volumeSize %s is too small: store.maxSize %s needs %dMi (%d times the cap: twice, and snapshots.keep + 1 with snapshots)" .Values.store.volumeSize .Values.store.maxSize $needed $copies) -}}
{{- end -}}
{{- end -}}
{{- end -}}
