# The command `dsql-outbox`, ready for Aurora DSQL, every sink and OTLP; versions are uv.lock's.
# CONTRIBUTING.md says how to renew the digest.
FROM python:3.13-slim@sha256:7c61056e61ac89e852de05f3dc6fa51a6dd2181797bceed46aa725dd7cb2cd3b AS base

FROM base AS build
ENV UV_COMPILE_BYTECODE=1 UV_LINK_MODE=copy UV_PYTHON_DOWNLOADS=never
RUN pip install --no-cache-dir "uv==0.13.9"
WORKDIR /app
# All but those for programs of your own, and the embedded servers.
ARG EXTRAS="--all-extras --no-extra all --no-extra demo --no-extra django --no-extra embedded --no-extra fastapi --no-extra lambda --no-extra sqlalchemy --no-extra starlette"
# The dependencies make a layer of their own: it changes with the lock file only.
COPY pyproject.toml setup.py uv.lock README.md LICENSE ./
RUN uv sync --frozen --no-dev --no-install-project $EXTRAS
COPY src src
COPY observability observability
COPY outbox outbox
COPY publisher publisher
COPY schema schema
COPY writer writer
RUN uv sync --frozen --no-dev --no-editable $EXTRAS

FROM base
RUN useradd --no-create-home --uid 10001 outbox
COPY --from=build /app/.venv /app/.venv
# By its number: Kubernetes cannot tell whether a name is root.
USER 10001
# What `publish` serves, and the health check asks. Only this container reaches it.
ENV DSQL_OUTBOX_LISTEN=127.0.0.1:9464
HEALTHCHECK --interval=30s --timeout=5s --start-period=30s \
    CMD ["/app/.venv/bin/python", "-c", "import urllib.request as u; u.urlopen('http://127.0.0.1:9464/healthz', timeout=4)"]
ENTRYPOINT ["/app/.venv/bin/dsql-outbox"]
