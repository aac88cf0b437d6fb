"""How the tokens of several shapes lie in one tensor: as many for each (dense), or packed one after the other."""

from __future__ import annotations

from abc import ABC, abstractmethod
from dataclasses import dataclass

import torch
from torch import Tensor
from torch.nn.functional import scaled_dot_product_attention

from shapecodec.errors import BadArgument
from shapecodec.grid import WindowPlan
from shapecodec.ops.window_attention import window_attention


class Sets(ABC):
    """What a denoiser needs to know of its tokens: whose they are, and who may look at whom.

    Tokens are (B, T, C) for `DenseSets` and (N, C) for `PackedSets`; T or N is called "rows" below.
    """

    @abstractmethod
    def count(self, tokens: Tensor) -> int:
        """B, the shapes that these tokens belong to."""

    @abstractmethod
    def spread(self, values: Tensor) -> Tensor:
        """One value a shape, (B, ...), to a tensor that broadcasts against the tokens (rows, ...)."""

    @abstractmethod
    def mean(self, values: Tensor) -> Tensor:
        """(B,) mean over the tokens and channels of each shape."""

    @abstractmethod
    def attend(self, queries: Tensor, keys: Tensor, values: Tensor) -> Tensor:
        """softmax(q k^T / sqrt(D)) v within each shape; all (rows, H, D)."""

    @abstractmethod
    def ask(self, queries: Tensor, keys: Tensor, values: Tensor) -> Tensor:
        """Tokens (rows, H, D) ask a dense context (B, S, H, D) of their own shape."""


@dataclass(frozen=True)
class DenseSets(Sets):
    """B shapes of T tokens each, (B, T, C): nothing has to be known."""

    def count(self, tokens: Tensor) -> int:
        """See `Sets.count`."""
        return len(tokens)

    def spread(self, values: Tensor) -> Tensor:
        """See `Sets.spread`: (B, ...) -> (B, 1, ...)."""
        return values[:, None] if values.ndim > 1 else values[:, None, None]

    def mean(self, values: Tensor) -> Tensor:
        """See `Sets.mean`."""
        return values.mean((1, 2))

    def attend(self, queries: Tensor, keys: Tensor, values: Tensor) -> Tensor:
        """See `Sets.attend`; (B, T, H, D)."""
        return self.ask(queries, keys, values)

    def ask(self, queries: Tensor, keys: Tensor, values: Tensor) -> Tensor:
        """See `Sets.ask`."""
        queries, keys, values = (x.transpose(1, 2) for x in (queries, keys, values))
        return scaled_dot_product_attention(queries, keys, values).transpose(1, 2)


class PackedSets(Sets):
    """B shapes of any number of tokens, (N, C) one after the other, never padded in self-attention.

    Args:
        offsets: (B + 1,) int64 on the CPU; shape b owns rows offsets[b] : offsets[b + 1], at least one.
        device: of the tokens.
    """

    def __init__(self, offsets: Tensor, device: torch.device | str) -> None:
        sizes = offsets.diff()
        if offsets.ndim != 1 or len(offsets) < 2 or int(offsets[0]) != 0 or int(sizes.min()) < 1:
            raise BadArgument(f"offsets {offsets.tolist()[:6]} of packed sets.", where="PackedSets")
        rows = torch.arange(int(offsets[-1]), device=device)
        self.longest = int(sizes.max())
        self.owner = torch.repeat_interleave(torch.arange(len(sizes)), sizes).to(device)
        self.sizes = sizes.to(device)
        place = offsets.to(device)
        self.position = rows - place[self.owner]  # of a token within its shape
        self.plan = WindowPlan(rows, rows, place.to(torch.int32), self.longest)

    def count(self, tokens: Tensor) -> int:
        """See `Sets.count`."""
        return len(self.sizes)

    def spread(self, values: Tensor) -> Tensor:
        """See `Sets.spread`: (B, ...) -> (N, ...)."""
        rows = values[self.owner]
        return rows if values.ndim > 1 else rows[:, None]

    def mean(self, values: Tensor) -> Tensor:
        """See `Sets.mean`."""
        total = values.new_zeros(len(self.sizes)).index_add_(0, self.owner, values.mean(1))
        return total / self.sizes

    def attend(self, queries: Tensor, keys: Tensor, values: Tensor) -> Tensor:
        """See `Sets.attend`; (N, H, D)."""
        return window_attention(queries, keys, values, self.plan)

    def ask(self, queries: Tensor, keys: Tensor, values: Tensor) -> Tensor:
        """See `Sets.ask`: queries are padded to the longest shape's; what padding asks is thrown away, so no mask is needed."""
        padded = queries.new_zeros(len(self.sizes), self.longest, *queries.shape[1:])
        padded = padded.index_put((self.owner, self.position), queries)
        return DenseSets().ask(padded, keys, values)[self.owner, self.position]
