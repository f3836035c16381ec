#!/bin/sh
# SPDX-License-Identifier: BSD-2-Clause
# Prints the path of a Python that can make this project's virtual environment, or says in one line what is missing.
#
#   sh scripts/find_python.sh           the version that .python-version names; PYTHON=... overrides the search
#   sh scripts/find_python.sh 3.8       that version, whatever PYTHON is
#
# Every candidate is run before it is chosen: a pyenv shim named python3.10 is on the PATH also where it only fails.
set -u

here=$(CDPATH='' cd -- "$(dirname -- "$0")/.." && pwd)
if [ $# -gt 0 ]; then
  version=$1
  PYTHON=
  may_install=no
else
  may_install=yes
  version=$(head -n 1 "$here/.python-version" | cut -d . -f 1,2)
fi
without_venv=

# Print the real path of the interpreter $1 and exit, if it runs, is of our version and can make virtual environments.
try() {
  real=$("$1" -c 'import sys; print("%d.%d %s" % (sys.version_info[0], sys.version_info[1], sys.executable))' \
    2>/dev/null </dev/null) || return 0
  [ "${real%% *}" = "$version" ] || return 0
  if "$1" -c 'import ensurepip, venv' >/dev/null 2>&1 </dev/null; then
    printf '%s\n' "${real#* }"
    exit 0
  fi
  without_venv=${without_venv:-${real#* }}
}

fail() {
  printf 'dragon_optim: %s\n' "$1" >&2
  exit 1
}

if [ -n "${PYTHON:-}" ]; then
  # Any version that Dragon has wheels for will do here: whoever sets PYTHON knows why.
  version=$("$PYTHON" -c 'import sys; print("%d.%d" % sys.version_info[:2])' 2>/dev/null </dev/null) ||
    fail "PYTHON=$PYTHON does not run"
  case $version in
    3.8 | 3.9 | 3.10) ;;
    *) fail "PYTHON=$PYTHON is Python $version: Dragon has wheels for 3.8, 3.9 and 3.10" ;;
  esac
  try "$PYTHON"
else
  pyenv_root=${PYENV_ROOT:-$(pyenv root 2>/dev/null || printf '%s' "${HOME:-}/.pyenv")}
  for candidate in "$pyenv_root/versions/$version"*/bin/python; do
    try "$candidate"
  done
  for name in "python$version" python3 python; do
    try "$name"
  done
  uv_python=$(uv python find "$version" 2>/dev/null </dev/null) && try "$uv_python"
  # uv can fetch an interpreter; the other two would have to compile it or need root.
  if [ "$may_install$without_venv" = yes ] && command -v uv >/dev/null 2>&1; then
    printf 'dragon_optim: no Python %s here, uv installs one\n' "$version" >&2
    uv python install "$version" >&2 </dev/null && uv_python=$(uv python find "$version" 2>/dev/null </dev/null) &&
      try "$uv_python"
  fi
fi

if [ -n "$without_venv" ]; then
  fail "$without_venv cannot make virtual environments: install python$version-venv (Debian, Ubuntu), or set PYTHON"
fi
fail "Python $version not found: install it (pyenv install $version, uv python install $version, or your\
 distribution's python$version and python$version-venv), or set PYTHON=/path/to/python$version"
