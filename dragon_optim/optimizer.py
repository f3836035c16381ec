# SPDX-License-Identifier: BSD-2-Clause
"""The base class: groups, state, and the life of a step."""

from typing import Any, Callable, ContextManager, Dict, Iterable, List, NoReturn, Optional, Tuple, Union

from dragon.vm import torch
from dragon.vm.torch.core.optim import optimizer as stock
from dragon.vm.torch.core.tensor import Tensor

from dragon_optim import differentiable, hooks, hyper, parameters
from dragon_optim.engine import Engine
from dragon_optim.saving import Savable
from dragon_optim.state import OptimizerState
from dragon_optim.update_graph import Exportable


class Default(float):
    """A default that can be told from the same value given by the user, and prints like it."""


GRAD_SCALE, _CLIP_NORM, _CLIP_VALUE = Default(1), Default(0), Default(0)

Params = Iterable[Union[Tensor, Dict[str, Any], Tuple[str, Tensor]]]


class Optimizer(hooks.Hooked, Savable, Exportable, stock.Optimizer):
    r"""Base class of the optimizers: everything but the update itself.

    A subclass names the operator that runs, the hyper-parameters that it reads and the states that it keeps;
    groups, gradients, sums, process groups and the mapping `state` come from here.

    Parameters
    ----------
    params : iterable of Tensor, of dict, or of (str, Tensor)
        The parameters, or groups of them. A group is a dict with the key ``params``; its other keys override
        `defaults`, and keys that the optimizer does not know are kept.
    defaults : dict
        The hyper-parameters of a group that does not set them. Where a value is Dragon's object ``required``
        (``dragon.vm.torch.core.optim.optimizer.required``), every group must set it.
    grad_scale : float, optional, default=1
        Every gradient is multiplied by it first. Any number but NaN.
    clip_norm : float, optional, default=0
        The largest L2 norm of a gradient, each tensor on its own; 0 is off. Range: ``>= 0``.
    clip_value : float, optional, default=0
        The largest absolute value of an element of a gradient; 0 is off. Range: ``>= 0``. Ignored where
        `clip_norm` is on.

    Attributes
    ----------
    param_groups : list of dict
        The groups. Values may be changed at any time and are checked at the next step.
    state : mapping
        From a parameter to its states; see `Optimizer.state`.
    defaults : dict
        The hyper-parameters of a group that does not set them.

    Raises
    ------
    TypeError
        If `params` is a single tensor, a set, or holds something else than tensors of floats.
    ValueError
        If there are no parameters, one is not a leaf or stands in two groups, or a hyper-parameter is out of
        range.
    RuntimeError
        If a parameter belongs to another workspace than the current one, or to a dead one.

    Notes
    -----
    *Differences from stock Dragon*: gradients are not modified (in a process group they become their mean
    over the ranks); no gradient of a dead tensor is ever used; what ends the process there raises an
    exception here. The class derives from ``dragon.vm.torch.optim.Optimizer`` for ``isinstance`` alone.
    """

    operator_type: Optional[str] = None
    """The update operator in Dragon's registry, with the edges that ``csrc/segments.h`` describes."""

    differentiable_operator: Optional[differentiable.Operator] = None
    """The same update as an operator that Dragon's tape can record, if there is one."""

    hyper_fields: Tuple[hyper.Field, ...] = (
        hyper.Number("grad_scale", "grad_scale value", least=-float("inf")),
        hyper.Number("clip_norm", "clip_norm value"),
        hyper.Number("clip_value", "clip_value value"),
    )
    """The hyper-parameters that the operator reads, in its order."""

    refused_fields: Tuple[hyper.Refused, ...] = ()
    """Flags that other optimizers of the name have, and this one only switched off."""

    known_states: Tuple[str, ...] = ()
    """Every state that the optimizer can have, in the order in which `state` shows them."""

    def __init__(
        self,
        params: Params,
        defaults: Dict[str, Any],
        *,
        grad_scale: float = GRAD_SCALE,
        clip_norm: float = _CLIP_NORM,
        clip_value: float = _CLIP_VALUE,
    ) -> None:
        """See the class."""
        if isinstance(params, Tensor):
            raise TypeError(
                "params argument given to the optimizer should be an iterable of Tensors or dicts, but got "
                + parameters.type_name(params)
            )
        if not isinstance(defaults, dict):
            raise TypeError(f"defaults must be a dict, but got {parameters.type_name(defaults)}")
        self.defaults = self._own_names(defaults)
        # What is given by keyword counts for more than what stands in `defaults`.
        for key, value in (("grad_scale", grad_scale), ("clip_norm", clip_norm), ("clip_value", clip_value)):
            if not isinstance(value, Default):
                self.defaults[key] = value
            else:
                self.defaults.setdefault(key, int(value))
        self._check_defaults()
        self.param_groups: List[Dict[str, Any]] = []
        self._use(self._new_engine())
        groups = parameters.as_list(params)
        if not groups:
            raise ValueError("optimizer got an empty parameter list")
        if not isinstance(groups[0], dict):
            groups = [{"params": groups}]
        self._collects_groups = True
        for group in groups:
            self.add_param_group(group)
        del self._collects_groups
        self._engine.sync(self.param_groups)

    def _new_engine(self) -> Engine:
        return Engine(
            self.operator_type or "",
            self.hyper_fields,
            self.refused_fields,
            self.state_names,
            self.differentiable_operator,
        )

    def _use(self, engine: Engine) -> None:
        """Take what belongs to this very object and is never copied."""
        self._engine = engine
        self._engine.attach(self)
        self._state = OptimizerState(self._engine.table, self.known_states)
        self._hooks = self.__dict__.get("_hooks") or hooks.HookTables()

    def _own_names(self, group: Dict[str, Any]) -> Dict[str, Any]:
        """Return a copy of a group in which `other_names` are replaced."""
        for key, own in self.other_names.items():
            if key in group and own in group:
                raise TypeError(f"{key} is another name of {own}: give one of them, not both")
        return {self.other_names.get(key, key): value for key, value in group.items()}

    def _check_defaults(self) -> None:
        for field in self.hyper_fields:
            if field.key in self.defaults and self.defaults[field.key] is not stock.required:
                field.check(self.defaults[field.key])

    @classmethod
    def state_names(cls, values: Dict[str, float]) -> Tuple[str, ...]:
        """Return the states that a group with these hyper-parameters needs. For subclasses.

        Parameters
        ----------
        values : dict
            The checked values of `hyper_fields`.

        Returns
        -------
        tuple of str
            Names among `known_states`.
        """
        del values
        return ()

    @property
    def state(self) -> OptimizerState:
        """The states by parameter, live.

        ``state[p]`` holds ``step`` (an int) and the tensors in use, for a parameter that had a gradient in
        some step. It can be read, assigned to (values are copied) and cleared; other keys are kept as they
        are. What was set for a parameter before it joined a group is its state from then on. The numpy view
        of a tensor (``.numpy()``) dangles once the state is cleared or its last holder is gone: hold the
        tensor, or copy the array.
        """
        return self._state

    @state.setter
    def state(self, value: Any) -> None:
        self._state.replace(value)

    def add_param_group(self, param_group: Dict[str, Any]) -> None:
        """Add a group of parameters. If it raises, nothing was added.

        Parameters
        ----------
        param_group : dict
            ``params`` (a tensor, an iterable of them, or of ``(name, tensor)``) and any hyper-parameters; the
            others are taken from `defaults` and written into this dict, as PyTorch does.

        Raises
        ------
        TypeError, ValueError, RuntimeError
            As the constructor.
        """
        if not isinstance(param_group, dict):
            raise TypeError(f"param_group must be a dict, but got {parameters.type_name(param_group)}")
        if "params" not in param_group:
            raise KeyError("param_group must have the key 'params'")
        self._engine.guard("add_param_group()")
        collects = "_collects_groups" in vars(self)  # the constructor looks at all of them at once
        if not collects:
            parameters.check_lists(self.param_groups)
        group = self._own_names(param_group)
        group["params"], names = parameters.split_names(parameters.as_list(param_group["params"]))
        if names:
            group["param_names"] = names
        self._check_names(group)
        for key, default in self.defaults.items():
            if default is stock.required and key not in group:
                raise ValueError(
                    f"parameter group didn't specify a value of required optimization parameter {key}"
                )
            group.setdefault(key, default)
        if collects:
            _overwrite(param_group, group)
            self.param_groups.append(param_group)
            return
        with self._engine.turn:
            self._engine.sync([*self.param_groups, group])
            _overwrite(param_group, group)
            if isinstance(self.param_groups, list):
                self.param_groups.append(param_group)
            else:
                self.param_groups = [*self.param_groups, param_group]

    def _check_names(self, group: Dict[str, Any]) -> None:
        if self.param_groups and bool("param_names" in group) != bool("param_names" in self.param_groups[0]):
            having = "with" if "param_names" in group else "without"
            raise ValueError(
                "all optimizer param groups should be with/without names. cannot add param group "
                f"{having} names to the optimizer: give names to all parameters or to none, by "
                "model.named_parameters() or model.parameters()."
            )

    @hooks.around_step
    def step(
        self,
        closure: Optional[Callable[[], Any]] = None,
        *,
        gradients: Optional[differentiable.Gradients] = None,
    ) -> Any:
        """Update every parameter that has a gradient.

        A parameter has a gradient when its ``.grad`` is not None; the others, and their states, are left
        alone. After `sum_grad` the sums of the round are used instead, only the parameters that were summed
        are updated, and the round ends. In a Dragon process group the gradients are averaged over the ranks
        first. Nothing has changed when this raises.

        Parameters
        ----------
        closure : callable, optional
            Computes the loss anew, with gradients enabled, before the update.
        gradients : dict, optional
            From parameters to their gradients, in the place of ``.grad``; the others are left alone. Only
            with ``differentiable=True``: a gradient that is computed by recorded operations carries the step
            back to them, where ``.grad`` is a constant.

        Returns
        -------
        object
            What `closure` returned; None without one.

        Raises
        ------
        ValueError
            If a hyper-parameter in a group is out of range, or a gradient does not fit its parameter.
        RuntimeError
            If another workspace is current than the one that the optimizer was made in, if that was cleared,
            if another rank of the process group failed, or if a step pre-hook returned something else than
            None or a tuple of arguments and keyword arguments.
        """
        if self.operator_type is None:
            raise NotImplementedError(
                f"{type(self).__name__} names no operator: set operator_type, or override step()"
            )
        loss = None

        def evaluate() -> None:
            nonlocal loss
            if closure is not None:
                with torch.enable_grad(), self.as_leaves():
                    loss = closure()

        self._engine.step(lambda: self.param_groups, evaluate, gradients)
        return loss

    def as_leaves(self) -> ContextManager[None]:
        """Let backward passes stop at the parameters, in a ``with`` block.

        After a recorded step (``differentiable=True``) a backward pass would go on through the parameters to
        what the step was given, and use that history up. Inside the block it leaves gradients at the
        parameters, for the next step, and their history as it is. A closure given to `step` runs in such a
        block. No optimizer can step these parameters inside of it.

        Returns
        -------
        context manager
            For a ``with`` statement.
        """
        return self._engine.as_leaves(self.param_groups)

    def detach_(self) -> None:
        """Forget what has been recorded: parameters become leaves, and states constants.

        Call it where a recorded unroll ends. A backward pass through a parameter does the same for what it
        reaches, by the next step.
        """
        differentiable.detach(self._engine.slots)

    def origin(self, param: Tensor) -> Tensor:
        """Return the leaf at which the recorded steps of a parameter began.

        Its ``.grad`` is, after a backward pass through those steps, the derivative by the parameter as it was
        before the first of them.

        Parameters
        ----------
        param : Tensor
            A parameter of this optimizer.

        Returns
        -------
        Tensor
            The leaf, until the next recorded step from a leaf. The parameter itself if none was recorded.
        """
        slot = self._engine.table.find(param)
        return param if slot is None or slot.origin is None else slot.origin

    def sum_grad(self) -> None:
        """Add the gradients of the last backward passes to the sums of this round.

        Call it after each ``backward()`` and `step` after the last: Dragon's backward overwrites a gradient
        where PyTorch's adds to it. Parameters that no backward pass has reached since the last call are left
        alone. Without any gradients it does nothing.

        Raises
        ------
        ValueError
            If a gradient does not fit its parameter; nothing was summed then.
        RuntimeError
            As `step`.
        """
        self._engine.sum_grad(self.param_groups)

    def zero_grad(self, set_to_none: bool = False, drop_sums: bool = False) -> None:
        """Clear the gradients of all parameters.

        Parameters
        ----------
        set_to_none : bool, optional, default=False
            True takes the gradients away: ``.grad`` is None, and `step` leaves such parameters alone. False
            fills them with zeros. PyTorch's default is True; this is Dragon's.
        drop_sums : bool, optional, default=False
            True also abandons the sums of an open round; the next `step` goes by ``.grad`` again. Otherwise
            they are left alone, since Dragon scripts call ``zero_grad()`` before each backward pass of a
            round.

        Raises
        ------
        RuntimeError
            As `step`.
        """
        self._engine.zero_grad(self.param_groups, set_to_none)
        if drop_sums:
            self._engine.end_round()

    def _fail_step(self, error: BaseException) -> NoReturn:
        """Raise what a step pre-hook raised; in a process group, where the other ranks hear of it."""

        def fail() -> None:
            raise error

        if self.operator_type is not None:
            self._engine.step(lambda: self.param_groups, fail)
        raise error

    def __repr__(self) -> str:
        text = f"{type(self).__name__} ("
        for number, group in enumerate(self.param_groups):
            text += f"\nParameter Group {number}\n"
            for key in sorted(group, key=str):
                if key not in ("params", "param_names"):
                    text += f"    {key}: {parameters.printable(group[key])}\n"
        return text + ")"


def _overwrite(group: Dict[str, Any], new: Dict[str, Any]) -> None:
    """Make a dict of the user's equal to another; it stays the same object."""
    for key in [key for key in group if key not in new]:
        del group[key]
    group.update(new)
