# SPDX-License-Identifier: BSD-2-Clause
"""What an optimizer is outside of this process: a state dict, a pickle, a copy."""

import contextlib
import functools
import warnings
from typing import Any, Callable, ClassVar, Collection, Dict, List, Tuple

from dragon.vm.torch.core.optim import optimizer as stock

from dragon_optim import hooks, hyper, parameters
from dragon_optim.engine import Engine
from dragon_optim.state import OptimizerState
from dragon_optim.state_dict import Reader, Requirements, check_mapping, pack

# What belongs to one object: the memory of its state; the hooks, as in PyTorch; how many steps it has done;
# and a `step` of its own, put there by a wrapper: in a copy it would go on stepping this object.
_OWN = ("_engine", "_state", "_hooks", "_dragon_optim_steps", "step")

# A key of a pickled state that no attribute can have.
_REQUIRED = "required defaults"


class Savable:
    """The methods by which the state of an optimizer leaves it and comes back."""

    hyper_fields: Tuple[hyper.Field, ...]
    refused_fields: Tuple[hyper.Refused, ...]
    known_states: Tuple[str, ...]

    required_states: Tuple[str, ...] = ()
    """The states without which `load_state_dict` refuses the state of a parameter; others start anew."""

    required_keys: Tuple[str, ...] = ()
    """The keys without which `load_state_dict` refuses a group; others keep what the group has."""

    legacy_defaults: ClassVar[Dict[str, Any]] = {}
    """What `load_state_dict` takes for keys that a group lacks because it was written before they came."""

    other_names: ClassVar[Dict[str, str]] = {}
    """What other optimizers and older versions call keys of a group; such a key is taken for ours."""

    defaults: Dict[str, Any]
    param_groups: List[Dict[str, Any]]
    _engine: Engine
    _state: OptimizerState
    _hooks: hooks.HookTables

    _new_engine: Callable[[], Engine]
    _use: Callable[[Engine], None]

    def state_dict(self) -> Dict[str, Any]:
        """Return the state of the optimizer in PyTorch's layout.

        Returns
        -------
        dict
            ``state`` maps the number of each parameter that has any state, counted across groups, to
            ``step`` (an int), the state tensors, and the user's own entries. ``param_groups`` lists the
            groups, with numbers for ``params``. `dragon_optim.checkpoint.save` writes it as a file from which
            PyTorch's own RMSprop can go on.

        Warns
        -----
        UserWarning
            If there is state of a parameter that stands in no group; it is left out (PyTorch: KeyError). If
            the ``param_names`` of a group are not one for each of its parameters any more; they are left out.

        Notes
        -----
        The tensors are the live ones: later steps change them, as in PyTorch. To keep the state as it is now,
        save it, or copy it by ``copy.deepcopy``. The sums of an open round (`sum_grad`) and gradients are not
        part of it.

        Examples
        --------
        >>> from dragon.vm import torch
        >>> import dragon_optim
        >>> weight = torch.nn.Parameter(torch.ones(3))
        >>> optimizer = dragon_optim.RMSprop([weight], lr=0.1)
        >>> (weight * weight).sum().backward()
        >>> optimizer.step()
        >>> saved = optimizer.state_dict()
        >>> sorted(saved["state"][0]), saved["param_groups"][0]["params"]
        (['square_avg', 'step'], [0])
        """
        tables = self._hooks
        hooks.call(tables.state_dict_pre, self)
        parameters.check_lists(self.param_groups)
        packed = pack(self.param_groups, self._state)
        return hooks.hand_through(tables.state_dict_post, self, packed)

    def load_state_dict(self, state_dict: Dict[str, Any], *, keep: Collection[str] = ()) -> None:
        """Take over a state dict. If it raises, nothing has changed, but where a post-hook raises.

        Parameters
        ----------
        state_dict : dict
            What `state_dict` returned, or PyTorch's `RMSprop.state_dict()` of any version. Its tensors may be
            Dragon's, PyTorch's or numpy arrays, and are always copied: to the dtype of the parameter's
            arithmetic, which is float32 for float16 parameters.
        keep : collection of str, optional, default=()
            Keys of which the groups keep their present values: ``keep=("lr",)`` goes on with the learning
            rate that the optimizer was made with. By default everything comes from the state dict.

        Raises
        ------
        ValueError
            If the number or the sizes of the groups differ, a state has another shape than its parameter, a
            hyper-parameter is out of range, or `keep` names no key.
        KeyError
            If `state_dict`, a group or an entry lacks a key, such as ``square_avg`` in another optimizer's.
        OverflowError
            If a hyper-parameter is too large for a float, or ``step`` for 62 bits.
        AssertionError
            If a group has both ``foreach=True`` and ``differentiable=True``, as in PyTorch.
        TypeError
            If a state holds no real numbers, or a part of `state_dict` has the wrong type.
        RuntimeError
            If another workspace is current than the one that the optimizer was made in, or that was cleared.

        Warns
        -----
        UserWarning
            If both sides name their parameters, and differently.

        Notes
        -----
        Parameters are matched by their order, as in PyTorch. Where both sides have names (``param_names``)
        and the same ones, they are matched by name, so that a model whose layers were reordered loads
        rightly; PyTorch goes by order there too.

        A state that the loaded settings need and the state dict lacks (``momentum_buffer``, ``grad_avg``)
        starts at zero, ``master_param`` at the parameter; PyTorch raises KeyError in the next step. A key
        that a group lacks keeps its present value, but `momentum`, `centered`, `foreach`, `maximize` and
        `differentiable` are off, as in PyTorch, since only old checkpoints lack them. Unknown keys and
        entries are kept.

        A Ctrl-C that comes while the checked contents are taken over is raised when that is done.

        Build a learning-rate scheduler before this call, as for PyTorch: making it writes to the groups.

        Examples
        --------
        >>> from dragon.vm import torch
        >>> import dragon_optim
        >>> weight = torch.nn.Parameter(torch.ones(3))
        >>> optimizer = dragon_optim.RMSprop([weight], lr=0.1)
        >>> (weight * weight).sum().backward()
        >>> optimizer.step()
        >>> resumed = dragon_optim.RMSprop([weight], lr=0.5)
        >>> resumed.load_state_dict(optimizer.state_dict())
        >>> resumed.param_groups[0]["lr"], resumed.state[weight]["step"]
        (0.1, 1)
        """
        self._engine.guard("load_state_dict()")
        check_mapping(state_dict)
        tables = self._hooks
        state_dict = hooks.hand_through(tables.load_state_dict_pre, self, dict(state_dict))
        self._engine.check_params(self.param_groups)
        contents = self._reader(keep).read(state_dict)
        with self._engine.turn:
            self._state.prepare(contents.entries)
            self._engine.sync(contents.groups)
            take_groups = functools.partial(setattr, self, "param_groups", contents.groups)
            self._state.take(contents.entries, take_groups)
        hooks.call(tables.load_state_dict_post, self)

    def _reader(self, keep: Collection[str]) -> Reader:
        needs = Requirements(
            self.hyper_fields,
            self.refused_fields,
            self.other_names,
            self.required_keys,
            self.required_states,
            self.legacy_defaults,
            self.known_states,
        )
        return Reader(self.param_groups, self._state, needs, keep)

    # Copies. A copy is made in the current workspace.

    def __getstate__(self) -> Dict[str, Any]:
        """Return all that a copy needs: attributes, groups, and ``state`` as a dict. Hooks are left out."""
        kept = {key: value for key, value in self.__dict__.items() if key not in _OWN}
        kept["state"] = {key: self._state.plain(key) for key in self._state}
        # Dragon's `required` is known by its identity, which a copy of it has not.
        kept[_REQUIRED] = [key for key, value in self.defaults.items() if value is stock.required]
        return kept

    def __setstate__(self, state: Dict[str, Any]) -> None:
        attributes = dict(state)
        entries, groups = attributes.pop("state"), attributes.pop("param_groups")
        keys = attributes.pop(_REQUIRED, ())
        before = self.__dict__.get("_engine")  # of an optimizer that is in use, maybe in another thread
        with contextlib.nullcontext() if before is None else before.turn:
            self.__dict__.update(attributes)
            self.defaults.update(dict.fromkeys(keys, stock.required))
            engine = self._new_engine()
            with engine.turn:  # from now on another thread would step by this one
                self._use(engine)
                with warnings.catch_warnings():
                    warnings.simplefilter("ignore")  # it was warned of duplicates and the like before
                    self._engine.sync(groups)
                self.param_groups = groups
                self._state.replace(entries)

    def __copy__(self) -> Any:
        """Return an optimizer with the same groups and the same state, and no hooks, as PyTorch does."""
        twin = object.__new__(type(self))
        twin.__dict__.update({key: value for key, value in self.__dict__.items() if key != "step"})
        twin._hooks = hooks.HookTables()
        return twin
