# The program with CUDA PyTorch. The ordinary wheels bring CUDA along; the host needs NVIDIA's driver and container
# toolkit. Weights are not included: they live in the volume /weights. docker-compose.yml puts a proxy in front.
#
#   docker build -t uso .
#   docker run --rm --gpus all --init -p 7860:7860 -v uso-weights:/weights -v uso-outputs:/outputs uso
#   docker run --rm -e HF_TOKEN -v uso-weights:/weights --entrypoint python uso -m uso download --model flux-dev
FROM python:3.11-slim

ENV PYTHONUNBUFFERED=1 \
    PYTHONDONTWRITEBYTECODE=1 \
    PIP_NO_CACHE_DIR=1 \
    PIP_DISABLE_PIP_VERSION_CHECK=1 \
    PIP_ROOT_USER_ACTION=ignore \
    HF_HOME=/weights \
    XDG_CACHE_HOME=/weights/cache

# Triton needs a C compiler to build the launchers of compiled blocks. They are kept in the volume with the weights.
# hadolint ignore=DL3008
RUN apt-get update \
    && apt-get install --yes --no-install-recommends gcc libc6-dev \
    && rm -rf /var/lib/apt/lists/*

RUN useradd --uid 1000 --create-home uso \
    && install --directory --owner=uso --group=uso /weights /outputs

WORKDIR /app

# By far the largest layer (gigabytes). It stands alone, so that other requirements can change without it.
ARG TORCH_VERSION=2.13.0
RUN pip install "torch==${TORCH_VERSION}"
COPY requirements.txt ./
RUN pip install -r requirements.txt

# Owned by root and read by uso, so the running program cannot change itself.
COPY LICENSE app.py ./
COPY configs configs
COPY assets assets
COPY deploy/starting.html deploy/starting.html
COPY uso uso

USER 1000
VOLUME ["/weights", "/outputs"]
EXPOSE 7860

# Checks that the process is alive, not that it is ready: loading takes minutes and is no reason for a restart (/readyz
# reports when the model is ready). http.client, because urllib would use a proxy from the environment.
HEALTHCHECK --interval=30s --timeout=10s --start-period=60s --retries=5 \
    CMD ["python", "-c", "import http.client as h; c = h.HTTPConnection('127.0.0.1', 7860, timeout=8); c.request('GET', '/healthz'); raise SystemExit(c.getresponse().status != 200)"]

# Arguments after the image's name in `docker run` are added to these flags and override them.
ENTRYPOINT ["python", "app.py", "--host", "0.0.0.0", "--output", "/outputs"]
CMD ["--model", "auto"]
