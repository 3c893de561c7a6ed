# The images of Concordat. Targets: operator, agent, learning, registry, pause.
# Dependencies and code are separate layers: devcluster/concordat_devcluster/images.py builds the former as images of
# their own and passes their names in *_DEPS, so that a change of code rebuilds and moves a few hundred kilobytes.
ARG BASE_IMAGE=docker.io/library/python:3.11-slim-bookworm
ARG OPERATOR_DEPS=operator-deps
ARG AGENT_DEPS=agent-deps
ARG LEARNING_DEPS=learning-deps

FROM ${BASE_IMAGE} AS base
ENV PATH=/opt/concordat/bin:$PATH \
    HOME=/tmp \
    PYTHONPATH=/opt/concordat/src \
    PYTHONDONTWRITEBYTECODE=1 \
    PYTHONUNBUFFERED=1

FROM base AS operator-deps
COPY requirements/install.sh requirements/uv.txt requirements/operator.txt /opt/concordat/requirements/
RUN --mount=type=cache,target=/var/cache/uv sh /opt/concordat/requirements/install.sh operator

FROM base AS agent-deps
COPY requirements/install.sh requirements/uv.txt requirements/agent.txt /opt/concordat/requirements/
RUN --mount=type=cache,target=/var/cache/uv sh /opt/concordat/requirements/install.sh agent

# Training runs on CPUs, but torch from PyPI is the CUDA build. What it does not link is left out: 2.3 of 4.0 GB. The
# rest of CUDA must stay, because `import torch` loads it.
FROM base AS learning-deps
COPY requirements/install.sh requirements/uv.txt requirements/learning.txt /opt/concordat/requirements/
RUN --mount=type=cache,target=/var/cache/uv \
    sh /opt/concordat/requirements/install.sh learning \
      triton cuda-bindings cuda-pathfinder cuda-toolkit nvidia-cuda-cccl nvidia-cusolver nvidia-nvtx \
 && cd /opt/concordat/lib/python3*/site-packages/nvidia \
 && rm -rf cudnn/lib/libcudnn_* nvshmem/lib/*.bc nvshmem/lib/*.a cu13/lib/libnvperf_* cu13/include

FROM ${OPERATOR_DEPS} AS operator
COPY concordat /opt/concordat/src/concordat
COPY operator/concordat_operator /opt/concordat/src/concordat_operator
COPY operator/concordat_gateway /opt/concordat/src/concordat_gateway
COPY aggregator/concordat_aggregator /opt/concordat/src/concordat_aggregator
RUN python -m compileall -q --invalidation-mode unchecked-hash /opt/concordat/src
USER 65532:65532
ENTRYPOINT ["python"]

FROM ${AGENT_DEPS} AS agent
COPY concordat /opt/concordat/src/concordat
COPY site_agent/concordat_agent /opt/concordat/src/concordat_agent
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

# For the embedded cluster: holds a pod's namespaces. Its base must have busybox-static.
FROM scratch AS pause
COPY --from=base /bin/busybox /bin/busybox
RUN ["/bin/busybox", "--install", "-s", "/bin"]
USER 65532:65532
ENTRYPOINT ["/bin/sh", "-c", "trap 'exit 0' TERM INT; sleep 2147483647 & wait $!"]
