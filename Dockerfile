# The suite in a container, for a cluster. Two targets:
#   docker build --target cuda -t domain-vision:cuda .
#   docker build --target cpu  -t domain-vision:cpu  .
# Exact versions come from constraints.txt. Torch from PyPI brings its own CUDA libraries; the host needs a driver alone.
FROM node:22-bookworm-slim AS viewer
WORKDIR /app/apps/review
COPY apps/review ./
RUN npm ci --ignore-scripts --no-audit --no-fund && npm run --silent build

FROM python:3.11-slim-bookworm AS base
ENV PIP_NO_CACHE_DIR=1 PYTHONUNBUFFERED=1 MLFLOW_DISABLE_TELEMETRY=true NO_ALBUMENTATIONS_UPDATE=1
WORKDIR /app
COPY pyproject.toml constraints.txt README.md LICENSE ./
COPY apps apps
COPY astrovision astrovision
COPY geovision geovision
COPY medvision medvision
COPY pipelines pipelines
COPY shared_backbones shared_backbones
# the interactive viewer of reports, later than its sources: the build then takes it as it is
RUN --mount=type=bind,from=viewer,source=/app/pipelines/report/assets,target=/viewer \
    mkdir -p pipelines/report/assets && cp -r /viewer/. pipelines/report/assets/

FROM base AS cpu
# PyTorch's index of CPU wheels makes the image 4 GB smaller: --build-arg TORCH_INDEX=URL
ARG TORCH_INDEX=
RUN pip install --constraint constraints.txt ${TORCH_INDEX:+--extra-index-url "$TORCH_INDEX"} ".[train,geo,astro,dicom]" \
    && useradd --create-home --uid 1000 user
USER 1000
WORKDIR /home/user
CMD ["python", "-m", "pipelines", "--help"]

FROM base AS cuda
RUN pip install --constraint constraints.txt ".[train,geo,astro,dicom]" \
    && useradd --create-home --uid 1000 user
USER 1000
WORKDIR /home/user
CMD ["python", "-m", "pipelines", "--help"]
