"""A solid known only where its surface passes: 8^3 blocks of voxels, on one level of a chain of resolutions.

A voxel is evaluated, or it takes the side of the voxel above it without a query. Two rules keep that consistent. What the
surface cuts on one level is evaluated on the next (`cut`, `finer`). On each level every corner of a cell with both sides
is evaluated, which may reveal more such cells (`_close`), so a surface is followed wherever it leads. Then neighbours
that were not evaluated are on one side, an absent block is on one side, and each connected piece of the surface is either
complete, with the values of a dense evaluation, or missing as a whole because no coarser level had a trace of it.
"""

from __future__ import annotations

from collections.abc import Callable
from itertools import product

import torch
from torch import Tensor

from shapecodec.grid import SparseGrid, morton_decode, morton_encode, neighbour_taps

PIECE = 8192  # blocks at once: their values with a halo take 33 MB
LARGEST = 1e38  # evaluated values are clamped to it; the infinite ones stand for a side
INSIDE, OUTSIDE, BOTH, KNOWN, BEYOND = 1, 2, 3, 4, 8  # bits of a voxel: its side, evaluated, sticks out of the cube
_HALO = {-1: (slice(0, 1), slice(7, 8)), 0: (slice(1, 9), slice(0, 8)), 1: (slice(9, 10), slice(0, 1))}
_INNER = slice(1, 9)


