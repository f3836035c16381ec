# SPDX-License-Identifier: BSD-2-Clause
"""Every kind of hook: how it is registered, and what it runs at."""

from __future__ import annotations

import dragon_optim

STEP = ("step_pre", "step_post")
DICTS = ("state_dict_pre", "state_dict_post", "load_state_dict_pre", "load_state_dict_post")
GLOBAL = {
    "optimizer_step_pre": dragon_optim.register_optimizer_step_pre_hook,
    "optimizer_step_post": dragon_optim.register_optimizer_step_post_hook,
}


def register(optimizer, kind, hook, **options):
    if kind in GLOBAL:
        return GLOBAL[kind](hook, **options)
    return getattr(optimizer, f"register_{kind}_hook")(hook, **options)


def call(optimizer, kind):
    """Do what hooks of this kind run at."""
    if kind.startswith("load"):
        optimizer.load_state_dict(optimizer.state_dict())
    elif kind.startswith("state_dict"):
        optimizer.state_dict()
    else:
        optimizer.step()
