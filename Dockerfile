# An image in which jobs run: evalcore and what it needs on a node, as one who is not root.
#   docker build -t evalcore .
# With an inference server in it, and where no hub can be reached: BASE names any image with Python 3.11 or
# later, its venv module and pip.
#   docker build -t evalcore-vllm --build-arg BASE=vllm/vllm-openai:latest .
ARG BASE=python:3.11-slim
FROM ${BASE}

# Only while it builds; `docker history` shows it, so there must be no password in it.
ARG PIP_INDEX_URL
# What the base brings stays visible, and as it is.
RUN python3 -m venv --system-site-packages /opt/evalcore
ENV PATH=/opt/evalcore/bin:$PATH

WORKDIR /src
COPY requirements.lock pyproject.toml README.md ./
COPY evalcore evalcore
COPY include include
# The lock is that of a whole checkout; of it only the versions of what is needed here.
RUN sed -nE 's/^([A-Za-z].*==[^\\]*[^ \\]).*/\1/p' requirements.lock > constraints.txt \
 && pip install --no-cache-dir -c constraints.txt ".[compare,hub,wandb]" \
 && rm -rf /src/* \
 && useradd --create-home evalcore

WORKDIR /home/evalcore
USER evalcore
ENTRYPOINT ["evalcore"]
