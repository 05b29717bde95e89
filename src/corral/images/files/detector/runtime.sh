#!/bin/sh
# What the detector needs of the system: Python.
set -eu
if ! /usr/bin/python3 -c 'import asyncio, ssl, sys; sys.exit(sys.version_info < (3, 11))' 2>/dev/null; then
  export DEBIAN_FRONTEND=noninteractive DEBCONF_NOWARNINGS=yes
  apt-get update -qq
  apt-get install -qq --no-install-recommends python3 >/dev/null
  rm -rf /var/lib/apt/lists/* /var/cache/apt/*.bin /var/log/dpkg.log /var/log/apt
fi
rm -rf /build
