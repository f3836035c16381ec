# SPDX-License-Identifier: BSD-2-Clause
"""All misuses: what is done, which exception it must raise, and what its message must name.

They stand in the `misuse_of_*.py`, by what is misused. Each is a generator: it arranges something, yields the
call that is judged, and may look at the consequences after it. `test_misuse.py` says what every one must
fulfil besides, and runs this module for it.
"""

from tests.optim import (
    misuse_of_arguments,
    misuse_of_capture,
    misuse_of_differentiable,
    misuse_of_empty_tensors,
    misuse_of_gradients,
    misuse_of_histories,
    misuse_of_hooks,
    misuse_of_loading,
    misuse_of_state_dicts,
    misuse_of_states,
    misuse_of_surroundings,
)
from tests.optim.forked_cases import serve

CASES = [
    *misuse_of_gradients.CASES,
    *misuse_of_arguments.CASES,
    *misuse_of_hooks.CASES,
    *misuse_of_states.CASES,
    *misuse_of_differentiable.CASES,
    *misuse_of_histories.CASES,
    *misuse_of_empty_tensors.CASES,
    *misuse_of_state_dicts.CASES,
    *misuse_of_loading.CASES,
    *misuse_of_surroundings.CASES,
    *misuse_of_capture.CASES,
]

if __name__ == "__main__":
    serve(CASES)
