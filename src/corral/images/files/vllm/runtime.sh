#!/bin/sh
# What vLLM needs of the system: Python, the library for memory's nodes, and the compiler that torch makes kernels with.
set -eu
missing=
for package in python3 libnuma1 g++ libpython3-dev; do
  dpkg-query --show --showformat '${Status}' "$package" 2>/dev/null | grep -q 'ok installed' || missing="$missing $package"
done
if [ -n "$missing" ]; then
  export DEBIAN_FRONTEND=noninteractive DEBCONF_NOWARNINGS=yes
  apt-get update -qq
  # shellcheck disable=SC2086  # one word a package
  apt-get install -qq --no-install-recommends $missing >/dev/null
  rm -rf /var/lib/apt/lists/* /var/cache/apt/*.bin /var/log/dpkg.log /var/log/apt
fi
rm -rf /build
