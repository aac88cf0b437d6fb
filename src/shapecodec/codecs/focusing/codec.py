"""Focusing: a sparse-voxel VAE that trains by looking only at what a view needs (He et al.; sections 3.1 to 3.4)."""

from __future__ import annotations

from dataclasses import replace

import torch
from torch import Tensor

from shapecodec.codecs.base import Codec, Loss
from shapecodec.codecs.focusing.carve import with_neighbours
from shapecodec.codecs.focusing.config import FocusingConfig
from shapecodec.codecs.focusing.field import FlexField, cut_voxels, exact_field, join_fields, part_of, predicted_field
from shapecodec.codecs.focusing.inputs import PointVoxels, latent_voxels, points_in
from shapecodec.codecs.focusing.memory import estimate_memory, estimate_tokens, typical_tokens
from shapecodec.codecs.focusing.network import Decoder, Encoder
from shapecodec.codecs.focusing.orient import oriented
from shapecodec.codecs.focusing.supervise import Views, training_loss
from shapecodec.errors import BadArgument, BadLatents
from shapecodec.grid import SparseGrid
from shapecodec.latents import Latents, Level
from shapecodec.mesh import Mesh
from shapecodec.nn.bottleneck import Gaussian, KLBottleneck
from shapecodec.ops.sample_surface import sample_surface
from shapecodec.rng import rng as counted_rng

# Latent voxels that subdivision looks beyond a chunk: two convolutions a block and the voxels around a corner, 1.75 latent
# voxels for two blocks and below 2 for up to four.
REACH = 2


