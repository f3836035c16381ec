# SPDX-License-Identifier: BSD-2-Clause
"""Values from anywhere as numpy arrays: Dragon's tensors, PyTorch's, numpy's, and lists of numbers."""

from typing import Any

import numpy

from dragon_optim._dragon import tensors, workspace


def is_foreign(value: Any) -> bool:
    """Whether this is a tensor of another library, such as PyTorch's."""
    return (
        not (tensors.is_tensor(value) or isinstance(value, type))
        and hasattr(value, "detach")
        and hasattr(value, "numpy")
    )


def to_array(value: Any, key: str) -> numpy.ndarray:
    """Return the values of a tensor as an array; it may share memory with the tensor.

    `key` says in errors what the tensor was given as.
    """
    if tensors.is_tensor(value):
        workspace.check_readable(value, f"the tensor given as {key}")
        value = value.numpy()
    elif is_foreign(value):
        try:
            value = _from_foreign(value.detach().cpu())
        except (TypeError, RuntimeError) as error:
            raise TypeError(f"{key} must be a dense tensor of real numbers: {error}") from error
    return numpy.asarray(value)


def _from_foreign(tensor: Any) -> Any:
    try:
        return tensor.numpy()
    except TypeError:  # numpy has no bfloat16, and every value of it is a float32
        return tensor.float().numpy()
