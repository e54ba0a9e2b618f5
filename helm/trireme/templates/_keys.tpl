{{/* An API key with its checksum, as `trireme keys create` makes it: trireme_sk_ID_SECRET and six characters. The tables
     are explained in helm/key_tables.py. Takes (list $ id secret). */}}
{{- define "trireme.apiKey" -}}
{{- $tables := (index . 0).Files.Get "files/key.json" | fromJson -}}
{{- $body := printf "trireme_sk_%s_%s" (index . 1) (index . 2) -}}
{{- $sum := list 15 15 15 15 15 15 15 15 -}}
{{- range splitList "" $body -}}
{{- range get $tables.codes . -}}
{{- $change := index $tables.changes (index $tables.xor (add (mul 16 (int (first $sum))) (int .) | int) | int) -}}
{{- $shifted := append (rest $sum) 0 -}}
{{- $sum = list -}}
{{- range $i, $nibble := $shifted -}}
{{- $sum = append $sum (index $tables.xor (add (mul 16 (int $nibble)) (int (index $change $i)) | int) | int) -}}
{{- end -}}
{{- end -}}
{{- end -}}
{{- $number := 0 -}}
{{- range reverse $sum -}}
{{- $number = add (mul 16 $number) (sub 15 .) -}}
{{- end -}}
{{- $check := "" -}}
{{- range until 6 -}}
{{- $digit := mod $number 62 | int -}}
{{- $check = print (substr $digit (add 1 $digit | int) $tables.alphabet) $check -}}
{{- $number = div $number 62 -}}
{{- end -}}
{{- $body }}{{ $check -}}
{{- end }}

{{/* A file of keys with one key, of the tenant `default`. Takes the key. */}}
{{- define "trireme.keysFile" -}}
{{- $key := dict "id" (substr 11 23 .) "sha256" (sha256sum .) "tenant" "default" "name" "of the chart" -}}
{{- $key = merge $key (dict "scopes" (list "generate" "sessions" "cluster") "created" (now | date "2006-01-02T15:04:05Z07:00")) -}}
{{- dict "version" 1 "keys" (list $key) | toJson -}}
{{- end }}
