# SPDX-License-Identifier: BSD-2-Clause
"""The modules by which a script reaches ``dragon.vm.torch.optim``.

There may be two of them. At first ``torch.optim`` is ``dragon.vm.torch._api.optim``. The first
``import dragon.vm.torch.optim`` executes the same file again, as a module of that name, and binds
``torch.optim`` to it; who has the former one keeps it.
"""

import sys
from types import ModuleType
from typing import List

from dragon.vm import torch

NAME = "dragon.vm.torch.optim"
_FILE = "dragon.vm.torch._api.optim"


def found() -> List[ModuleType]:
    """All that there are now, each once, ``torch.optim`` first."""
    candidates = [torch.optim, sys.modules.get(NAME), sys.modules.get(_FILE)]
    modules = {id(each): each for each in candidates if isinstance(each, ModuleType)}
    return list(modules.values())
