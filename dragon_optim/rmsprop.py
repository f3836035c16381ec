# SPDX-License-Identifier: BSD-2-Clause
"""RMSprop: arguments, their ranges, and which states they need."""

from typing import Any, ClassVar, Dict, Optional, Tuple

from dragon_optim import differentiable as recorded
from dragon_optim._warnings import warn
from dragon_optim.hyper import Flag, Number
from dragon_optim.optimizer import GRAD_SCALE, Optimizer, Params


class RMSprop(Optimizer):
    r"""RMSprop with everything that PyTorch's and Dragon's RMSprop can do.

    For a parameter :math:`p` with gradient :math:`g`, learning rate :math:`\gamma`, decay :math:`\lambda` and
    momentum :math:`\mu`:

    .. math::
        \begin{aligned}
        g &\leftarrow -g && \text{if maximize} \\
        g &\leftarrow g + \lambda p && \text{if } \lambda > 0 \\
        v &\leftarrow \alpha v + (1 - \alpha) g^2 \\
        \bar g &\leftarrow \alpha \bar g + (1 - \alpha) g, \quad \tilde v = v - \bar g^2
        && \text{if centered, else } \tilde v = v \\
        b &\leftarrow \mu b + g / (\sqrt{\tilde v} + \epsilon) && \text{if } \mu > 0 \\
        p &\leftarrow p - \gamma b
        && \text{if } \mu > 0 \text{, else } p \leftarrow p - \gamma g / (\sqrt{\tilde v} + \epsilon)
        \end{aligned}

    Parameters
    ----------
    params : iterable of Tensor, of dict, or of (str, Tensor)
        The parameters, or groups of them, of dtype float32, float64 or float16. Leaves, unless
        `differentiable`.
    lr : float, optional, default=0.01
        Learning rate :math:`\gamma`. Range: ``>= 0``.
    alpha : float, optional, default=0.99
        Smoothing :math:`\alpha` of the averages. Range: ``>= 0``.
    eps : float, optional, default=1e-8
        Added to the denominator, outside of the root. Range: ``>= 0``.
    weight_decay : float, optional, default=0
        L2 penalty :math:`\lambda`, added to the gradient (but see `decoupled_weight_decay`). Range: ``>= 0``.
    momentum : float, optional, default=0
        Momentum :math:`\mu`. With 0 there is no buffer for it. Range: ``>= 0``.
    centered : bool, optional, default=False
        Divide by the estimated standard deviation instead of the root of the second moment.
    foreach : bool, optional, default=None
        None or True: one operator for a whole group. False: one for each parameter. The same bits.
    maximize : bool, optional, default=False
        Ascend.
    differentiable : bool, optional, default=False
        Whether steps stay on Dragon's tape, so that a backward pass goes through them: to parameters,
        gradients, states, and hyper-parameters that are tensors. float32 and float64; not with
        ``foreach=True``.
    grad_scale : float, optional, default=1
        Every gradient is multiplied by it first. Any number but NaN.
    clip_norm : float, optional, default=0
        The largest L2 norm of a gradient, each tensor on its own, after `grad_scale`; 0 is off.
        Range: ``>= 0``.
    clip_value : float, optional, default=0
        The largest absolute value of an element of a gradient; 0 is off. Range: ``>= 0``. Ignored where
        `clip_norm` is on.
    lr_in_momentum : bool, optional, default=False
        The formula of TensorFlow, and of Dragon from July 2020 to December 2021:
        :math:`b \leftarrow \mu b + \gamma g / (\sqrt{\tilde v} + \epsilon)`, :math:`p \leftarrow p - b`.
        Differs when the learning rate changes.
    eps_inside_sqrt : bool, optional, default=False
        Divide by :math:`\sqrt{\tilde v + \epsilon}`, as TensorFlow does.
    decoupled_weight_decay : bool, optional, default=False
        Decay the parameter itself, :math:`p \leftarrow (1 - \gamma \lambda) p`, before the update, instead of
        the gradient.
    initial_square_avg : float, optional, default=0.0
        What :math:`v` starts at; TensorFlow starts at 1. Range: ``>= 0``.
    scale : float, optional, default=None
        Dragon's older name of `grad_scale`.

    Raises
    ------
    TypeError
        For an unknown keyword, both `scale` and `grad_scale`, a hyper-parameter that is no number, or wrong
        `params`.
    ValueError
        For a hyper-parameter that is negative or NaN, or wrong `params`.
    AssertionError
        For ``foreach=True`` with ``differentiable=True``, as PyTorch.
    RuntimeError
        For a parameter of another or a dead workspace, or on a device that this build lacks.

    Warns
    -----
    UserWarning
        If `clip_norm` and `clip_value` are both given (then `clip_norm` wins), or a group holds a parameter
        twice.

    Notes
    -----
    *The order* is: `grad_scale`, `clip_norm` or else `clip_value`, `maximize`, weight decay, update.
    ``.grad`` is only read; in a process group, and nowhere else, it holds the mean over the ranks afterwards.

    *Precision.* Hyper-parameters are float64 up to the kernel, which rounds each once. float16 parameters are
    updated in float32, with float32 state and master weights (state ``master_param``); where the parameter
    was overwritten, the master follows it.

    *Differences from PyTorch*: everything after `centered` is keyword-only; ``zero_grad()`` fills with zeros
    unless told otherwise; gradients are overwritten by a backward pass, so accumulate by `sum_grad`; momentum
    or centered may be switched on in the middle of a run. The square root is correctly rounded, which
    PyTorch's is not on every machine.

    *Differences from stock Dragon*: `centered` works; hyper-parameters are not rounded to float32; gradients
    are not modified; the momentum buffer exists only with momentum; a negative `weight_decay` raises instead
    of being ignored.

    References
    ----------
    G. Hinton, *Neural Networks for Machine Learning*, lecture 6e, 2012. A. Graves, *Generating Sequences With
    Recurrent Neural Networks*, arXiv:1308.0850, 2013 (centered).

    Examples
    --------
    >>> from dragon.vm import torch
    >>> import dragon_optim
    >>> weight = torch.nn.Parameter(torch.ones(3))
    >>> optimizer = dragon_optim.RMSprop([weight], lr=0.1, alpha=0.9, momentum=0.9, centered=True)
    >>> loss = (weight * weight).sum()
    >>> loss.backward()
    >>> optimizer.step()
    >>> [round(float(x), 4) for x in weight.numpy()]
    [0.6667, 0.6667, 0.6667]
    >>> optimizer.state[weight]["step"]
    1
    """

    operator_type = "DragonOptimRMSprop"
    differentiable_operator = recorded.Operator("DragonOptimDifferentiableRMSprop")

    # The order of csrc/rmsprop_op.cc.
    hyper_fields = (
        Number("lr", "learning rate"),
        Number("alpha", "alpha value"),
        Number("eps", "epsilon value"),
        Number("weight_decay", "weight_decay value"),
        Number("momentum", "momentum value"),
        *Optimizer.hyper_fields,
        Flag("centered"),
        Flag("maximize"),
        Flag("lr_in_momentum"),
        Flag("eps_inside_sqrt"),
        Flag("decoupled_weight_decay"),
        Number("initial_square_avg", "initial_square_avg value"),
    )

    known_states = ("square_avg", "momentum_buffer", "grad_avg", "master_param")

    required_states = ("square_avg",)
    required_keys = ("lr", "alpha", "eps", "weight_decay")
    # PyTorch's RMSprop got these one after another, and fills them in the same way.
    legacy_defaults: ClassVar[Dict[str, Any]] = {
        "momentum": 0,
        "centered": False,
        "foreach": None,
        "maximize": False,
        "differentiable": False,
    }

    # Dragon's older name, and the one of `RMSpropTF`.
    other_names: ClassVar[Dict[str, str]] = {
        "scale": "grad_scale",
        "decoupled_decay": "decoupled_weight_decay",
    }

    def __init__(
        self,
        params: Params,
        lr: float = 1e-2,
        alpha: float = 0.99,
        eps: float = 1e-8,
        weight_decay: float = 0,
        momentum: float = 0,
        centered: bool = False,
        *,
        foreach: Optional[bool] = None,
        maximize: bool = False,
        differentiable: bool = False,
        grad_scale: float = GRAD_SCALE,
        clip_norm: float = 0,
        clip_value: float = 0,
        lr_in_momentum: bool = False,
        eps_inside_sqrt: bool = False,
        decoupled_weight_decay: bool = False,
        initial_square_avg: float = 0.0,
        scale: Optional[float] = None,
    ) -> None:
        """See the class."""
        if scale is not None:
            if grad_scale is not GRAD_SCALE:
                raise TypeError("scale is the older name of grad_scale: give one of them, not both")
            grad_scale = scale
        defaults = {
            "lr": lr,
            "momentum": momentum,
            "alpha": alpha,
            "eps": eps,
            "centered": centered,
            "weight_decay": weight_decay,
            "foreach": foreach,
            "maximize": maximize,
            "differentiable": differentiable,
            "lr_in_momentum": lr_in_momentum,
            "eps_inside_sqrt": eps_inside_sqrt,
            "decoupled_weight_decay": decoupled_weight_decay,
            "initial_square_avg": initial_square_avg,
        }
        super().__init__(params, defaults, grad_scale=grad_scale, clip_norm=clip_norm, clip_value=clip_value)

    @classmethod
    def state_names(cls, values: Dict[str, float]) -> Tuple[str, ...]:
        """Return the states that a group with these hyper-parameters needs."""
        if values["clip_norm"] > 0 and values["clip_value"] > 0:
            warn(
                f"clip_norm={values['clip_norm']:g} and clip_value={values['clip_value']:g} are both given: "
                "clip_norm wins and clip_value is ignored, as in Dragon. Set one of them to 0."
            )
        names = ["square_avg"]
        if values["momentum"] > 0:
            names.append("momentum_buffer")
        if values["centered"]:
            names.append("grad_avg")
        return tuple(names)
