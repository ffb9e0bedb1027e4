# The pipeline on NVIDIA's GPUs: what requirements.lock says and nothing else; CUDA comes with its packages, the driver
# from the host.
#   docker build --file docker/cuda.Dockerfile --tag saliency-r1:cuda .
# The full Debian image: it has git, which DVC asks for the state of the project, make, and a compiler, which triton wants.
FROM python:3.11-bookworm
ENV PYTHONUNBUFFERED=1 PIP_NO_CACHE_DIR=1 PIP_DISABLE_PIP_VERSION_CHECK=1 DO_NOT_TRACK=1 DVC_NO_ANALYTICS=1 \
    GX_ANALYTICS_ENABLED=false HOME=/tmp HF_HOME=/work/.cache/huggingface NUMBA_CACHE_DIR=/tmp/numba \
    NVIDIA_VISIBLE_DEVICES=all NVIDIA_DRIVER_CAPABILITIES=compute,utility
COPY requirements.lock /opt/saliency-r1/
WORKDIR /opt/saliency-r1
RUN pip install --no-deps --requirement requirements.lock
COPY pyproject.toml README.md LICENSE ./
COPY src src
RUN pip install --no-deps --no-build-isolation .
WORKDIR /work
ENTRYPOINT ["saliency-r1"]
CMD ["--help"]
