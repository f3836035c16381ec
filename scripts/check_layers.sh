#!/bin/sh
# SPDX-License-Identifier: BSD-2-Clause
# Checks that the layers keep to themselves: kernels/ know neither Dragon nor Python, of the Python files only those in
# dragon_optim/_dragon/ touch Dragon's internals, and every file of code names its license. Usage: check_layers.sh [root]
set -u

root=${1:-$(CDPATH='' cd -- "$(dirname -- "$0")/.." && pwd)}
cd "$root" || exit 1
bad=0

# Print the lines $2, if there are any, under the heading $1.
report() {
  [ -z "$2" ] && return
  printf '%s:\n%s\n' "$1" "$2" >&2
  bad=1
}

without_license() {
  find kernels dragon_optim scripts tests examples benchmarks setup.py Makefile .ci -type f \
    \( -name '*.py' -o -name '*.sh' -o -name '*.h' -o -name '*.cc' -o -name '*.cu' -o -name '*.cuh' -o -name run \
    -o -name Makefile \) -size +0 2>/dev/null |
    while IFS= read -r file; do
      head -n 2 "$file" | grep -q 'SPDX-License-Identifier: BSD-2-Clause' || printf '%s\n' "$file"
    done
}

from='[[:space:]]*from[[:space:]]+'
import='[[:space:]]*import[[:space:]]+'
inner='(core|_api|lib)'

report 'kernels/ must not include Dragon or Python' "$(
  grep -rnE '#[[:space:]]*include[[:space:]]*[<"](dragon/|dragon_optim/|Python\.h|pybind11/|google/protobuf/)' kernels \
    --include='*.h' --include='*.cc' --include='*.cu' --include='*.cuh'
)"
report "only dragon_optim/_dragon/ may touch Dragon's internals" "$(
  grep -rnE "^(${import}dragon\.$inner|${from}dragon\.$inner|${from}dragon${import}.*\b$inner\b)|libdragon_python" \
    dragon_optim --include='*.py' | grep -v '^dragon_optim/_dragon/'
)"
report "only dragon_optim/_dragon/ may use what Dragon's tensors and workspaces keep to themselves" "$(
  grep -rnE '\._(impl|requires_grad|deleter|wrapped_tensor|handle_pool|tape)\b|\.(get|create|run)_(tensor|graph|operator)\(' \
    dragon_optim --include='*.py' | grep -v '^dragon_optim/_dragon/'
)"
report 'no SPDX-License-Identifier in the first two lines' "$(without_license)"

exit "$bad"
