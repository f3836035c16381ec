#!/bin/sh
# SPDX-License-Identifier: BSD-2-Clause
# Makes a virtual environment with the PyTorch that this project compares itself with; Dragon has no wheels for its
# Python, so that the two never live in one. Says in one line why, where it cannot. Usage: torch_environment.sh FOLDER
set -u

python_version=3.11
torch_version=2.13.0

here=$(CDPATH='' cd -- "$(dirname -- "$0")" && pwd)
folder=${1:?usage: torch_environment.sh FOLDER}

has_torch() {
  "$folder/bin/python" -c "import torch, numpy; assert torch.__version__.split('+')[0] == '$torch_version'" 2>/dev/null
}

fail() {
  printf 'dragon_optim: %s\n' "$1" >&2
  exit 1
}

has_torch && exit 0
python=$(sh "$here/find_python.sh" "$python_version" 2>/dev/null) || fail "no Python $python_version here"
"$python" -m venv --clear "$folder" || fail "$python cannot make a virtual environment in $folder"
timeout 900 "$folder/bin/python" -m pip --disable-pip-version-check --no-input \
  install -q "torch==$torch_version" numpy || fail "PyTorch $torch_version cannot be installed here"
has_torch || fail "the PyTorch in $folder does not import"
