#!/bin/sh
# Makes vLLM's environment in /opt/vllm. Runs in the build stage alone.
set -eu
if [ -e /opt/vllm/pyvenv.cfg ]; then
  exit 0 # made earlier; whether it loads, the last stage sees
fi
if [ -s /run/secrets/ca ]; then
  export SSL_CERT_FILE=/run/secrets/ca PIP_CERT=/run/secrets/ca
fi
if [ -s /run/secrets/pip ]; then
  export PIP_CONFIG_FILE=/run/secrets/pip
fi
export DEBIAN_FRONTEND=noninteractive DEBCONF_NOWARNINGS=yes PIP_DISABLE_PIP_VERSION_CHECK=1 PIP_ROOT_USER_ACTION=ignore
apt-get update -qq
apt-get install -qq --no-install-recommends ca-certificates python3 python3-venv >/dev/null
if ! python3 -c 'import sys; sys.exit(sys.version_info[:2] != (3, 11))'; then
  echo "error: the lock is for Python 3.11, which Debian 12 has; this base has $(python3 --version)" >&2
  exit 2
fi
python3 -m venv /opt/vllm
/opt/vllm/bin/python -m pip install --quiet --no-input --no-cache-dir --require-hashes --no-deps --only-binary :all: \
  -r /build/requirements.txt
/opt/vllm/bin/python -m pip uninstall --quiet --yes pip
