# The service without a database: `docker run -e DATABASE_URL=… IMAGE migrate`, then `docker run -e DATABASE_URL=… IMAGE`.
# It writes to /tmp at most, where several workers sum their figures: run it with --read-only --tmpfs /tmp. It needs no
# capability, so with --cap-drop=ALL. deploy/compose and deploy/helm do; tests/e2e/test_deploy_run.py runs it that way.
ARG PYTHON=3.13

FROM python:${PYTHON}-slim AS build
ARG EXTRAS=server
ENV PIP_DISABLE_PIP_VERSION_CHECK=1 PIP_NO_CACHE_DIR=1 PIP_NO_INPUT=1
WORKDIR /build
COPY constraints.txt ./
# The builder's own environment, so that nothing of it reaches the image.
RUN python -m venv /opt/builder && /opt/builder/bin/pip install --constraint constraints.txt hatchling
COPY pyproject.toml LICENSE ./
COPY src src
COPY migrations migrations
RUN /opt/builder/bin/pip wheel --no-deps --no-build-isolation --wheel-dir /dist .
RUN python -m venv --without-pip /opt/authz \
    && /opt/builder/bin/pip --python /opt/authz/bin/python install --constraint constraints.txt \
        "$(ls /dist/*.whl)[${EXTRAS}]"

FROM python:${PYTHON}-slim
LABEL org.opencontainers.image.title="authz-service" \
    org.opencontainers.image.description="A policy decision point for fine-grained access tokens" \
    org.opencontainers.image.licenses="Apache-2.0"
COPY --from=build /opt/authz /opt/authz
ENV PATH=/opt/authz/bin:$PATH \
    HOME=/tmp \
    PYTHONDONTWRITEBYTECODE=1 \
    PYTHONUNBUFFERED=1 \
    AUTHZ_HOST=0.0.0.0 \
    AUTHZ_PORT=8080 \
    AUTHZ_METRICS_DIR=/tmp/metrics
# A number, since Kubernetes' runAsNonRoot cannot judge a name.
USER 10001:10001
EXPOSE 8080
# Whether it answers; whether it may be asked is `authz health --ready`, which no restart mends.
HEALTHCHECK --interval=10s --timeout=5s --start-period=90s --retries=3 CMD ["authz", "health"]
ENTRYPOINT ["authz"]
CMD ["serve"]
