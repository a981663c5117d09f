"""Adam for embedding tables of which a step uses few rows."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from typing import Any

import torch
from torch import Tensor

_LONGEST_WAIT = 2**16  # steps: a call holds a table of the factors of all of them
_REFUSED = ("weight_decay", "amsgrad", "maximize")  # of torch.optim.Adam's settings
_Settings = tuple[float, float, float, float]


@dataclass
class _Waiting:
    """Of a table some of whose rows wait: `[n]` steps that each has taken, and learning rate, betas and
    epsilon of the steps missed."""

    last_step: Tensor
    settings: _Settings


def _settings(group: dict[str, Any]) -> _Settings:
    beta1, beta2 = group["betas"]
    return float(group["lr"]), float(beta1), float(beta2), float(group["eps"])


class DeferredAdam(torch.optim.Adam):
    """`torch.optim.Adam`, whose step takes time for the rows that were used, not for all of a table.

    Parameters with dense gradients are PyTorch's. A parameter with a sparse one (`embedding(...,
    sparse=True)`) has the values that PyTorch's dense Adam gives it, up to rounding, but rows that a
    step does not use wait: what they missed is made up for when `catch_up` is next asked for them::

        optimizer.catch_up(table, rows)              # before they are read
        loss = f(embedding(rows, table, sparse=True))
        loss.backward()
        optimizer.step()
        ...
        optimizer.catch_up()                         # before whole tables are read, or saved

    After the last line tables and state are those of a `torch.optim.Adam`, whose `state_dict` is the
    same. float32 and float64, on the CPU.

    Args:
        params, lr, betas, eps: as of `torch.optim.Adam`; of parameter groups, too.

    Raises:
        ValueError: for a group, or a state, with weight_decay, amsgrad or maximize.
    """

    def __init__(
        self,
        params: Any,
        lr: float = 1e-3,
        betas: tuple[float, float] = (0.9, 0.999),
        eps: float = 1e-8,
    ) -> None:
        self._waiting: dict[Tensor, _Waiting] = {}
        super().__init__(params, lr=lr, betas=betas, eps=eps, fused=True)

    def add_param_group(self, param_group: dict[str, Any]) -> None:
        """As `torch.optim.Adam`'s."""
        _refuse(param_group)
        super().add_param_group(param_group)

    @torch.no_grad()
    def step(self, closure: Callable[[], Any] | None = None) -> Any:
        """One step of all parameters with a gradient.

        Args:
            closure: computes gradients, called first; what it returns is returned.
        """
        loss = None
        if closure is not None:
            with torch.enable_grad():
                loss = closure()
        sparse = []
        for group in self.param_groups:
            for table in group["params"]:
                if table.grad is None:
                    continue
                if table.grad.is_sparse:
                    sparse.append((table, table.grad, group))
                    table.grad = None  # nothing for PyTorch's step
                elif table in self._waiting:
                    self.catch_up(table)
                    del self._waiting[table]
        dense_step = torch.optim.Adam.step  # hooks may be around it, which are called around this one
        getattr(dense_step, "__wrapped__", dense_step)(self)
        for table, gradient, group in sparse:
            table.grad = gradient
            state = self._state_of(table)
            waiting = self._waiting.get(table)
            if waiting is None:
                last_step = torch.full((len(table),), int(state["step"]))
                waiting = self._waiting[table] = _Waiting(last_step, _settings(group))
            elif waiting.settings != _settings(group):
                self.catch_up(table)
                waiting.settings = _settings(group)
            state["step"] += 1
            self._move(table, waiting, gradient._indices()[0], gradient._values())
            if int(state["step"]) % _LONGEST_WAIT == 0:
                self._move(table, waiting, None, None)
        return loss

    @torch.no_grad()
    def catch_up(self, table: Tensor | None = None, rows: Tensor | None = None) -> None:
        """Takes the steps that rows of a table missed.

        Args:
            table: a parameter; default: all of them.
            rows: `[n]` int64; default: all.
        """
        for one, waiting in self._waiting.items():
            if table is None or one is table:
                self._move(one, waiting, rows, None)

    def state_dict(self) -> dict[str, Any]:
        """That of a `torch.optim.Adam` after the same steps."""
        self.catch_up()
        return super().state_dict()

    def load_state_dict(self, state_dict: dict[str, Any]) -> None:
        """Of this class or of `torch.optim.Adam`."""
        for group in state_dict["param_groups"]:
            _refuse(group)
        super().load_state_dict(state_dict)
        self._waiting.clear()

    def __getstate__(self) -> dict[str, Any]:
        """For copies: nothing waits in them."""
        self.catch_up()
        return super().__getstate__()

    def __setstate__(self, state: dict[str, Any]) -> None:
        super().__setstate__(state)  # type: ignore[no-untyped-call]
        self._waiting = {}

    def _state_of(self, table: Tensor) -> dict[str, Tensor]:
        state: dict[str, Tensor] = self.state[table]
        if not state:  # as torch.optim.Adam makes it
            state["step"] = torch.zeros((), dtype=torch.float32)
            state["exp_avg"] = torch.zeros_like(table)
            state["exp_avg_sq"] = torch.zeros_like(table)
        return state

    def _move(
        self, table: Tensor, waiting: _Waiting, rows: Tensor | None, gradient: Tensor | None
    ) -> None:
        state = self.state[table]
        written = table, state["exp_avg"], state["exp_avg_sq"]
        torch.ops.adaptau.adam_rows_(
            *written, waiting.last_step, rows, gradient, int(state["step"]), *waiting.settings
        )
        torch.autograd.graph.increment_version(written)  # autograd notices tables changed meanwhile


def _refuse(group: dict[str, Any]) -> None:
    for name in _REFUSED:
        if group.get(name):
            raise ValueError(f"DeferredAdam has no {name}, got {group[name]}; use torch.optim.Adam")
