# The base of model_template and of the examples: Debian (or Ubuntu) with a Python of its own in /opt/python.
# `make images` builds it as inferenceserver/python:3; no syntax here needs BuildKit.
ARG SYSTEM
FROM ${SYSTEM}

RUN apt-get update -qq \
    && DEBIAN_FRONTEND=noninteractive apt-get install -y -qq --no-install-recommends \
        ca-certificates python3 python3-venv \
    && rm -rf /var/lib/apt/lists/* /var/cache/apt/*.bin

# The building machine's own CA bundle joins the public one, so that pip works where a proxy inspects TLS.
COPY machine-ca.crt /tmp/machine-ca.crt
RUN cat /tmp/machine-ca.crt >>/etc/ssl/certs/ca-certificates.crt && rm /tmp/machine-ca.crt

# A virtual environment, because Debian keeps pip away from the system's own Python.
RUN python3 -m venv /opt/python
ENV PATH=/opt/python/bin:$PATH \
    PIP_CERT=/etc/ssl/certs/ca-certificates.crt \
    SSL_CERT_FILE=/etc/ssl/certs/ca-certificates.crt \
    REQUESTS_CA_BUNDLE=/etc/ssl/certs/ca-certificates.crt \
    PIP_DISABLE_PIP_VERSION_CHECK=1 \
    PIP_ROOT_USER_ACTION=ignore \
    PYTHONUNBUFFERED=1 \
    PYTHONDONTWRITEBYTECODE=1
CMD ["python"]
