#!/bin/sh
# Fetches the detector's libraries into /opt/corral/lib. Runs in the build stage alone.
set -eu
if [ -s /run/secrets/ca ]; then
  export SSL_CERT_FILE=/run/secrets/ca PIP_CERT=/run/secrets/ca
fi
export DEBIAN_FRONTEND=noninteractive DEBCONF_NOWARNINGS=yes PIP_DISABLE_PIP_VERSION_CHECK=1 PIP_ROOT_USER_ACTION=ignore
apt-get update -qq
apt-get install -qq --no-install-recommends ca-certificates python3 python3-venv >/dev/null
python3 -m venv /build/env
/build/env/bin/python -m pip install --quiet --no-input --require-hashes --no-deps --only-binary :all: \
  --target /opt/corral/lib -r /build/requirements.txt
rm -rf /opt/corral/lib/bin
