#!/bin/sh
# Starts the session store with one user, who may run only the commands of the session store and of
# the page store on only their keys.
set -eu
umask 077
if [ -z "${REDIS_PASSWORD}" ]; then
  echo "The password of the session store is empty." >&2
  exit 1
fi
digest=$(printf %s "${REDIS_PASSWORD}" | sha256sum | cut -d ' ' -f 1)
commands="+auth +hello +ping +multi +exec +discard +watch +unwatch +hset +hget +hgetall +hdel +append +get +getrange +set +strlen +del +pexpire +zadd +zrem +zrange +info +exists +zcard +zpopmin +zremrangebyscore"
printf 'user default off\nuser trireme on #%s resetchannels ~trireme:* -@all %s\n' "${digest}" "${commands}" > /run/redis/users.acl
unset REDIS_PASSWORD
set -- /etc/trireme/scripts/redis.conf --maxmemory "${REDIS_MAXMEMORY}"
if [ -n "${REDIS_TLS:-}" ]; then  # the port speaks TLS alone; clients have a password, not a certificate
  set -- "$@" --port 0 --tls-port 6379 --tls-auth-clients no --tls-ca-cert-file "${REDIS_TLS}/ca.crt" \
    --tls-cert-file "${REDIS_TLS}/tls.crt" --tls-key-file "${REDIS_TLS}/tls.key"
fi
exec "$(command -v valkey-server || command -v redis-server)" "$@"
