"""LaGeM: vector sets on several levels, decoded to an occupancy that can be asked anywhere; with one level it is VecSet."""

from __future__ import annotations

from collections.abc import Sequence

import torch
from torch import Tensor, nn
from torch.nn.functional import binary_cross_entropy_with_logits, smooth_l1_loss

from shapecodec.codecs.base import Codec, Loss
from shapecodec.codecs.lagem.config import LagemConfig
from shapecodec.codecs.lagem.field import QueryField
from shapecodec.codecs.lagem.inputs import RADIUS, SIDE, OccupancyBatch, PointInputs
from shapecodec.codecs.lagem.network import (
    Bottlenecks,
    Decoder,
    Encoder,
    KLLevel,
    LevelQuery,
    PointEmbedding,
    QueryHead,
)
from shapecodec.codecs.lagem.oracle import LEAST_INSIDE, inside_share, signed_distance
from shapecodec.errors import BadArgument, BadLatents
from shapecodec.latents import Latents, Level
from shapecodec.mesh import Mesh, Similarity
from shapecodec.nn.attention import CrossBlock, SelfBlock
from shapecodec.ops.farthest_points import farthest_points
from shapecodec.ops.winding_number import outward
from shapecodec.rng import rng as counted_rng

# Bytes a voxel that the surface crosses: its neighbourhood on the finest grids, two faces and a vertex; measuring two faces.
_VOXEL, _MEASURE = 500, 600
_QUERY_VECTORS = 8  # vectors of a query alive at once


