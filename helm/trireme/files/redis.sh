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
exec valkey-server /etc/trireme/scripts/redis.conf --maxmemory "${REDIS_MAXMEMORY}"
