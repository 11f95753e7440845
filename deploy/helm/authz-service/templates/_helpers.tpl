{{- define "authz.name" -}}
{{- default .Chart.Name .Values.nameOverride | trunc 63 | trimSuffix "-" -}}
{{- end -}}

{{- define "authz.fullname" -}}
{{- if .Values.fullnameOverride -}}
{{- .Values.fullnameOverride | trunc 52 | trimSuffix "-" -}}
{{- else if contains (include "authz.name" .) .Release.Name -}}
{{- .Release.Name | trunc 52 | trimSuffix "-" -}}
{{- else -}}
{{- printf "%s-%s" .Release.Name (include "authz.name" .) | trunc 52 | trimSuffix "-" -}}
{{- end -}}
{{- end -}}

{{- define "authz.selector" -}}
app.kubernetes.io/name: {{ include "authz.name" . }}
app.kubernetes.io/instance: {{ .Release.Name }}
{{- end -}}

{{- define "authz.labels" -}}
{{ include "authz.selector" . }}
app.kubernetes.io/version: {{ .Chart.AppVersion | quote }}
app.kubernetes.io/managed-by: {{ .Release.Service }}
helm.sh/chart: {{ printf "%s-%s" .Chart.Name .Chart.Version | replace "+" "_" }}
{{- end -}}

{{- define "authz.image" -}}
{{- if .Values.image.digest -}}
{{ .Values.image.repository }}@{{ .Values.image.digest }}
{{- else -}}
{{ .Values.image.repository }}:{{ default .Chart.AppVersion .Values.image.tag }}
{{- end -}}
{{- end -}}

{{- define "authz.serviceAccount" -}}
{{- if .Values.serviceAccount.create -}}
{{ default (include "authz.fullname" .) .Values.serviceAccount.name }}
{{- else -}}
{{ default "default" .Values.serviceAccount.name }}
{{- end -}}
{{- end -}}

{{/* The most replicas that there are at once: one more while a new version is rolled out. */}}
{{- define "authz.mostReplicas" -}}
{{- if .Values.autoscaling.enabled -}}
{{ add1 (int .Values.autoscaling.maxReplicas) }}
{{- else -}}
{{ add1 (int .Values.replicas) }}
{{- end -}}
{{- end -}}

{{- define "authz.setting" -}}
{{- $value := index .root.Values.settings .name -}}
{{- if kindIs "invalid" $value -}}{{ .default }}{{- else -}}{{ $value }}{{- end -}}
{{- end -}}

{{/* Connections that one replica may open to the server itself: behind a pooler, polls and the bell alone. */}}
{{- define "authz.connections" -}}
{{- $workers := int (include "authz.setting" (dict "root" . "name" "AUTHZ_WORKERS" "default" 1)) -}}
{{- $pool := int (include "authz.setting" (dict "root" . "name" "AUTHZ_POOL_SIZE" "default" 10)) -}}
{{- $pooled := or .Values.database.directUrlKey .Values.database.cloudNativePG.pooler -}}
{{- mul $workers (add 2 (ternary 0 $pool (not (empty $pooled)))) -}}
{{- end -}}

{{- define "authz.grace" -}}
{{- $drain := float64 (include "authz.setting" (dict "root" . "name" "AUTHZ_DRAIN" "default" 1)) -}}
{{- $shutdown := float64 (include "authz.setting" (dict "root" . "name" "AUTHZ_SHUTDOWN_TIMEOUT" "default" 15)) -}}
{{- add (int (ceil (addf $drain $shutdown))) 15 -}}
{{- end -}}

