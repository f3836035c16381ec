# SPDX-License-Identifier: BSD-2-Clause
"""Files of other formats, told by their first bytes."""

import os

from dragon_optim._torch_file import layout
from dragon_optim._torch_file.errors import CheckpointError

_LEGACY_MAGIC = b"\x8a\x0al\xfc\x9cF\xf9 j\xa8P\x19"  # the number that PyTorch wrote first before 1.6
_RESAVE = "load it with torch.load and save it with torch.save of PyTorch 1.6 or later."


def check_is_zip(descriptor: int) -> None:
    """Raise unless the file begins as a zip archive; say what it is instead."""
    start = os.pread(descriptor, 512, 0)
    if start.startswith(layout.LOCAL_SIGNATURE):
        return
    if not start:
        what = "the file is empty."
    elif start[:1] == b"\x80" and _LEGACY_MAGIC in start[:16]:
        what = f"this is PyTorch's format of before 1.6: {_RESAVE}"
    elif start[257:262] == b"ustar":
        what = f"this is a tar archive, PyTorch's format of before 0.1.10 or none of PyTorch's: {_RESAVE}"
    elif start[:1] == b"\x80" and start[1:2] in (b"\x02", b"\x03", b"\x04", b"\x05"):
        what = (
            "this is a plain pickle, such as dragon.vm.torch.save writes, and loading one can run any code. "
            "If you trust it, load it with dragon.vm.torch.load and save the result with "
            "dragon_optim.checkpoint.save."
        )
    elif start[8:9] == b"{" and int.from_bytes(start[:8], "little") <= os.fstat(descriptor).st_size:
        what = "this is a safetensors file, which is another format."
    elif start.startswith(b"\x89HDF"):
        what = "this is an HDF5 file, which is another format."
    elif start.startswith(layout.END_SIGNATURE):
        what = "this is an empty zip archive."
    else:
        what = "this is no zip archive, and so no checkpoint of PyTorch or dragon_optim, or it is damaged."
    raise CheckpointError(what)