class Focusing(Codec):
    """Mesh -> latent voxels of 8 channels -> fine voxels of a SparseFlex field -> mesh. Open surfaces and inner parts stay."""

    kind = "focusing"
    config: FocusingConfig

    def __init__(self, config: FocusingConfig | None = None) -> None:
        super().__init__()
        config = self.config = config or FocusingConfig()
        self.encoder = Encoder(config)
        self.bottleneck = KLBottleneck(config.channels, config.latent)
        self.decoder = Decoder(config)

    def prepare(self, mesh: Mesh, rng: torch.Generator | None = None, *, resolution: int | None = None) -> PointVoxels:
        """Latent voxels and oriented points, on the mesh's device; without `rng` the same points every time.

        Faces are made to agree on the outside first, as those were from which the codec learnt (`orient.oriented`).
        """
        resolution = self.config.resolution if resolution is None else resolution
        self.config.check_resolution(resolution)
        mesh = oriented(mesh)
        grid = latent_voxels(mesh, resolution, self.config.factor)
        return replace(self.points(mesh, grid, rng, resolution), mesh=mesh)

    def points(self, mesh: Mesh, grid: SparseGrid, rng: torch.Generator | None, resolution: int) -> PointVoxels:
        """Sampled points of a mesh that lie in the voxels of a grid, which may be a part of the mesh's own."""
        generator = rng or counted_rng(0, purpose="points", device=mesh.vertices.device)
        voxels = grid.resolution if self.config.stratified else None
        found = sample_surface(mesh.vertices, mesh.faces, self.config.points, generator, voxels=voxels)
        return points_in(grid, found.places, found.normals, resolution)

    def posterior(self, inputs: PointVoxels) -> Gaussian:
        """q(z | points): a diagonal Gaussian for each voxel."""
        return self.bottleneck(self.encoder(inputs.points, inputs.offsets, inputs.grid))

    def encode(self, inputs: PointVoxels, rng: torch.Generator | None = None) -> Latents:
        """One level with coordinates: a vector for each latent voxel."""
        with self._autocast():
            posterior = self.posterior(inputs)
        feats = posterior.mean if rng is None else posterior.sample(rng)
        level = Level(feats, inputs.grid.offsets, inputs.grid.coords, inputs.grid.resolution)
        return Latents((level,), inputs.resolution, codec=self.kind, codec_hash=self.codec_hash)

    def decode(self, latents: Latents, *, prune: float | None = None) -> FlexField:
        """The field of a single shape, on the voxels that its surface passes.

        The transformer sees the whole; subdivision runs over chunks of latent voxels with a margin as wide as it looks, so the
        result does not depend on their size. (With group norms, `norm="group"`, the whole passes at once.)

        Args:
            latents: one level with coordinates.
            prune: drop fine voxels whose occupancy logit is below it (0 is even odds), where the surface is open and what the
                field says beyond its border should not be extracted; None keeps all.

        Raises:
            BadLatents: of another codec, another size, or several shapes.
            BadArgument: `prune`, but the occupancy heads were not trained.
        """
        self.check_latents(latents)
        level = latents.levels[0]
        if latents.batch_size != 1 or level.coords is None or level.feats.shape[1] != self.config.latent:
            raise BadLatents(
                f"expected one shape of {self.config.latent} channels with coordinates, got {latents.batch_size} shapes of "
                f"{level.feats.shape[1]} channels.",
                where="focusing",
            )
        side = latents.resolution // self.config.factor
        if level.resolution != side or latents.resolution % self.config.factor:
            raise BadLatents(
                f"latent voxels of {level.resolution}^3 for an output of {latents.resolution}^3; this codec's are "
                f"{self.config.factor} times coarser.",
                where="focusing",
            )
        if prune is not None and not self.config.weights.occupancy:
            raise BadArgument("the occupancy heads of this codec were not trained.", where="decode", hint="prune=None.")
        grid = SparseGrid(level.coords, level.offsets, side)
        # group norms pool over what passes together: only the whole gives what the whole gives
        chunk = max(len(grid), 1) if self.config.norm == "group" else self.config.chunk
        with torch.no_grad(), self._autocast():
            feats = self.decoder.attend(level.feats, grid)
            parts = [
                self._decode_chunk(feats, grid, first, min(first + chunk, len(grid)), prune)
                for first in range(0, len(grid), chunk)
            ]
        return join_fields(parts, latents.resolution)

    def _decode_chunk(self, feats: Tensor, grid: SparseGrid, first: int, last: int, prune: float | None) -> FlexField:
        """The cut voxels below latent voxels first : last, computed with the neighbours that they look at."""
        own = torch.zeros(len(grid), dtype=torch.bool, device=grid.device)
        own[first:last] = True
        needed = own
        if last - first < len(grid):
            for _ in range(REACH):
                needed = with_neighbours(grid, needed)
        rows = needed.nonzero()[:, 0]
        part = SparseGrid(grid.coords[rows], torch.tensor([0, len(rows)]), grid.resolution)
        raw, fine, _ = self.decoder.refine(feats[rows], part, prune=prune)
        field = predicted_field(raw, fine, self.config.truncation).field
        shift = len(self.config.up_channels)
        above = grid.lookup(fine.coords >> shift)
        return part_of(field, cut_voxels(field) & (above >= first) & (above < last))

    def oracle(self, inputs: PointVoxels) -> FlexField:
        """The exact field behind the same extraction: what a perfect network would give.

        Raises:
            BadArgument: inputs of a batch, which do not know their meshes.
        """
        if inputs.mesh is None:
            raise BadArgument("a batch has no oracle.", where="focusing", hint="prepare() one mesh.")
        return exact_field(inputs.mesh, inputs.resolution)

    def loss(self, batch: Views, step: int, rng: torch.Generator) -> Loss:
        """What views of meshes say of the decoded surface (eq. 3); see `supervise`."""
        return training_loss(self, batch, step, rng)

    def estimate_memory(self, mesh: Mesh | None, resolution: int) -> int:
        """See `Codec.estimate_memory`."""
        side = resolution // self.config.factor
        tokens = typical_tokens(side) if mesh is None else estimate_tokens(mesh, side)
        return estimate_memory(self.config, tokens, self.device.type)

    def _autocast(self) -> torch.autocast:
        """bf16 on CUDA, as in training; float32 on the CPU."""
        return torch.autocast(self.device.type, torch.bfloat16, enabled=self.device.type == "cuda")
