# The service without a database: `docker run -e DATABASE_URL=… IMAGE migrate`, then `docker run -e DATABASE_URL=… IMAGE`.
# It writes to no file, so it runs with --read-only; it needs no capability, so with --cap-drop=ALL.
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
COPY --from=build /opt/authz /opt/authz
ENV PATH=/opt/authz/bin:$PATH \
    HOME=/tmp \
    PYTHONDONTWRITEBYTECODE=1 \
    PYTHONUNBUFFERED=1 \
    AUTHZ_HOST=0.0.0.0 \
    AUTHZ_PORT=8080
# A number, since Kubernetes' runAsNonRoot cannot judge a name.
USER 10001:10001
EXPOSE 8080
HEALTHCHECK --interval=10s --timeout=3s --start-period=20s --retries=3 \
    CMD ["python", "-c", "import os, urllib.request as r; r.urlopen('http://127.0.0.1:' + os.environ['AUTHZ_PORT'] + '/livez', timeout=2)"]
ENTRYPOINT ["authz"]
CMD ["serve"]