class Volume:
    """One level of the chain. Rows 0 and 1 stand for every absent block and for what is beyond the cube, so that a halo
    is gathered without a case; then come the blocks in the order of arrival. `blocks` gives them in Morton order.

    Args:
        resolution: voxels an axis on the finest level.
        step: a voxel's length in voxels of the finest level, a power of two; the last voxel of an axis may stick out.
        level: inside is above it.
        evaluate: points (Q, 3) float32 of the unit cube -> (Q,) float32, finite.
        coarser: the level above, None for the first, on which every voxel is evaluated.
        device: of everything.
    """

    def __init__(
        self,
        resolution: int,
        step: int,
        level: float,
        evaluate: Callable[[Tensor], Tensor],
        coarser: Volume | None,
        device: torch.device,
    ) -> None:
        self.resolution, self.step, self.level, self.evaluate, self.coarser = resolution, step, level, evaluate, coarser
        self.voxels = -(-resolution // step)
        self.blocks_an_axis = -(-self.voxels // 8)
        self.coords = torch.zeros((2, 3), dtype=torch.int32, device=device)
        self.values = torch.full((2, 8, 8, 8), -torch.inf, device=device)
        self.states = torch.zeros((2, 8, 8, 8), dtype=torch.uint8, device=device)
        self.states[1] = OUTSIDE | BEYOND
        self.near = torch.zeros((2, 27), dtype=torch.int32, device=device)  # rows of the 3^3 blocks around
        self.grid, self.order = SparseGrid.build(self.coords[2:], self.blocks_an_axis)
        if coarser is None:
            axis = torch.arange(self.blocks_an_axis, dtype=torch.int32, device=device)
            for rows in self._add(torch.cartesian_prod(axis, axis, axis)).split(PIECE):
                self._query(rows, self.states[rows] == OUTSIDE)

    def blocks(self) -> tuple[Tensor, SparseGrid]:
        """Values (L, 8, 8, 8) float32, infinite where only the side is known, and their grid."""
        return self.values[self.order + 2], self.grid

    def value_at(self, voxel: Tensor) -> Tensor:
        """(Q,) float32 at voxels (Q, 3) that lie in the blocks."""
        x, y, z = (voxel & 7).long().unbind(1)
        return self.values[self._rows(voxel >> 3), x, y, z]

    def cut(self, near: float, *, margin: bool) -> Tensor:
        """(L + 2, 8, 8, 8) bool, by rows: voxels to be looked at more closely.

        Those are the voxels with a neighbour (of 6) on the other side, and those whose value, by the steepest slope to a
        neighbour, could reach the level within `near` voxels: where a wall is thinner than a voxel, the values on
        both sides of it approach the level and turn back. With `margin`, all 26 neighbours of either, too.
        """
        marked = torch.zeros_like(self.states, dtype=torch.bool)
        for rows in self._all_rows().split(PIECE):
            states, values = self._halo(self.states, rows), self._halo(self.values, rows)
            values.masked_fill_(values.isinf(), torch.nan)
            seen, slope = states[:, _INNER, _INNER, _INNER].clone(), values.new_zeros((len(rows), 8, 8, 8))
            for axis in (1, 2, 3):
                lines = tuple(slice(None) if d in (0, axis) else _INNER for d in range(4))
                seen |= states[lines].narrow(axis, 0, 8) | states[lines].narrow(axis, 2, 8)
                steps = values[lines].diff(dim=axis).abs_()
                slope = slope.fmax(steps.narrow(axis, 0, 8)).fmax(steps.narrow(axis, 1, 8))  # fmax passes NaN over
            cut = (seen & BOTH) == BOTH
            cut |= (values[:, _INNER, _INNER, _INNER] - self.level).abs_() < near * slope
            marked[rows] = cut & ((self.states[rows] & KNOWN) > 0)
        return self._dilated(marked) if margin else marked

    def finer(self, marked: Tensor) -> Volume:
        """The next level: the eight voxels within each marked one evaluated, the surface followed from there."""
        child = Volume(self.resolution, self.step // 2, self.level, self.evaluate, self, self.values.device)
        octants = marked.view(-1, 2, 4, 2, 4, 2, 4)
        wanted = _any_along(_any_along(_any_along(octants, 6), 4), 2).reshape(-1, 2, 2, 2).nonzero()
        coords = self.coords[wanted[:, 0]] * 2 + wanted[:, 1:].int()
        inside = (coords < child.blocks_an_axis).all(1)  # an odd last block has no upper half
        wanted, rows = wanted[inside], child._add(coords[inside])
        for which, piece in zip(wanted.split(PIECE), rows.split(PIECE), strict=True):
            row, x, y, z = which.unbind(1)
            mask = _doubled(octants[row, x, :, y, :, z, :])
            child._query(piece, mask & (child.states[piece] < KNOWN))
        child._close(rows)
        return child

    def _all_rows(self) -> Tensor:
        return torch.arange(2, len(self.values), device=self.values.device)

    def _rows(self, coords: Tensor) -> Tensor:
        """Rows (...,) int64 of blocks (..., 3), 0 where absent."""
        row = self.grid.lookup(coords)
        return torch.where(row >= 0, self.order[row.clamp(min=0)] + 2, 0) if len(self.order) else row.clamp(min=0)

    def _add(self, coords: Tensor) -> Tensor:
        """Append absent blocks (n, 3), each voxel on the side of the level above; returns their rows (n,)."""
        states = torch.cat([self._sides(piece) for piece in coords.split(PIECE)])
        values = torch.where((states & INSIDE) > 0, torch.inf, -torch.inf)
        self.coords, self.states = torch.cat([self.coords, coords]), torch.cat([self.states, states])
        self.values = torch.cat([self.values, values])
        self.grid, self.order = SparseGrid.build(self.coords[2:], self.blocks_an_axis)
        rows = self._all_rows()[len(self.order) - len(coords) :]
        around = coords[:, None] + neighbour_taps(rows.device)
        in_cube = ((around >= 0) & (around < self.blocks_an_axis)).all(-1)
        near = torch.where(in_cube, self._rows(around), 1)
        self.near = torch.cat([self.near, near.int()])
        block, tap = (near >= 2).nonzero().unbind(1)
        self.near[near[block, tap], 26 - tap] = rows[block].int()
        return rows

    def _sides(self, coords: Tensor) -> Tensor:
        """(n, 8, 8, 8) uint8 for absent blocks (n, 3): INSIDE, OUTSIDE, or OUTSIDE | BEYOND."""
        inside = torch.zeros((len(coords), 8, 8, 8), dtype=torch.bool, device=coords.device)
        if self.coarser is not None:
            row = self.coarser._rows(coords >> 1)
            known = row >= 2
            x, y, z = (coords[known] & 1).long().unbind(1)
            parents = self.coarser.states.view(-1, 2, 4, 2, 4, 2, 4)[row[known], x, :, y, :, z, :]
            inside[known] = _doubled((parents & INSIDE) > 0)
            inside[~known] = self.coarser._inside_at(coords[~known] * 4).view(-1, 1, 1, 1)
        states = torch.where(inside, INSIDE, OUTSIDE).to(torch.uint8)
        if self.voxels % 8:
            place = coords[:, :, None] * 8 + torch.arange(8, device=coords.device)
            x, y, z = (place >= self.voxels).unbind(1)
            states.masked_fill_(x[:, :, None, None] | y[:, None, :, None] | z[:, None, None, :], OUTSIDE | BEYOND)
        return states

    def _inside_at(self, voxel: Tensor) -> Tensor:
        """(Q,) bool at voxels (Q, 3): the side on the finest level, up from this one, whose block there is present."""
        row = self._rows(voxel >> 3)
        inside, known = torch.zeros_like(row, dtype=torch.bool), row >= 2
        x, y, z = (voxel[known] & 7).long().unbind(1)
        inside[known] = (self.states[row[known], x, y, z] & INSIDE) > 0
        if self.coarser is not None and not bool(known.all()):  # the first level has every block
            inside[~known] = self.coarser._inside_at(voxel[~known] >> 1)
        return inside

    def _query(self, rows: Tensor, mask: Tensor) -> None:
        """Evaluate the voxels of blocks `rows` (n,) that `mask` (n, 8, 8, 8) names."""
        block, x, y, z = mask.nonzero().unbind(1)
        row = rows[block]
        centre = (self.coords[row] * 8 + torch.stack([x, y, z], 1)).float() + 0.5
        points = (centre * self.step / self.resolution - 0.5).clamp_(-0.5, 0.5)
        values = self.evaluate(points).clamp(-LARGEST, LARGEST)
        self.values[row, x, y, z] = values
        self.states[row, x, y, z] = torch.where(values > self.level, INSIDE | KNOWN, OUTSIDE | KNOWN).to(torch.uint8)

    def _close(self, rows: Tensor) -> None:
        """Evaluate every corner of every cell with both sides, from the blocks `rows` on."""
        while len(rows):
            rows = torch.cat([rows, self._surround(rows)])
            revealed = [rows[:0]]
            for piece in self._around(rows).split(PIECE):
                seen = _or_of(self._halo(self.states, piece), 2) & BOTH
                corners = _or_of(seen == BOTH, 2) & (self.states[piece] < KNOWN)
                hit = corners.flatten(1).any(1)
                self._query(piece[hit], corners[hit])
                revealed.append(piece[hit])
            rows = torch.cat(revealed)

    def _surround(self, rows: Tensor) -> Tensor:
        """Add the absent blocks that touch an evaluated voxel of blocks `rows`; returns their rows."""
        missing = [self.coords[:0]]
        for piece in rows.split(PIECE):
            piece = piece[(self.near[piece] == 0).any(1)]
            touched = (self.states[piece] & KNOWN) > 0
            for axis in (1, 2, 3):
                ends = [touched.narrow(axis, 0, 1), _any_along(touched, axis), touched.narrow(axis, 7, 1)]
                touched = torch.cat(ends, axis)
            block, tap = (touched.flatten(1) & (self.near[piece] == 0)).nonzero().unbind(1)
            missing.append(self.coords[piece[block]] + neighbour_taps(rows.device)[tap])
        keys = morton_encode(torch.cat(missing)).unique()
        return self._add(morton_decode(keys)) if len(keys) else rows[:0]

    def _around(self, rows: Tensor) -> Tensor:
        """Blocks `rows` and those around them, each once."""
        if len(rows) * 4 > len(self.values):
            return self._all_rows()
        near = self.near[rows].flatten()
        return near[near >= 2].unique().long()

    def _halo(self, data: Tensor, rows: Tensor) -> Tensor:
        """(n, 10, 10, 10) of `data` (L + 2, 8, 8, 8): blocks `rows` (n,) with one voxel around them."""
        out, near = data.new_zeros((len(rows), 10, 10, 10)), self.near[rows].long()
        for tap, offset in enumerate(product((-1, 0, 1), repeat=3)):
            target, source = zip(*(_HALO[o] for o in offset), strict=True)
            out[:, *target] = data[:, *source][near[:, tap]]
        return out

    def _dilated(self, marked: Tensor) -> Tensor:
        """`marked` (L + 2, 8, 8, 8) bool and the 26 neighbours of each voxel, within the blocks."""
        dilated = torch.zeros_like(marked)
        for rows in self._all_rows().split(PIECE):
            dilated[rows] = _or_of(self._halo(marked, rows), 3)
        return dilated


def _or_of(bits: Tensor, width: int) -> Tensor:
    """(n, S, S, S) bool or integer -> (n, S - width + 1, ...): the bits of the width^3 voxels from each on."""
    for axis in (1, 2, 3):
        kept = bits.shape[axis] - width + 1
        joined = bits.narrow(axis, 0, kept)
        for start in range(1, width):
            joined = joined | bits.narrow(axis, start, kept)
        bits = joined
    return bits


def _any_along(mask: Tensor, axis: int) -> Tensor:
    """Whether any is set along an axis of 4 or 8, which stays with length 1; `Tensor.any` takes ten times as long there."""
    while (half := mask.shape[axis] // 2) > 0:
        mask = mask.narrow(axis, 0, half) | mask.narrow(axis, half, half)
    return mask


def _doubled(voxels: Tensor) -> Tensor:
    """(n, 4, 4, 4) -> (n, 8, 8, 8), each voxel as eight."""
    n = len(voxels)
    return voxels.view(n, 4, 1, 4, 1, 4, 1).expand(n, 4, 2, 4, 2, 4, 2).reshape(n, 8, 8, 8)
