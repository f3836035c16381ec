# SPDX-License-Identifier: BSD-2-Clause
"""RMSpropTF: TensorFlow's form of RMSprop, under the name and with the arguments of timm's class."""

from typing import ClassVar, Dict, Optional

from dragon_optim import hyper
from dragon_optim.optimizer import GRAD_SCALE, Params
from dragon_optim.rmsprop import RMSprop


class RMSpropTF(RMSprop):
    r"""RMSprop as TensorFlow 1 computes it, with the arguments of timm's ``RMSpropTF``.

    It is `RMSprop` with other defaults: :math:`\epsilon` stands inside of the root, the mean square starts at
    1, and the learning rate goes into the momentum buffer:

    .. math::
        \begin{aligned}
        g &\leftarrow g + \lambda p && \text{if } \lambda > 0 \\
        v &\leftarrow \alpha v + (1 - \alpha) g^2, \quad v_0 = 1 \\
        \bar g &\leftarrow \alpha \bar g + (1 - \alpha) g, \quad \tilde v = v - \bar g^2
        && \text{if centered, else } \tilde v = v \\
        b &\leftarrow \mu b + \gamma g / \sqrt{\tilde v + \epsilon} && \text{if } \mu > 0 \\
        p &\leftarrow p - b
        && \text{if } \mu > 0 \text{, else } p \leftarrow p - \gamma g / \sqrt{\tilde v + \epsilon}
        \end{aligned}

    Parameters
    ----------
    params : iterable of Tensor, of dict, or of (str, Tensor)
        The parameters, or groups of them; see `RMSprop`.
    lr : float, optional, default=0.01
        Learning rate :math:`\gamma`. Range: ``>= 0``.
    alpha : float, optional, default=0.9
        Smoothing :math:`\alpha` of the averages; TensorFlow's ``decay``. Range: ``>= 0``.
    eps : float, optional, default=1e-10
        Added to the mean square, inside of the root; TensorFlow's ``epsilon``. Range: ``>= 0``.
    weight_decay : float, optional, default=0
        L2 penalty :math:`\lambda`, added to the gradient (but see `decoupled_decay`). Range: ``>= 0``.
    momentum : float, optional, default=0
        Momentum :math:`\mu`. With 0 there is no buffer for it. Range: ``>= 0``.
    centered : bool, optional, default=False
        Divide by the estimated standard deviation instead of the root of the second moment.
    decoupled_decay : bool, optional, default=False
        Decay the parameter itself, :math:`p \leftarrow (1 - \gamma \lambda) p`, before the update, instead of
        the gradient.
    corrected_weight_decay : bool, optional, default=False
        Only False; see the notes for what gives the same.
    lr_in_momentum : bool, optional, default=True
        False takes the learning rate out of the buffer, as PyTorch has it.
    caution : bool, optional, default=False
        Only False.
    foreach : bool, optional, default=None
        None or True: one operator for a whole group. False: one for each parameter. The same bits.
    maximize : bool, optional, default=False
        Ascend.
    differentiable : bool, optional, default=False
        Whether steps stay on Dragon's tape; see `RMSprop`.
    grad_scale : float, optional, default=1
        Every gradient is multiplied by it first. Any number but NaN.
    clip_norm : float, optional, default=0
        The largest L2 norm of a gradient, each tensor on its own; 0 is off. Range: ``>= 0``.
    clip_value : float, optional, default=0
        The largest absolute value of an element of a gradient; 0 is off. Range: ``>= 0``. Ignored where
        `clip_norm` is on.
    scale : float, optional, default=None
        Dragon's older name of `grad_scale`.

    Raises
    ------
    TypeError, ValueError, AssertionError, RuntimeError
        As `RMSprop`; a ``ValueError`` too where `corrected_weight_decay` or `caution` is on, here or in a
        group.

    Warns
    -----
    UserWarning
        As `RMSprop`.

    Notes
    -----
    *By position* go the arguments up to `decoupled_decay`; timm has changed the order of what follows.

    *corrected_weight_decay*, the decay :math:`1 - \lambda \gamma^2 / \gamma_\text{max}`, is
    ``decoupled_decay=True`` with ``group["weight_decay"] = decay * group["lr"] / max_lr`` before each step.
    *caution*, which leaves out the part of an update whose sign is against the gradient's, has no counterpart
    here.

    *Groups* have timm's keys: ``decoupled_decay`` stands for what `RMSprop` calls ``decoupled_weight_decay``,
    which is understood in a group too. ``eps_inside_sqrt`` and ``initial_square_avg`` stand beside them and
    may be changed.

    *State dicts* go from here to timm's class, to `RMSprop` and back. One of timm's, or of PyTorch's RMSprop,
    says nothing of ``eps_inside_sqrt``: the form stays that of the optimizer that loads it. One of
    `dragon_optim.RMSprop` or `dragon_optim.RMSpropTF` says everything, so that the training goes on in the
    form in which it began, whichever of the two loads it. timm's ``corrected_weight_decay`` and ``caution``
    are refused where they are on.

    *Numbers.* The bits are those of `RMSprop` with the same settings. timm's class rounds the mean square in
    another order (:math:`v + (1 - \alpha) (g^2 - v)`), and with ``alpha <= 0.5`` the mean gradient; its
    results are within 2 units of error of these.

    Examples
    --------
    >>> from dragon.vm import torch
    >>> import dragon_optim
    >>> weight = torch.nn.Parameter(torch.ones(3))
    >>> optimizer = dragon_optim.RMSpropTF([weight], lr=0.016, eps=0.001, momentum=0.9, weight_decay=1e-5)
    >>> weight.sum().backward()
    >>> optimizer.step()
    >>> round(optimizer.state[weight]["square_avg"].numpy()[0].item(), 4)
    1.0
    >>> [round(float(x), 4) for x in weight.numpy()]
    [0.984, 0.984, 0.984]
    """

    # In the order of the operator, by timm's names.
    hyper_fields = tuple(
        hyper.Flag("decoupled_decay") if field.key == "decoupled_weight_decay" else field
        for field in RMSprop.hyper_fields
    )
    other_names: ClassVar[Dict[str, str]] = {
        "scale": "grad_scale",
        "decoupled_weight_decay": "decoupled_decay",
    }

    refused_fields = (
        hyper.Refused(
            "corrected_weight_decay",
            "set group['weight_decay'] = decay * group['lr'] / max_lr before each step, with "
            "decoupled_decay=True",
        ),
        hyper.Refused("caution", "there is no such update here"),
    )

    def __init__(
        self,
        params: Params,
        lr: float = 1e-2,
        alpha: float = 0.9,
        eps: float = 1e-10,
        weight_decay: float = 0,
        momentum: float = 0,
        centered: bool = False,
        decoupled_decay: bool = False,
        *,
        corrected_weight_decay: bool = False,
        lr_in_momentum: bool = True,
        caution: bool = False,
        foreach: Optional[bool] = None,
        maximize: bool = False,
        differentiable: bool = False,
        grad_scale: float = GRAD_SCALE,
        clip_norm: float = 0,
        clip_value: float = 0,
        scale: Optional[float] = None,
    ) -> None:
        """See the class."""
        hyper.check_refused(
            self.refused_fields, {"corrected_weight_decay": corrected_weight_decay, "caution": caution}
        )
        super().__init__(
            params,
            lr,
            alpha,
            eps,
            weight_decay,
            momentum,
            centered,
            foreach=foreach,
            maximize=maximize,
            differentiable=differentiable,
            grad_scale=grad_scale,
            clip_norm=clip_norm,
            clip_value=clip_value,
            lr_in_momentum=lr_in_momentum,
            eps_inside_sqrt=True,
            decoupled_weight_decay=decoupled_decay,
            initial_square_avg=1.0,
            scale=scale,
        )
