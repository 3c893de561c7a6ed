# The images of Concordat. Targets: operator, site, learning, registry.
# Dependencies and code are separate layers; `concordat images` builds the former as images of their own
# and passes their names in *_DEPS, so that a change of code rebuilds and moves a few hundred kilobytes.
ARG BASE_IMAGE=docker.io/library/python:3.11-slim-bookworm
ARG OPERATOR_DEPS=operator-deps
ARG SITE_DEPS=site-deps
ARG LEARNING_DEPS=learning-deps

FROM ${BASE_IMAGE} AS base
ENV PATH=/opt/concordat/bin:$PATH \
    HOME=/tmp \
    PYTHONPATH=/opt/concordat/src \
    PYTHONDONTWRITEBYTECODE=1 \
    PYTHONUNBUFFERED=1

FROM base AS installer
COPY requirements/uv.txt /requirements.txt
RUN python3 -m venv /opt/uv \
 && PIP_CERT=/etc/ssl/certs/ca-certificates.crt PIP_DISABLE_PIP_VERSION_CHECK=1 \
    /opt/uv/bin/pip install --quiet --no-cache-dir --require-hashes -r /requirements.txt

FROM base AS operator-deps
ARG UV_CACHE_DIR=/var/cache/uv
COPY requirements/operator.txt /opt/concordat/requirements.txt
RUN --mount=type=bind,from=installer,source=/opt/uv,target=/opt/uv \
    --mount=type=cache,target=/var/cache/uv \
    export UV_LINK_MODE=copy UV_COMPILE_BYTECODE=1 SSL_CERT_FILE=/etc/ssl/certs/ca-certificates.crt \
 && /opt/uv/bin/uv venv --quiet --allow-existing --no-managed-python --python python3 /opt/concordat \
 && /opt/uv/bin/uv pip install --quiet --python /opt/concordat/bin/python --require-hashes -r /opt/concordat/requirements.txt

FROM base AS site-deps
ARG UV_CACHE_DIR=/var/cache/uv
COPY requirements/site.txt /opt/concordat/requirements.txt
RUN --mount=type=bind,from=installer,source=/opt/uv,target=/opt/uv \
    --mount=type=cache,target=/var/cache/uv \
    export UV_LINK_MODE=copy UV_COMPILE_BYTECODE=1 SSL_CERT_FILE=/etc/ssl/certs/ca-certificates.crt \
 && /opt/uv/bin/uv venv --quiet --allow-existing --no-managed-python --python python3 /opt/concordat \
 && /opt/uv/bin/uv pip install --quiet --python /opt/concordat/bin/python --require-hashes -r /opt/concordat/requirements.txt

FROM base AS learning-deps
ARG UV_CACHE_DIR=/var/cache/uv
COPY requirements/learning.txt /opt/concordat/requirements.txt
RUN --mount=type=bind,from=installer,source=/opt/uv,target=/opt/uv \
    --mount=type=cache,target=/var/cache/uv \
    export UV_LINK_MODE=copy UV_COMPILE_BYTECODE=1 SSL_CERT_FILE=/etc/ssl/certs/ca-certificates.crt \
 && /opt/uv/bin/uv venv --quiet --allow-existing --no-managed-python --python python3 /opt/concordat \
 && /opt/uv/bin/uv pip install --quiet --python /opt/concordat/bin/python --require-hashes -r /opt/concordat/requirements.txt

FROM ${OPERATOR_DEPS} AS operator
COPY concordat /opt/concordat/src/concordat
COPY operator/concordat_operator /opt/concordat/src/concordat_operator
RUN python -m compileall -q --invalidation-mode unchecked-hash /opt/concordat/src
USER 65532:65532
ENTRYPOINT ["python"]

FROM ${SITE_DEPS} AS site
COPY concordat /opt/concordat/src/concordat
COPY site_agent/concordat_site /opt/concordat/src/concordat_site
RUN python -m compileall -q --invalidation-mode unchecked-hash /opt/concordat/src
USER 65532:65532
ENTRYPOINT ["python"]

FROM ${LEARNING_DEPS} AS learning
COPY concordat /opt/concordat/src/concordat
COPY learning/concordat_learning /opt/concordat/src/concordat_learning
RUN python -m compileall -q --invalidation-mode unchecked-hash /opt/concordat/src
USER 65532:65532
ENTRYPOINT ["python"]

# The build context `tools` is a folder with the distribution registry's binary.
FROM base AS registry
COPY --from=tools registry /usr/local/bin/registry
USER 65532:65532
ENTRYPOINT ["registry"]
