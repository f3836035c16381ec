# SPDX-License-Identifier: BSD-2-Clause
"""RMSprop for the Dragon framework, with PyTorch's numbers at the speed of memory.

Change the import, keep the PyTorch recipe::

    import dragon_optim
    optimizer = dragon_optim.RMSprop(model.parameters(), lr=0.01, alpha=0.99, momentum=0.9, centered=True)
"""

from dragon_optim._dragon import copying as _copying
from dragon_optim._dragon import left_behind as _left_behind
from dragon_optim._dragon import library as _library
from dragon_optim._dragon import names as _names
from dragon_optim._dragon import stock as _stock
from dragon_optim._dragon import tape as _tape
from dragon_optim._dragon import workspace as _workspace
from dragon_optim._version import __version__

_library.load()
_workspace.install()
_tape.install()
_names.install()
_left_behind.install()
_stock.install()
_copying.install()

from dragon_optim import checkpoint, graph, lr_scheduler, native_optimizers  # noqa: E402  operators come first
from dragon_optim.clip import (  # noqa: E402
    clip_grad_norm_,
    clip_grad_value_,
    clip_grads_with_norm_,
    get_total_norm,
)
from dragon_optim.grad_scaler import GradScaler  # noqa: E402
from dragon_optim.hooks import (  # noqa: E402
    register_optimizer_step_post_hook,
    register_optimizer_step_pre_hook,
)
from dragon_optim.installation import install  # noqa: E402
from dragon_optim.optimizer import Optimizer  # noqa: E402
from dragon_optim.rmsprop import RMSprop  # noqa: E402
from dragon_optim.rmsprop_tf import RMSpropTF  # noqa: E402

__all__ = [
    "GradScaler",
    "Optimizer",
    "RMSprop",
    "RMSpropTF",
    "__version__",
    "checkpoint",
    "clip_grad_norm_",
    "clip_grad_value_",
    "clip_grads_with_norm_",
    "get_total_norm",
    "graph",
    "install",
    "lr_scheduler",
    "native_optimizers",
    "register_optimizer_step_post_hook",
    "register_optimizer_step_pre_hook",
]
