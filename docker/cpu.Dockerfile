# The pipeline on processors: what requirements.lock says and nothing else.
#   docker build --file docker/cpu.Dockerfile --tag saliency-r1 .
# The full Debian image: it has git, which DVC asks for the state of the project, and make.
FROM python:3.11-bookworm
ENV PYTHONUNBUFFERED=1 PIP_NO_CACHE_DIR=1 PIP_DISABLE_PIP_VERSION_CHECK=1 DO_NOT_TRACK=1 DVC_NO_ANALYTICS=1 \
    GX_ANALYTICS_ENABLED=false HOME=/tmp HF_HOME=/work/.cache/huggingface NUMBA_CACHE_DIR=/tmp/numba
# An index with builds of torch without CUDA, of the same version; without one torch is the lock's, which runs on
# processors as well and is some gigabytes larger.
ARG TORCH_INDEX=
COPY requirements.lock /opt/saliency-r1/
WORKDIR /opt/saliency-r1
RUN if [ -n "$TORCH_INDEX" ]; then sed -i -E '/^(nvidia|cuda|triton)/d' requirements.lock; fi \
    && pip install --no-deps ${TORCH_INDEX:+--extra-index-url "$TORCH_INDEX"} --requirement requirements.lock
COPY pyproject.toml README.md LICENSE ./
COPY src src
RUN pip install --no-deps --no-build-isolation .
WORKDIR /work
ENTRYPOINT ["saliency-r1"]
CMD ["--help"]
