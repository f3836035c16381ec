# SPDX-License-Identifier: BSD-2-Clause
"""Hooks around an optimizer's methods, with PyTorch's names, order and words."""

import functools
import inspect
import itertools
import threading
import weakref
from collections import OrderedDict
from typing import Any, Callable, Tuple

from dragon_optim._dragon import stock
from dragon_optim.parameters import brief, type_name

Hook = Callable[..., Any]

_ids = itertools.count()


class RemovableHandle:
    """What a ``register_*`` method returns: takes the hook out again.

    By `remove`, or at the end of a ``with`` block. To remove it twice does nothing.
    """

    def __init__(self, hooks: "OrderedDict[int, Hook]") -> None:
        # Not the table itself: a handle must not keep the optimizer's hooks, and what they hold, alive.
        self._hooks = weakref.ref(hooks)
        self.id = next(_ids)

    def remove(self) -> None:
        """Take the hook out."""
        hooks = self._hooks()
        if hooks is not None:
            hooks.pop(self.id, None)

    def __reduce__(self) -> Any:
        """Be copied as a handle on nothing: the copy of an optimizer has no hooks."""
        return _handle_on_nothing, ()

    def __enter__(self) -> "RemovableHandle":
        return self

    def __exit__(self, *error: Any) -> None:
        self.remove()


def _handle_on_nothing() -> RemovableHandle:
    return RemovableHandle(OrderedDict())


def register(hooks: "OrderedDict[int, Hook]", hook: Hook, prepend: bool = False) -> RemovableHandle:
    """Put a hook at the end of a table, or at its beginning."""
    if not callable(hook):
        raise TypeError(f"a hook must be callable, but got {type_name(hook)}")
    handle = RemovableHandle(hooks)
    hooks[handle.id] = hook
    if prepend:
        hooks.move_to_end(handle.id, last=False)
    return handle


_global_pre_hooks: "OrderedDict[int, Hook]" = OrderedDict()
_global_post_hooks: "OrderedDict[int, Hook]" = OrderedDict()


def register_optimizer_step_pre_hook(hook: Hook) -> RemovableHandle:
    """Register a hook that runs before every step of every optimizer of this package.

    Parameters
    ----------
    hook : callable
        As for `Optimizer.register_step_pre_hook`. It runs before the optimizer's own.

    Returns
    -------
    RemovableHandle
        Takes the hook out again.

    Raises
    ------
    TypeError
        If `hook` is not callable.
    """
    return register(_global_pre_hooks, hook)


def register_optimizer_step_post_hook(hook: Hook) -> RemovableHandle:
    """Register a hook that runs after every step of every optimizer of this package.

    Parameters
    ----------
    hook : callable
        As for `Optimizer.register_step_post_hook`. It runs after the optimizer's own.

    Returns
    -------
    RemovableHandle
        Takes the hook out again.

    Raises
    ------
    TypeError
        If `hook` is not callable.
    """
    return register(_global_post_hooks, hook)


class _InStep(threading.local):
    """Whether this thread is in a step of the optimizer, the hooks around it included."""

    here = False


class HookTables:
    """The hooks of one optimizer."""

    def __init__(self) -> None:
        self.step_pre: OrderedDict[int, Hook] = OrderedDict()
        self.step_post: OrderedDict[int, Hook] = OrderedDict()
        self.state_dict_pre: OrderedDict[int, Hook] = OrderedDict()
        self.state_dict_post: OrderedDict[int, Hook] = OrderedDict()
        self.load_state_dict_pre: OrderedDict[int, Hook] = OrderedDict()
        self.load_state_dict_post: OrderedDict[int, Hook] = OrderedDict()
        self.in_step = _InStep()


