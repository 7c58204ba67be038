#!/bin/bash
# SPDX-License-Identifier: Apache-2.0
# A wheel with the simulated card inside: tools/wheel.sh LIBRARY FOLDER. Run by make, from the root.
set -euo pipefail
library=$(realpath "$1")
python=${PYTHON:-.venv/bin/python}
"$python" -m pip wheel -q --disable-pip-version-check --no-deps --no-build-isolation --wheel-dir "$2" \
    --config-settings=cmake.define.TWINSTAMP_SIM_LIBRARY="$library" \
    --config-settings=cmake.define.TWINSTAMP_NATIVE=OFF .
ls "$2"/twinstamp-*.whl
