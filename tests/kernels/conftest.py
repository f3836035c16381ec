# SPDX-License-Identifier: BSD-2-Clause
from __future__ import annotations

import pytest

from tests.kernels import library

ISAS = ("baseline", "avx2", "avx512")


@pytest.fixture(params=ISAS)
def forced_isa(request):
    """Each instruction set in turn; afterwards the one from before is in use again."""
    if request.param not in library.supported_isas():
        pytest.skip(f"this CPU or build has no {request.param}")
    before = library.isa()
    library.set_isa(request.param)
    yield request.param
    library.set_isa(before)