class Hooked:
    """The methods by which an optimizer takes hooks."""

    _hooks: HookTables
    step: Callable[..., Any]

    def __init_subclass__(cls, **kwargs: Any) -> None:
        """Run the hooks around the class's ``step``, also where that comes from a class beside this one."""
        super().__init_subclass__(**kwargs)
        if hasattr(cls, "step") and not getattr(cls.step, "hooked", False):
            cls.step = around_step(cls.step)

    def register_step_pre_hook(self, hook: Hook) -> RemovableHandle:
        """Register a hook that runs before each step, after the global ones.

        Parameters
        ----------
        hook : callable
            ``hook(optimizer, args, kwargs)``, where ``args[0]`` is the optimizer itself. What it returns, if
            not None, is ``(args, kwargs)`` in the place of those that `step` was called with.

        Returns
        -------
        RemovableHandle
            Takes the hook out again.

        Raises
        ------
        TypeError
            If `hook` is not callable. When it runs: RuntimeError in `step` for another return value,
            TypeError for arguments that `step` does not take; nothing has changed then.
        """
        return register(self._hooks.step_pre, hook)

    def register_step_post_hook(self, hook: Hook) -> RemovableHandle:
        """Register a hook that runs after each step, before the global ones.

        Parameters
        ----------
        hook : callable
            ``hook(optimizer, args, kwargs)``; what it returns is ignored. Where it raises, the step is done.

        Returns
        -------
        RemovableHandle
            Takes the hook out again.

        Raises
        ------
        TypeError
            If `hook` is not callable.
        """
        return register(self._hooks.step_post, hook)

    def register_state_dict_pre_hook(self, hook: Hook, prepend: bool = False) -> RemovableHandle:
        """Register a hook that runs before `state_dict` looks at the optimizer.

        Parameters
        ----------
        hook : callable
            ``hook(optimizer)``.
        prepend : bool, optional, default=False
            Whether it runs before the hooks that are there, instead of after them.

        Returns
        -------
        RemovableHandle
            Takes the hook out again.

        Raises
        ------
        TypeError
            If `hook` is not callable.
        """
        return register(self._hooks.state_dict_pre, hook, prepend)

    def register_state_dict_post_hook(self, hook: Hook, prepend: bool = False) -> RemovableHandle:
        """Register a hook that sees what `state_dict` returns.

        Parameters
        ----------
        hook : callable
            ``hook(optimizer, state_dict)``. It may change the dict, or return another in its place.
        prepend : bool, optional, default=False
            Whether it runs before the hooks that are there, instead of after them.

        Returns
        -------
        RemovableHandle
            Takes the hook out again.

        Raises
        ------
        TypeError
            If `hook` is not callable.
        """
        return register(self._hooks.state_dict_post, hook, prepend)

    def register_load_state_dict_pre_hook(self, hook: Hook, prepend: bool = False) -> RemovableHandle:
        """Register a hook that sees what `load_state_dict` is given.

        Parameters
        ----------
        hook : callable
            ``hook(optimizer, state_dict)``, with a shallow copy of the dict. It may change the copy, or
            return another dict in its place.
        prepend : bool, optional, default=False
            Whether it runs before the hooks that are there, instead of after them.

        Returns
        -------
        RemovableHandle
            Takes the hook out again.

        Raises
        ------
        TypeError
            If `hook` is not callable.
        """
        return register(self._hooks.load_state_dict_pre, hook, prepend)

    def register_load_state_dict_post_hook(self, hook: Hook, prepend: bool = False) -> RemovableHandle:
        """Register a hook that runs after `load_state_dict` has taken everything over.

        Parameters
        ----------
        hook : callable
            ``hook(optimizer)``. Where it raises, the state dict is loaded all the same.
        prepend : bool, optional, default=False
            Whether it runs before the hooks that are there, instead of after them.

        Returns
        -------
        RemovableHandle
            Takes the hook out again.

        Raises
        ------
        TypeError
            If `hook` is not callable.
        """
        return register(self._hooks.load_state_dict_post, hook, prepend)


