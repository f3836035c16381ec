# SPDX-License-Identifier: BSD-2-Clause
from __future__ import annotations

import pytest

from tests.kernels import emulation, library

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


@pytest.fixture(scope="session")
def emulated(tmp_path_factory):
    return emulation.Emulated(emulation.build(tmp_path_factory.mktemp("emulated")))


@pytest.fixture
def cuda(emulated):
    yield emulated
    emulated.device()
    emulated.driver()
    emulated.fail_after(-1)
    emulated.launches()