class Lagem(Codec):
    """Surface points -> vector sets, coarse to fine -> a function of space -> mesh.

    `tokens` may be set to other numbers of vectors than the network was trained with, without other weights: more of them describe
    a shape in more detail (docs/results/lagem.md has the measurement).
    """

    kind = "lagem"
    config: LagemConfig

    def __init__(self, config: LagemConfig | None = None) -> None:
        super().__init__()
        config = self.config = config or LagemConfig()
        self.tokens = config.tokens
        self.embedding = PointEmbedding(config.channels, config.normals)
        self.encoder = Encoder(config)
        self.bottlenecks = Bottlenecks(config)
        self.decoder = Decoder(config)
        self.head = QueryHead(config)

    def normalise(self, mesh: Mesh) -> tuple[Mesh, Similarity]:
        """The box's centre to the origin, the largest vertex norm to `RADIUS` (appendix B, scaled into the unit cube)."""
        centred, frame = mesh.normalise()
        used = centred.vertices[centred.faces.unique()]
        scale = RADIUS / float(used.double().norm(dim=1).max())
        frame = Similarity(frame.centre, frame.scale * scale)
        return mesh.transformed(frame), frame

    def prepare(self, mesh: Mesh, rng: torch.Generator | None = None, *, resolution: int | None = None) -> PointInputs:
        """Points uniform by area and their farthest-first order. Without `rng` the sample is the same each time."""
        resolution = self.config.resolution if resolution is None else resolution
        if resolution % 8 or resolution < 16:
            raise BadArgument(
                f"resolution {resolution} is not a multiple of 8 of at least 16.",
                where="lagem",
                hint=f"--resolution {max(16, -(-resolution // 8) * 8)}.",
            )
        device = mesh.vertices.device
        generator = counted_rng(0, purpose="surface points", device=device) if rng is None else rng
        count = max(self.config.points, self.tokens[-1])
        points, rows = mesh.sample(count, generator)
        normals = None
        if self.config.normals:
            facing = mesh.face_normals()[rows]
            normals = outward(points, facing, mesh.vertices, mesh.faces, step=SIDE * RADIUS)[None]
        points = (points / RADIUS)[None]
        return PointInputs(points, farthest_points(points, self.tokens[-1]), resolution, normals, mesh)

    def remarks(self, inputs: PointInputs) -> tuple[str, ...]:
        """LaGeM encodes solids: says of a mesh that is not closed what was taken as its inside."""
        if inputs.mesh is None or inputs.mesh.is_watertight():
            return ()
        share = inside_share(inputs.mesh)
        rule = "points whose winding number exceeds 1/2 in magnitude"
        if share < LEAST_INSIDE:
            return (f"the mesh has no inside ({rule}: none were found). LaGeM encodes solids; log3d encodes sheets.",)
        return (
            f"the mesh is not closed. LaGeM encodes solids: its inside is taken as the {rule}, {share:.1%} of its box.",
        )

    def scale_tokens(self, factor: float) -> None:
        """See `Codec.scale_tokens`; between 1/4 and 8, beyond which the attention has seen nothing like it."""
        if not 0.25 <= factor <= 8:
            raise BadArgument(f"{factor:g} times as many vectors is outside [0.25, 8].", where="--tokens")
        self.tokens = tuple(max(1, round(count * factor)) for count in self.config.tokens)

    def features(self, inputs: PointInputs) -> list[Tensor]:
        """(B, m, C) of each level, coarse to fine, before the bottlenecks."""
        return self.encoder(self.embedding(inputs.points, inputs.normals), inputs.order, self.tokens)

    def encode(self, inputs: PointInputs, rng: torch.Generator | None = None) -> Latents:
        """A level without coordinates for each set of vectors, coarse to fine."""
        with self._autocast():
            features = self.features(inputs)
        levels = []
        for feats, bottleneck in zip(features, self.bottlenecks, strict=True):
            if isinstance(bottleneck, KLLevel) and rng is not None:
                latents = bottleneck.gaussian(feats).sample(rng)
            else:
                latents = bottleneck.encode(feats)
            offsets = torch.arange(len(latents) + 1) * latents.shape[1]
            levels.append(Level(latents.flatten(0, 1), offsets))
        return Latents(tuple(levels), inputs.resolution, codec=self.kind, codec_hash=self.codec_hash)

    def decode(self, latents: Latents) -> QueryField:
        """The field of a single shape: `values` answers points of the unit cube, larger inside."""
        self.check_latents(latents)
        widths = tuple(level.feats.shape[1] for level in latents.levels)
        if latents.batch_size != 1 or widths != self.config.latent or any(len(x.feats) == 0 for x in latents.levels):
            raise BadLatents(
                f"expected one shape with levels of {self.config.latent} channels, got {latents.batch_size} with {widths}.",
                where="lagem",
            )
        with self._autocast():
            memory = self.head.memory(self.decode_levels([level.feats[None] for level in latents.levels]))

        @torch.inference_mode()
        def values(points: Tensor) -> Tensor:
            with self._autocast():
                answers = self.head(self.embedding(points[None] / RADIUS), memory)[0]
            return -answers if self.config.head == "sdf" else answers

        return QueryField(
            values, latents.resolution, level=self.config.level, chunk=self.config.query_chunk, device=self.device
        )

    def decode_levels(self, latents: Sequence[Tensor]) -> list[Tensor]:
        """Latents (B, m, Z) of each level, coarse to fine -> features (B, m, C) that queries read."""
        parts = zip(self.bottlenecks, latents, strict=True)
        return self.decoder([bottleneck.decode(level) for bottleneck, level in parts])

    def oracle(self, inputs: PointInputs) -> QueryField:
        """The exact signed distance behind the same extraction: what a perfect network would give."""
        if inputs.mesh is None:
            raise BadArgument("the inputs carry no mesh.", where="oracle", hint="make them with `prepare`.")
        mesh = inputs.mesh
        return QueryField(lambda points: -signed_distance(points, mesh), inputs.resolution, device=mesh.vertices.device)

    def loss(self, batch: OccupancyBatch, step: int, rng: torch.Generator) -> Loss:
        """Binary cross entropy of volume and near queries, weighed apart (eq. 15), and VecSet's KL where it has one."""
        config, shapes = self.config, len(batch.queries)
        noise: list[Tensor | None] = [None] * len(self.tokens)
        if config.bottleneck == "kl":
            sizes = zip(self.tokens, config.latent, strict=True)
            noise = [torch.randn(shapes, *size, generator=rng, device=batch.queries.device) for size in sizes]
        answers, kl = self.answers(batch.inputs, batch.queries, noise)
        each, guess = self._errors(answers[-1], batch)
        volume, near = each[:, : batch.volume].mean(), each[:, batch.volume :].mean()
        right = (guess == batch.inside).float()
        terms = {
            "volume": volume.detach(),
            "near": near.detach(),
            "volume_accuracy": right[:, : batch.volume].mean(),
            "near_accuracy": right[:, batch.volume :].mean(),
        }
        total = volume + config.near_weight * near
        if config.level_weight:
            for number, partial in enumerate(answers[:-1]):
                coarse = self._errors(partial, batch)[0]
                parts = coarse[:, : batch.volume].mean(), coarse[:, batch.volume :].mean()
                total = total + config.level_weight * (parts[0] + config.near_weight * parts[1])
                terms[f"volume_from_{number + 1}"] = parts[0].detach()
        if config.bottleneck == "kl":
            total, terms["kl"] = total + config.kl_weight * kl, kl.detach()
        return Loss(total, terms)

    def _errors(self, answers: Tensor, batch: OccupancyBatch) -> tuple[Tensor, Tensor]:
        """Loss of each answer, (B, Q), and whether it says inside."""
        config = self.config
        if config.head == "occupancy":
            each = binary_cross_entropy_with_logits(answers, batch.inside.to(answers.dtype), reduction="none")
            return each, answers > config.level
        if batch.distance is None:
            raise BadArgument("a signed distance needs distances in the batch.", where="lagem", hint="distances=True")
        signed = torch.where(batch.inside, -batch.distance, batch.distance)
        target = (signed / config.truncation).clamp(-1, 1)
        return smooth_l1_loss(answers, target, reduction="none", beta=0.1), answers < 0

    def answer(self, inputs: PointInputs, queries: Tensor, noise: Sequence[Tensor | None]) -> tuple[Tensor, Tensor]:
        """The whole network on a batch: answers (B, Q) float32 and the mean KL, 0 where the latents are standardised.

        Args:
            inputs: B shapes.
            queries: (B, Q, 3) in the frame of the inputs.
            noise: for each level (B, m, Z) unit noise of the KL bottleneck, or None.
        """
        answers, kl = self.answers(inputs, queries, noise)
        return answers[-1], kl

    def answers(
        self, inputs: PointInputs, queries: Tensor, noise: Sequence[Tensor | None]
    ) -> tuple[list[Tensor], Tensor]:
        """`answer` from the coarsest level up to each level; all levels are decoded for the last one alone."""
        levels, kl = [], queries.new_zeros(())
        for feats, bottleneck, unit in zip(self.features(inputs), self.bottlenecks, noise, strict=True):
            if isinstance(bottleneck, KLLevel):
                gaussian = bottleneck.gaussian(feats)
                kl = kl + gaussian.kl() / len(self.tokens)
                levels.append(gaussian.mean if unit is None else gaussian.mean + (0.5 * gaussian.logvar).exp() * unit)
            else:
                levels.append(bottleneck.encode(feats))
        return self.head.answers(self.embedding(queries), self.decode_levels(levels)), kl

    def compiled_parts(self) -> list[nn.Module]:
        """See `Trainable.compiled_parts`: blocks of a level and kind share a compilation."""
        kinds = SelfBlock, CrossBlock, LevelQuery, PointEmbedding
        return [module for module in self.modules() if isinstance(module, kinds)]

    def estimate_memory(self, mesh: Mesh | None, resolution: int) -> int:
        """See `Codec.estimate_memory`; the surface crosses about 2 area resolution^2 voxels, and a typical area is 1.2."""
        area = 1.2 if mesh is None else min(float(mesh.face_areas().double().sum()), 10.0)
        surface = 2 * area * resolution**2 * (_VOXEL + (_MEASURE if self.device.type == "cpu" else 0))
        return int(surface) + self.config.query_chunk * self.config.channels * _QUERY_VECTORS * 4

    def _autocast(self) -> torch.autocast:
        """bf16 where the hardware is made for it."""
        return torch.autocast(self.device.type, torch.bfloat16, enabled=self.device.type == "cuda")