def any_for_step(optimizer: Any) -> bool:
    """Whether a step of this optimizer would call a hook."""
    tables: HookTables = optimizer._hooks
    return bool(tables.step_pre or tables.step_post or _global_pre_hooks or _global_post_hooks)


def call(hooks: "OrderedDict[int, Hook]", *arguments: Any) -> None:
    """Call the hooks of a table. Of a copy: a hook may remove itself, or register another."""
    for hook in list(hooks.values()):
        hook(*arguments)


def hand_through(hooks: "OrderedDict[int, Hook]", optimizer: Any, value: Any) -> Any:
    """Hand a value through hooks that may return another in its place."""
    for hook in list(hooks.values()):
        result = hook(optimizer, value)
        if result is not None:
            value = result
    return value


def around_step(step: Callable[..., Any]) -> Callable[..., Any]:
    """Run the hooks around a ``step`` method: once, also where one ``step`` calls that of its base class."""

    @functools.wraps(step)
    def hooked(*args: Any, **kwargs: Any) -> Any:
        if not args:
            return step(**kwargs)  # Python's own error: there is no self
        optimizer = args[0]
        tables: HookTables = optimizer._hooks
        if tables.in_step.here:
            return step(*args, **kwargs)
        tables.in_step.here = True
        try:
            if any_for_step(optimizer):
                # Threads that share an optimizer take turns, hooks included.
                with optimizer._engine.turn:
                    result = _hooked_step(step, optimizer, args, kwargs)
                    stock.count_steps(optimizer)
                    return result
            result = step(*args, **kwargs)
            stock.count_steps(optimizer)
            if tables.step_post or _global_post_hooks:  # registered by the closure
                _call_post_hooks(optimizer, args, kwargs)
            return result
        finally:
            tables.in_step.here = False

    hooked.hooked = True  # type: ignore[attr-defined]
    return hooked


def _hooked_step(step: Callable[..., Any], optimizer: Any, args: Any, kwargs: Any) -> Any:
    if optimizer._hooks.step_pre or _global_pre_hooks:
        try:
            args, kwargs = _rewritten(step, optimizer, args, kwargs)
        except BaseException as error:
            optimizer._fail_step(error)
    result = step(*args, **kwargs)
    _call_post_hooks(optimizer, args, kwargs)
    return result


def _call_post_hooks(optimizer: Any, args: Any, kwargs: Any) -> None:
    call(optimizer._hooks.step_post, optimizer, args, kwargs)
    call(_global_post_hooks, optimizer, args, kwargs)


def _rewritten(step: Callable[..., Any], optimizer: Any, args: Any, kwargs: Any) -> Tuple[Any, Any]:
    """The arguments of a step after the pre-hooks, each of which may return others."""
    for hook in [*_global_pre_hooks.values(), *optimizer._hooks.step_pre.values()]:
        result = hook(optimizer, args, kwargs)
        if result is None:
            continue
        if not (isinstance(result, tuple) and len(result) == 2):
            raise RuntimeError(
                f"{step.__qualname__}'s pre-hook {_name(hook)} must return None or a tuple of (new_args, "
                f"new_kwargs), but got {brief(result)}."
            )
        args, kwargs = result
        # Here, where the other ranks of a process group still hear of it.
        wrong = f"the pre-hook {_name(hook)} returned arguments that step does not take: "
        if not isinstance(args, tuple) or not isinstance(kwargs, dict):
            raise TypeError(f"{wrong}new_args must be a tuple and new_kwargs a dict, but got {brief(result)}")
        if not args or args[0] is not optimizer:
            raise TypeError(f"{wrong}new_args must begin with the optimizer, as args do")
        try:
            inspect.signature(step).bind(*args, **kwargs)
        except TypeError as error:
            raise TypeError(f"{wrong}{error}") from error
    return args, kwargs


def _name(hook: Hook) -> str:
    return str(getattr(hook, "__qualname__", type_name(hook)))