{{/* What the schema cannot say of several values together: everything that is wrong, at once. */}}
{{- define "authz.check" -}}
{{- $faults := list -}}
{{- $cnpg := .Values.database.cloudNativePG -}}
{{- if not .Values.peppers.existingSecret -}}
{{- $faults = append $faults "peppers.existingSecret: name a Secret with the peppers" -}}
{{- end -}}
{{- if and .Values.database.existingSecret $cnpg.cluster -}}
{{- $faults = append $faults "database: give existingSecret or cloudNativePG.cluster, not both" -}}
{{- end -}}
{{- if not (or .Values.database.existingSecret $cnpg.cluster) -}}
{{- $faults = append $faults "database: give existingSecret, or cloudNativePG.cluster" -}}
{{- end -}}
{{- if and $cnpg.cluster (not $cnpg.serviceRoleSecret) -}}
{{- $faults = append $faults "database.cloudNativePG.serviceRoleSecret: name the Secret of the role that serves; the owner's is for the migration" -}}
{{- end -}}
{{- if and $cnpg.pooler (not $cnpg.cluster) -}}
{{- $faults = append $faults "database.cloudNativePG.pooler: name the cluster too" -}}
{{- end -}}
{{- if and .Values.migration.enabled (not $cnpg.cluster) (not .Values.migration.existingSecret) -}}
{{- $faults = append $faults "migration.existingSecret: name a Secret with the owner's URL, or set migration.enabled to false and run `authz migrate` yourself" -}}
{{- end -}}
{{- if and .Values.migration.enabled (not .Values.migration.serviceRole) -}}
{{- $faults = append $faults "migration.serviceRole: name the role that serves, which the migration gives its rights" -}}
{{- end -}}
{{- if and (not .Values.database.ssl.caSecret) (not $cnpg.cluster) (hasPrefix "verify-" .Values.database.ssl.mode) -}}
{{- $faults = append $faults "database.ssl.caSecret: verifying needs the authority's certificate" -}}
{{- end -}}
{{- if and (gt (int .Values.autoscaling.minReplicas) (int .Values.autoscaling.maxReplicas)) .Values.autoscaling.enabled -}}
{{- $faults = append $faults "autoscaling.maxReplicas: it is below minReplicas" -}}
{{- end -}}
{{- $grace := int .Values.terminationGracePeriodSeconds -}}
{{- if and (gt $grace 0) (lt $grace (int (include "authz.grace" .))) -}}
{{- $faults = append $faults (printf "terminationGracePeriodSeconds: AUTHZ_DRAIN and AUTHZ_SHUTDOWN_TIMEOUT need %s" (include "authz.grace" .)) -}}
{{- end -}}
{{- $most := mul (int (include "authz.mostReplicas" .)) (int (include "authz.connections" .)) -}}
{{- if and (gt (int .Values.database.maxConnections) 0) (gt (int $most) (int .Values.database.maxConnections)) -}}
{{- $faults = append $faults (printf "database.maxConnections: %s replicas with %s connections each are %d; take fewer, a smaller AUTHZ_POOL_SIZE, or a pooler" (include "authz.mostReplicas" .) (include "authz.connections" .) $most) -}}
{{- end -}}
{{- if $faults -}}
{{- fail (printf "the values do not fit together: %s" (join "; " $faults)) -}}
{{- end -}}
{{- end -}}

{{- define "authz.podSecurity" -}}
runAsNonRoot: true
runAsUser: 10001
runAsGroup: 10001
fsGroup: 10001
seccompProfile: {type: RuntimeDefault}
{{- end -}}

{{- define "authz.containerSecurity" -}}
allowPrivilegeEscalation: false
readOnlyRootFilesystem: true
capabilities: {drop: [ALL]}
{{- end -}}

{{- define "authz.caSecret" -}}
{{- if .Values.database.ssl.caSecret -}}
{{ .Values.database.ssl.caSecret }}
{{- else if .Values.database.cloudNativePG.cluster -}}
{{ .Values.database.cloudNativePG.cluster }}-ca
{{- end -}}
{{- end -}}

{{/* How the driver verifies the server, for whatever URL says nothing about it. */}}
{{- define "authz.sslEnv" -}}
{{- $mode := .Values.database.ssl.mode -}}
{{- if and .Values.database.cloudNativePG.cluster (not $mode) -}}{{- $mode = "verify-full" -}}{{- end -}}
{{- if $mode }}
- name: PGSSLMODE
  value: {{ $mode | quote }}
{{- end }}
{{- if include "authz.caSecret" . }}
- name: PGSSLROOTCERT
  value: /etc/authz/database/ca.crt
{{- end }}
{{- end -}}

{{- define "authz.caVolume" -}}
- name: database-ca
  secret:
    secretName: {{ include "authz.caSecret" . }}
    defaultMode: 0440
    items:
      - key: {{ .Values.database.ssl.caKey }}
        path: ca.crt
{{- end -}}
