"""Muon: steps along orthogonalised momentum for matrices, AdamW for everything else (Jordan et al. 2024).

Matrices of one shape are stacked and orthogonalised together, so a step takes a few dozen launches whatever the depth: one matrix
at a time, as in torch.optim.Muon, a network of 200 matrices asks for some 4,000.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable
from typing import Any

import torch
from torch import Tensor

# a x + b x^3 + c x^5 with these moves singular values in (0, 1] to near 1 in five rounds (Jordan et al. 2024)
QUINTIC = (3.4445, -4.7750, 2.0315)
ROUNDS = 5
MATCH_ADAMW = 0.2  # root mean square of an AdamW step in units of its learning rate (Liu et al. 2025, section 2.2)
LEAST_SIDE = 32  # narrower matrices have too few directions to balance


def orthogonalised(matrices: Tensor) -> Tensor:
    """(K, R, C) -> (K, R, C) bfloat16 with singular values of about 1 and the same singular vectors.

    Newton-Schulz iteration on each matrix divided by its Frobenius norm; values between 0.7 and 1.2, which suffices.
    """
    a, b, c = QUINTIC
    tall = matrices.shape[1] > matrices.shape[2]
    x = (matrices.mT if tall else matrices).bfloat16()
    x = x / (x.float().norm(dim=(1, 2), keepdim=True) + 1e-7).bfloat16()
    for _ in range(ROUNDS):
        gram = x @ x.mT
        x = a * x + (b * gram + c * gram @ gram) @ x
    return x.mT if tall else x


class Muon(torch.optim.Optimizer):
    """Muon for weight matrices with both sides of at least 32, AdamW for all other parameters, under one learning rate.

    Muon's step is scaled by 0.2 sqrt(max(rows, columns)), so that learning rate and weight decay mean what they mean for AdamW
    (Liu et al. 2025, eq. 4). A step whose `found_inf` is set changes neither weights nor moments.

    Args:
        parameters: of a model.
        lr: learning rate of both parts.
        betas: AdamW's decay rates.
        momentum: Muon's, with Nesterov's look ahead.
        weight_decay: of parameters with two or more axes.
    """

    found_inf: Tensor | None = None

    def __init__(
        self,
        parameters: Iterable[Tensor],
        lr: float,
        *,
        betas: tuple[float, float] = (0.9, 0.999),
        momentum: float = 0.95,
        weight_decay: float = 0.01,
    ) -> None:
        chosen = list(parameters)
        matrices = [p for p in chosen if p.ndim == 2 and min(p.shape) >= LEAST_SIDE]
        taken = set(map(id, matrices))
        others = [p for p in chosen if id(p) not in taken]
        groups: list[dict[str, Any]] = [
            {"params": [p for p in matrices if p.shape == shape], "kind": "muon", "weight_decay": weight_decay}
            for shape in dict.fromkeys(p.shape for p in matrices)
        ]
        groups += [
            {"params": [p for p in others if p.ndim >= 2], "kind": "adamw", "weight_decay": weight_decay},
            {"params": [p for p in others if p.ndim < 2], "kind": "adamw", "weight_decay": 0.0},
        ]
        groups = [group for group in groups if group["params"]]
        super().__init__(groups, {"lr": lr, "betas": betas, "momentum": momentum})

    @torch.no_grad()
    def step(self, closure: Callable[[], float] | None = None) -> None:  # type: ignore[override]
        """One update, without waiting for the device."""
        for group in self.param_groups:
            kept = [p for p in group["params"] if p.grad is not None]
            if kept:
                (self._muon if group["kind"] == "muon" else self._adamw)(kept, group)

    def _muon(self, parameters: list[Tensor], group: dict[str, Any]) -> None:
        momentum, good = group["momentum"], self._good(parameters[0].device)
        grads = torch.stack([p.grad for p in parameters if p.grad is not None])
        before = torch.stack([self._slot(p, "momentum") for p in parameters])
        after = torch.where(good, momentum * before + grads, before)
        update = orthogonalised(torch.where(good, grads, 0) + momentum * after).to(grads.dtype)
        scale = MATCH_ADAMW * max(update.shape[1:]) ** 0.5
        weights = torch.stack(list(parameters))
        fresh = weights * (1 - group["lr"] * group["weight_decay"]) - group["lr"] * scale * update
        self._store(parameters, torch.where(good, fresh, weights), momentum=after)

    def _adamw(self, parameters: list[Tensor], group: dict[str, Any]) -> None:
        (beta1, beta2), good = group["betas"], self._good(parameters[0].device)
        flat = [torch.cat([part.reshape(-1) for part in parts]) for parts in (
            parameters,
            [p.grad for p in parameters if p.grad is not None],
            [self._slot(p, "first") for p in parameters],
            [self._slot(p, "second") for p in parameters],
        )]  # fmt: skip
        weights, grads, first, second = flat
        count = self._count(parameters, good)
        first_after, second_after = first.lerp(grads, 1 - beta1), second.lerp(grads.square(), 1 - beta2)
        denominator = (second_after / (1 - beta2**count)).sqrt() + 1e-8
        step = first_after / (1 - beta1**count) / denominator
        fresh = weights * (1 - group["lr"] * group["weight_decay"]) - group["lr"] * step
        pairs = ((fresh, weights), (first_after, first), (second_after, second))
        fresh, first, second = (torch.where(good, new, old) for new, old in pairs)
        sizes = [p.numel() for p in parameters]
        shaped = [
            [part.view(p.shape) for part, p in zip(t.split(sizes), parameters, strict=True)] for t in (first, second)
        ]
        weights_back = [part.view(p.shape) for part, p in zip(fresh.split(sizes), parameters, strict=True)]
        self._store(parameters, weights_back, first=shaped[0], second=shaped[1])

    def _good(self, device: torch.device) -> Tensor:
        return torch.ones((), dtype=torch.bool, device=device) if self.found_inf is None else self.found_inf == 0

    def _slot(self, parameter: Tensor, name: str) -> Tensor:
        state = self.state[parameter]
        if name not in state:
            state[name] = torch.zeros_like(parameter)
        return state[name]

    def _count(self, parameters: list[Tensor], good: Tensor) -> Tensor:
        """Steps taken, 0-dim float32, counted on the device; one for the group, kept with each parameter for checkpoints."""
        state = self.state[parameters[0]]
        count = state.get("step", torch.zeros((), device=parameters[0].device)) + good
        for parameter in parameters:
            self.state[parameter]["step"] = count
        return count.clamp(min=1)

    def _store(self, parameters: list[Tensor], weights: Any, **slots: Any) -> None:
        torch._foreach_copy_(parameters, list(weights))
        for name, values in slots.items():
            torch._foreach_copy_([self.state[p][name] for p in parameters], list(values))
