#!/bin/sh
# Entry point of the image.
#
#   coordinator [OPTION...]    trireme serve
#   worker [OPTION...]         a node of a Ray cluster, such as: worker --address=HEAD:6379; needs a token
#   COMMAND [ARGUMENT...]      any other command, such as: trireme generate ...
set -eu

# Kernels that were compiled with the image become those of this user, in a folder of its own that can be written to.
compiled=${TRIREME_COMPILED_KERNELS:-/opt/trireme/kernels}
unset TRIREME_COMPILED_KERNELS
if [ -d "${compiled}" ] && [ -n "${TRIREME_CACHE_DIR:-}" ] && [ ! -e "${TRIREME_CACHE_DIR}" ]; then
  (umask 077 && mkdir -p "${TRIREME_CACHE_DIR}" && cp -R -p "${compiled}/." "${TRIREME_CACHE_DIR}" && chmod -R go-rwx "${TRIREME_CACHE_DIR}")
fi

case "${1:-coordinator}" in
  coordinator)
    [ $# -eq 0 ] || shift
    exec trireme serve "$@"
    ;;
  worker)
    shift
    if [ -z "${RAY_AUTH_TOKEN_PATH:-}${RAY_AUTH_TOKEN:-}" ]; then
      echo "An open Ray runs anybody's code: give the cluster's token with RAY_AUTH_TOKEN_PATH." >&2
      exit 1
    fi
    export RAY_AUTH_MODE=token RAY_USAGE_STATS_ENABLED=0 RAY_worker_niceness=0
    exec ray start --block --num-cpus=1 --object-store-memory=83886080 --disable-usage-stats "$@"
    ;;
  *)
    exec "$@"
    ;;
esac
