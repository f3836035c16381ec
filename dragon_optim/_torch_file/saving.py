# SPDX-License-Identifier: BSD-2-Clause
"""From tensors in containers to an open file."""

import sys
from typing import Any, Iterator, List, Tuple

from dragon_optim._torch_file import Progress
from dragon_optim._torch_file.archive_writer import ArchiveWriter, Buffer
from dragon_optim._torch_file.pickle_writer import PickleWriter
from dragon_optim._torch_file.sources import Source

# The folder of a file that torch.save writes to a stream, which has no name.
_FOLDER = "archive/"


class Content:
    """An object, checked and pickled; its tensors wait to be written."""

    def __init__(self, obj: Any) -> None:
        pickler = PickleWriter(obj)
        sources = pickler.sources
        self._members: List[Tuple[str, Any]] = [
            ("data.pkl", pickler.pickle()),
            ("byteorder", sys.byteorder.encode()),
            *((f"data/{i}", source) for i, source in enumerate(sources)),
            ("version", b"3\n"),
        ]

    def members(self) -> Iterator[Tuple[str, int, Iterator[Buffer]]]:
        """Yield names, sizes and data."""
        for name, data in self._members:
            if isinstance(data, Source):
                yield _FOLDER + name, data.nbytes, data.chunks()
            else:
                yield _FOLDER + name, len(data), iter([data])


def write_archive(descriptor: int, content: Content, progress: Progress) -> None:
    """Write the file."""
    total = sum(size for _, size, _ in content.members())
    done = 0

    def watched(chunks: Iterator[Buffer]) -> Iterator[Buffer]:
        nonlocal done
        for chunk in chunks:
            yield chunk
            done += len(chunk)
            if progress is not None:
                progress(done, total)

    archive = ArchiveWriter(descriptor)
    for name, size, chunks in content.members():
        archive.add(name, size, watched(chunks))
    archive.finish()
