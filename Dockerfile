# The command `dsql-outbox`, ready for Aurora DSQL, every sink and OTLP; versions are uv.lock's.
FROM python:3.13-slim AS build
ENV UV_COMPILE_BYTECODE=1 UV_LINK_MODE=copy UV_PYTHON_DOWNLOADS=never
RUN pip install --no-cache-dir "uv>=0.8"
WORKDIR /app
ARG EXTRAS="--extra binary --extra cli --extra console --extra dsql --extra eventbridge --extra kafka --extra nats --extra otlp --extra prometheus --extra sns --extra sqs --extra uvloop"
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

FROM python:3.13-slim
RUN useradd --no-create-home --uid 10001 outbox
COPY --from=build /app/.venv /app/.venv
USER outbox
ENTRYPOINT ["/app/.venv/bin/dsql-outbox"]
