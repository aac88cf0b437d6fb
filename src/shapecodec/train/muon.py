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
LEAST_SIDE = 64  # narrower matrices, such as those of points and latents, have few directions to balance


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
    """Muon for weight matrices with both sides of at least 64, AdamW for all other parameters, under one learning rate.

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
        lr, momentum, good = group["lr"], group["momentum"], self._good(parameters[0].device)
        grads = torch.stack([p.grad for p in parameters if p.grad is not None])
        before = torch.stack(self._slots(parameters, "momentum"))
        after = torch.where(good, torch.add(grads, before, alpha=momentum), before)
        update = orthogonalised(torch.where(good, torch.add(grads, after, alpha=momentum), after))
        step = -lr * MATCH_ADAMW * max(update.shape[1:]) ** 0.5 * good
        # a step that does not count must not decay either: both factors become neutral
        decay = 1 - lr * group["weight_decay"] * good
        torch._foreach_mul_(parameters, decay)
        torch._foreach_add_(parameters, list((update * step).to(grads.dtype).unbind()))
        torch._foreach_copy_(self._slots(parameters, "momentum"), list(after.unbind()))

    def _adamw(self, parameters: list[Tensor], group: dict[str, Any]) -> None:
        (beta1, beta2), lr, good = group["betas"], group["lr"], self._good(parameters[0].device)
        grads = flat([p.grad for p in parameters if p.grad is not None])
        slots = [self._slots(parameters, name) for name in ("first", "second")]
        first, second = (flat(slot) for slot in slots)
        count = self._count(parameters, good)
        first_after = torch.where(good, first.lerp(grads, 1 - beta1), first)
        second_after = torch.where(good, second.lerp(grads.square(), 1 - beta2), second)
        denominator = (second_after / (1 - beta2**count)).sqrt() + 1e-8
        step = torch.where(good, first_after / (1 - beta1**count) / denominator, 0.0) * -lr
        torch._foreach_mul_(parameters, 1 - lr * group["weight_decay"] * good)
        torch._foreach_add_(parameters, parts(step, parameters))
        for slot, values in zip(slots, (first_after, second_after), strict=True):
            torch._foreach_copy_(slot, parts(values, parameters))

    def _good(self, device: torch.device) -> Tensor:
        return torch.ones((), dtype=torch.bool, device=device) if self.found_inf is None else self.found_inf == 0

    def _slots(self, parameters: list[Tensor], name: str) -> list[Tensor]:
        for parameter in parameters:
            if name not in self.state[parameter]:
                self.state[parameter][name] = torch.zeros_like(parameter)
        return [self.state[parameter][name] for parameter in parameters]

    def _count(self, parameters: list[Tensor], good: Tensor) -> Tensor:
        """Steps taken, 0-dim float32, counted on the device; one for the group, kept with each parameter for checkpoints.

        It is counted in place: a recorded step goes on from the tensor that it was recorded with.
        """
        state = self.state[parameters[0]]
        count: Tensor = state["step"] if "step" in state else torch.zeros((), device=parameters[0].device)
        count.add_(good)
        for parameter in parameters:
            self.state[parameter]["step"] = count
        return count.clamp(min=1)


def flat(tensors: list[Tensor]) -> Tensor:
    """All elements of the tensors, one after the other."""
    return torch.cat([t if t.ndim == 1 else t.reshape(-1) for t in tensors])


def parts(values: Tensor, like: list[Tensor]) -> list[Tensor]:
    """What `flat` joined, in the shapes of `like`."""
    split = values.split([t.numel() for t in like])
    return [part if t.ndim == 1 else part.view(t.shape) for part, t in zip(split, like, strict=True)]
