# SPDX-License-Identifier: BSD-2-Clause
"""The names that a checkpoint may use, and what each does here. Nothing is imported and nothing looked up."""

from collections import Counter, OrderedDict
from typing import Any, Callable, Dict, Tuple

from dragon_optim._torch_file.dtypes import BY_NAME, BY_STORAGE, UNSUPPORTED, UNSUPPORTED_STORAGES
from dragon_optim._torch_file.errors import CheckpointError, shown
from dragon_optim._torch_file.stored import Name, StoredTensor, are_sizes, check_no_hooks, stored_tensor

_REFUSED_TENSORS = {
    "_rebuild_sparse_tensor": "a sparse tensor",
    "_rebuild_sparse_csr_tensor": "a sparse tensor",
    "_rebuild_qtensor": "a quantized tensor",
    "_rebuild_meta_tensor_no_storage": "a tensor of the meta device, which has no values",
    "_rebuild_nested_tensor": "a nested tensor",
    "_rebuild_wrapper_subclass": "a tensor of a class of its own",
    "_rebuild_from_type_v2": "a tensor of a class of its own, or with attributes",
    "_rebuild_parameter_with_state": "a parameter with attributes",
    "_rebuild_device_tensor_from_numpy": "a tensor of a device that Dragon does not have",
}


def resolve(module: str, name: str) -> Name:
    """Return the name, if it stands on the list."""
    if module == "torch" and (name in BY_STORAGE or name in UNSUPPORTED_STORAGES or is_dtype(module, name)):
        return Name(module, name)
    if (module, name) in _CALLED or (module, name) == ("torch.storage", "UntypedStorage"):
        return Name(module, name)
    if name in _REFUSED_TENSORS:
        raise CheckpointError(
            f"the file holds {_REFUSED_TENSORS[name]}, which cannot be loaded ({shown(name)})."
        )
    raise CheckpointError(
        f"the file asks for {shown(module)}.{shown(name)}, which is not on the short list of names that "
        "tensors and plain values need; nothing was run. Load it where it was made, if you trust it, and "
        "save only tensors and plain values."
    )


def is_dtype(module: str, name: str) -> bool:
    """Whether this is one of PyTorch's dtypes."""
    return module == "torch" and (name in BY_NAME or name in UNSUPPORTED)


def call(name: Any, arguments: Any) -> Any:
    """Do here what the name would do in PyTorch."""
    if type(name) is not Name or type(arguments) is not tuple:
        raise CheckpointError("the pickle calls something that is no function.")
    function = _CALLED.get((name.module, name.name))
    if function is None:
        raise CheckpointError(f"the pickle calls {name}, which is no function.")
    return function(arguments)


def _wrong(name: str) -> CheckpointError:
    return CheckpointError(f"the pickle calls {name} with other arguments than torch.save writes.")


def _ordered_dict(arguments: Tuple) -> Any:
    if arguments:
        raise _wrong("OrderedDict")
    return OrderedDict()


def _counter(arguments: Tuple) -> Any:
    """What a scheduler with milestones has in its state dict."""
    if len(arguments) != 1 or type(arguments[0]) is not dict:
        raise _wrong("Counter")
    if any(type(times) is not int for times in arguments[0].values()):
        raise CheckpointError("the file holds a Counter that counts something else than ints.")
    return Counter(arguments[0])


def _bytes(arguments: Tuple) -> bytes:
    if arguments:
        raise _wrong("bytes")
    return b""


def _encode(arguments: Tuple) -> bytes:
    if len(arguments) != 2 or type(arguments[0]) is not str or arguments[1] not in ("latin1", "latin-1"):
        raise _wrong("encode")
    try:
        return arguments[0].encode("latin-1")
    except UnicodeEncodeError:
        raise _wrong("encode") from None


def _size(arguments: Tuple) -> Tuple:
    if len(arguments) != 1 or type(arguments[0]) is not tuple or not are_sizes(arguments[0]):
        raise _wrong("Size")
    return arguments[0]


def _tensor_v2(arguments: Tuple) -> StoredTensor:
    if len(arguments) not in (6, 7):
        raise _wrong("_rebuild_tensor_v2")
    _check_metadata(arguments[6:])
    return stored_tensor(arguments[:6], None)


def _tensor_v3(arguments: Tuple) -> StoredTensor:
    if len(arguments) not in (7, 8) or type(arguments[6]) is not Name:
        raise _wrong("_rebuild_tensor_v3")
    _check_metadata(arguments[7:])
    dtype = BY_NAME.get(arguments[6].name)
    if dtype is None:
        raise CheckpointError(
            f"the file holds a tensor of dtype {arguments[6]}, which Dragon does not have and no wider dtype "
            "holds."
        )
    return stored_tensor(arguments[:6], dtype)


def _check_metadata(metadata: Tuple) -> None:
    if metadata and (type(metadata[0]) is not dict or metadata[0]):
        raise CheckpointError(
            "the file holds a tensor that is a lazily negated or conjugated view: call resolve_neg() and "
            "resolve_conj() before saving it."
        )


def _parameter(arguments: Tuple) -> StoredTensor:
    if len(arguments) != 3 or type(arguments[0]) is not StoredTensor or type(arguments[1]) is not bool:
        raise _wrong("_rebuild_parameter")
    tensor, requires_grad, hooks = arguments
    check_no_hooks(hooks)
    if requires_grad and not tensor.dtype.is_floating:
        raise CheckpointError(f"a parameter of dtype {tensor.dtype.name} requires a gradient.")
    return StoredTensor(tensor.storage, tensor.offset, tensor.shape, tensor.strides, requires_grad, True)


_CALLED: Dict[Tuple[str, str], Callable[[Tuple], Any]] = {
    ("collections", "OrderedDict"): _ordered_dict,
    ("collections", "Counter"): _counter,
    ("_codecs", "encode"): _encode,
    ("__builtin__", "bytes"): _bytes,
    ("builtins", "bytes"): _bytes,
    ("torch", "Size"): _size,
    ("torch._utils", "_rebuild_tensor_v2"): _tensor_v2,
    ("torch._utils", "_rebuild_tensor_v3"): _tensor_v3,
    ("torch._utils", "_rebuild_parameter"): _parameter,
}
