# Two images: that in which jobs run, and that of Airflow, which docker-compose.yaml builds (target airflow).
# The first is what is built without a target: evalcore and what it needs on a node, as one who is not root.
#   docker build -t evalcore .
# With an inference server in it, and where no hub can be reached: BASE names any image with Python 3.11 or
# later, its venv module and pip.
#   docker build -t evalcore-vllm --build-arg BASE=vllm/vllm-openai:latest .
ARG BASE=python:3.11-slim
FROM ${BASE} AS jobs

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


# Airflow with evalcore and our DAGs, plugins and tiny checkpoints.
FROM ${BASE} AS airflow
ARG PIP_INDEX_URL
RUN python3 -m venv /opt/venv
ENV PATH=/opt/venv/bin:$PATH VIRTUAL_ENV=/opt/venv
WORKDIR /opt/evalcore
COPY requirements.lock pyproject.toml README.md ./
# Checked against the lock's hashes, what develops and tests it left out; hatchling is what builds evalcore below.
# Compiled here, since whoever runs it may not write there and would compile a thousand modules at each start.
RUN sed -n '/^uv==/,/[^\\]$/p' requirements.lock > /tmp/uv.txt \
 && pip install --no-cache-dir --require-hashes -r /tmp/uv.txt \
 && export ${PIP_INDEX_URL:+UV_DEFAULT_INDEX=$PIP_INDEX_URL} UV_NO_CACHE=1 \
 && uv pip install --compile-bytecode --require-hashes -c requirements.lock -r pyproject.toml "$(grep -o "^hatchling==[^ ]*" requirements.lock)" \
      --extra airflow --extra compare --extra hub --extra history --extra plot --extra postgres --extra wandb
COPY evalcore evalcore
COPY include include
RUN uv pip install --no-cache --offline --no-deps --no-build-isolation --compile-bytecode . \
 && rm -r evalcore requirements.lock pyproject.toml README.md
COPY plugins plugins
COPY dags dags
RUN python -m compileall -q plugins dags
# Volumes get the owner of the folders they are mounted on.
RUN useradd --create-home --uid 1000 evalcore \
 && mkdir -p /home/evalcore/.cache /opt/airflow/logs /results \
 && chown -R evalcore: /home/evalcore/.cache /opt/airflow /results
ENV AIRFLOW_HOME=/opt/airflow \
    AIRFLOW__CORE__DAGS_FOLDER=/opt/evalcore/dags \
    AIRFLOW__CORE__PLUGINS_FOLDER=/opt/evalcore/plugins \
    AIRFLOW__CORE__LOAD_EXAMPLES=False \
    EVALCORE_RESULTS=/results
WORKDIR /config
USER evalcore
ENTRYPOINT ["airflow"]

FROM jobs
