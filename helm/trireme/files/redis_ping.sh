#!/bin/sh
# Ends with 0 where the session store takes the password and has read its data.
cli=$(command -v valkey-cli || command -v redis-cli) || exec python /etc/trireme/scripts/redis_ping.py
[ -z "${REDIS_TLS:-}" ] || tls="--tls --cacert ${REDIS_TLS}/ca.crt"
# shellcheck disable=SC2086
[ "$(REDISCLI_AUTH="${REDIS_PASSWORD}" "${cli}" -h 127.0.0.1 -p 6379 ${tls:-} --user trireme --no-auth-warning ping)" = PONG ]
