#!/bin/sh
# Installs the service into PREFIX, an environment of its own, from PACKAGE: a wheel, a checkout or a name with a version.
# The image and the unit below are made with it, and so is what `.ci/run` tries; pip takes its own options from the
# environment (PIP_EXTRA_INDEX_URL=https://download.pytorch.org/whl/cpu for the build of PyTorch without CUDA).
#
#     sh deploy/install.sh PREFIX PACKAGE
set -eu
prefix=$1
package=$2

python3 -m venv "$prefix"
"$prefix/bin/python" -m pip install --no-cache-dir --quiet "$package[serve,postgres]"
"$prefix/bin/steadface" serve --help > /dev/null
