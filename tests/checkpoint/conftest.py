# SPDX-License-Identifier: BSD-2-Clause
"""Files made from a pickle."""

from __future__ import annotations

import numpy as np
import pytest

from tests.checkpoint.support import with_pickle

EIGHT = np.arange(8, dtype="float32").tobytes()


@pytest.fixture
def packed(tmp_path, monkeypatch):
    """Packs a pickle with one storage, which has the floats 0 to 7."""
    monkeypatch.chdir(tmp_path)
    return lambda pickle: with_pickle(tmp_path / "file.pt", pickle, data_0=EIGHT)
