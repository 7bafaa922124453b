# The runner of docker-compose.yml. The compiler stays behind in the first stage.
FROM python:3.11-slim AS build
# The base image is what is pinned; the compiler is that of its distribution.
# hadolint ignore=DL3008
RUN apt-get update && apt-get install --yes --no-install-recommends gcc libc6-dev && rm -rf /var/lib/apt/lists/*
WORKDIR /source
COPY pyproject.toml setup.py README.md LICENSE ./
COPY src ./src
RUN pip wheel --no-cache-dir --wheel-dir /wheels ".[cli,exchange,metrics]"

FROM python:3.11-slim
# hadolint ignore=DL3013
RUN --mount=type=bind,from=build,source=/wheels,target=/wheels \
    pip install --no-cache-dir --no-index --find-links /wheels "backtest-kit-mongo[cli,exchange,metrics]" \
    && useradd --create-home runner \
    && install --directory --owner runner --group runner /home/runner/.local /home/runner/.local/state
COPY --chmod=755 docker/entrypoint.sh /usr/local/bin/entrypoint.sh
USER runner
WORKDIR /workspace
ENTRYPOINT ["entrypoint.sh"]
