# SPDX-License-Identifier: BSD-2-Clause
"""Definitions of operators, as Dragon's eager mode makes them and as a graph needs them."""

from typing import Any, List, Sequence

from dragon.core.proto import dragon_pb2


def parse(serialized: bytes) -> Any:
    """Return a definition without what ties it to eager mode."""
    definition = dragon_pb2.OperatorDef()
    definition.ParseFromString(serialized)
    for place in reversed(range(len(definition.arg))):
        if definition.arg[place].name == "cache_key":
            del definition.arg[place]
    return definition


def without_unused(gradients: List[Any], sources: Sequence[str]) -> List[Any]:
    """Take out the gradients that nobody reads, as Dragon's eager backward does.

    Otherwise a replay would leave gradients in tensors that get none from an eager step.
    """
    kept = {source + "_grad" for source in sources}
    used = {name for each in gradients for name in each.input}
    result = []
    for each in gradients:
        if each.type == "GradientGather" and not {each.output[0]} & (kept | used):
            unused = set(each.input)
            used -= unused
        else:
            result.append(each)
    for each in result:
        for place, name in enumerate(each.output):
            if name not in kept and name not in used:
                each.output[place] = ""
    return result
