#!/bin/sh
# What the server needs beside its own files: `runtime.sh VARIANT`. Where the base has all of it, nothing is fetched.
set -eu
variant=$1
packages="ca-certificates curl libgomp1 libssl3"
[ "$variant" = vulkan ] && packages="$packages libvulkan1 mesa-vulkan-drivers"
missing=
for package in $packages; do
  dpkg-query --show --showformat '${Status}' "$package" 2>/dev/null | grep -q 'ok installed' || missing="$missing $package"
done
if [ -n "$missing" ]; then
  export DEBIAN_FRONTEND=noninteractive DEBCONF_NOWARNINGS=yes
  apt-get update -qq
  # shellcheck disable=SC2086  # one word a package
  apt-get install -qq --no-install-recommends $missing >/dev/null
  rm -rf /var/lib/apt/lists/* /var/cache/apt/*.bin /var/log/dpkg.log /var/log/apt
fi
rm -- "$0"
