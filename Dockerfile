# An image in which jobs run: evalcore and what it needs on a node, as one who is not root.
#   docker build -t evalcore .
# Where no hub can be reached, BASE names any image with Python 3.11 or later, its venv module and pip.
ARG BASE=python:3.11-slim
FROM ${BASE}

# Only while it builds: an argument is in no variable of the image.
ARG PIP_INDEX_URL
RUN python3 -m venv /opt/evalcore
ENV PATH=/opt/evalcore/bin:$PATH

WORKDIR /src
COPY requirements.lock ./
RUN pip install --no-cache-dir --require-hashes -r requirements.lock
COPY pyproject.toml README.md ./
COPY evalcore evalcore
COPY include include
RUN pip install --no-cache-dir --no-deps --no-build-isolation . && rm -rf /src/* \
 && useradd --create-home --uid 1000 evalcore

WORKDIR /home/evalcore
USER evalcore
ENTRYPOINT ["evalcore"]
