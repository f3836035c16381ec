# SPDX-License-Identifier: BSD-2-Clause
"""The file format of ``torch.save``: a zip archive of a pickle and of raw storages.

Both ways: ``layout`` (of a zip), ``opcodes``, ``dtypes``, ``errors``, ``nesting`` (how deep, which keys).
Saving: ``pickle_writer`` and its ``sources``, ``archive_writer``, ``saving``, ``replacing`` (of a file).
Loading: ``foreign`` (other formats), ``archive`` and ``headers``, ``pickle_reader`` with its ``names``,
``limits`` (of memory), ``stored`` (a tensor's place in a storage), ``contents`` (what was built),
``storage_reader``, ``loading``.
"""

from typing import Callable, Optional

Progress = Optional[Callable[[int, int], None]]
