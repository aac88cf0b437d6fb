"""LoG3D: local convolutions inside blocks of the unsigned distance field, attention among blocks (supplement A)."""

from __future__ import annotations

import torch
from torch import Tensor, nn

from shapecodec.codecs.base import Codec, Loss
from shapecodec.codecs.log3d.config import Log3DConfig
from shapecodec.codecs.log3d.field import BlockField
from shapecodec.codecs.log3d.inputs import BLOCK, PAD, BlockInputs
from shapecodec.codecs.log3d.memory import estimate_memory, estimate_tokens, typical_tokens
from shapecodec.errors import BadArgument, BadLatents, BadMesh
from shapecodec.grid import SparseGrid
from shapecodec.latents import Latents, Level
from shapecodec.mesh import Mesh
from shapecodec.nn.bottleneck import Gaussian, KLBottleneck
from shapecodec.nn.local import LocalDecoder, LocalEncoder
from shapecodec.nn.transformer import SparseTransformer
from shapecodec.ops.block_halo import gather_halo, pad_average
from shapecodec.ops.udf_blocks import udf_blocks


class Log3D(Codec):
    """Mesh -> active blocks of the truncated UDF -> one vector of `latent` channels a block -> blocks -> mesh."""

    kind = "log3d"
    config: Log3DConfig

    def __init__(self, config: Log3DConfig | None = None) -> None:
        super().__init__()
        config = self.config = config or Log3DConfig()

        def transformer() -> SparseTransformer:
            return SparseTransformer(
                config.channels, config.heads, config.depth, config.window, config.convs_per_block,
                checkpoint=config.checkpoint,
            )  # fmt: skip

        self.local_encoder = LocalEncoder(config.width, chunk=config.chunk)
        self.global_encoder = transformer()
        self.norm_encoder = nn.LayerNorm(config.channels)
        self.bottleneck = KLBottleneck(config.channels, config.latent)
        self.lift = nn.Linear(config.latent, config.channels)
        self.global_decoder = transformer()
        self.local_decoder = LocalDecoder(config.width, chunk=config.chunk)

    def prepare(self, mesh: Mesh, rng: torch.Generator | None = None, *, resolution: int | None = None) -> BlockInputs:
        """Active blocks with their padding (A.1, A.2), exact, on the mesh's device; nothing is random."""
        resolution = self.config.resolution if resolution is None else resolution
        if resolution % BLOCK or resolution < 2 * BLOCK:
            raise BadArgument(
                f"resolution {resolution} is not a multiple of 8 of at least 16.",
                where="log3d",
                hint=f"--resolution {max(16, -(-resolution // 8) * 8)}.",
            )
        grid, core = udf_blocks(
            mesh.vertices, mesh.faces, resolution, truncation=self.config.truncation, activity=self.config.activity
        )
        if len(grid) == 0:
            raise BadMesh(
                "no part of the surface lies in the unit cube.", where=mesh.name, hint="Mesh.normalise() first."
            )
        return BlockInputs(grid, gather_halo(core, grid, PAD), resolution)

    def posterior(self, inputs: BlockInputs) -> Gaussian:
        """q(z | field): a diagonal Gaussian per block."""
        tokens = self.global_encoder(self.local_encoder(inputs.values), inputs.grid)
        return self.bottleneck(self.norm_encoder(tokens.float()))

    def predict(self, feats: Tensor, grid: SparseGrid) -> Tensor:
        """Latent vectors (L, latent) -> padded blocks (L, 12, 12, 12) of the normalised field, float32."""
        return self.local_decoder(self.global_decoder(self.lift(feats), grid))

    def encode(self, inputs: BlockInputs, rng: torch.Generator | None = None) -> Latents:
        """One level with coordinates: a vector for each block."""
        with self._autocast():
            posterior = self.posterior(inputs)
        feats = posterior.mean if rng is None else posterior.sample(rng)
        level = Level(feats, inputs.grid.offsets, inputs.grid.coords, inputs.grid.resolution)
        return Latents((level,), inputs.resolution, codec=self.kind, codec_hash=self.codec_hash)

    def decode(self, latents: Latents) -> BlockField:
        """The field of a single shape; overlapping padding is averaged (A.5)."""
        self.check_latents(latents)
        level = latents.levels[0]
        if latents.batch_size != 1 or level.coords is None or level.feats.shape[1] != self.config.latent:
            raise BadLatents(
                f"expected one shape of {self.config.latent} channels with coordinates, got {latents.batch_size} shapes of "
                f"{level.feats.shape[1]} channels.",
                where="log3d",
            )
        grid = SparseGrid(level.coords, level.offsets, latents.resolution // BLOCK)
        with self._autocast():
            blocks = self.predict(level.feats, grid)
        return BlockField(pad_average(blocks, grid, PAD).clamp_(0, 1), grid, latents.resolution, self.config.truncation)

    def oracle(self, inputs: BlockInputs) -> BlockField:
        """The exact field behind the same extraction: what a perfect network would give."""
        return BlockField(inputs.core().contiguous(), inputs.grid, inputs.resolution, self.config.truncation)

    def loss(self, batch: BlockInputs, step: int, rng: torch.Generator) -> Loss:
        """Huber loss on the normalised field plus weighted KL (A.6); the near-surface error is logged in voxels."""
        config = self.config
        posterior = self.posterior(batch)
        error = self.predict(posterior.sample(rng), batch.grid) - batch.values
        near = batch.values < 1
        huber = nn.functional.huber_loss(error, torch.zeros_like(error), delta=config.huber_delta, reduction="none")
        if config.near_weight != 1:
            weight = 1 + (config.near_weight - 1) * near
            huber = huber * weight / weight.mean()
        field, kl = huber.mean(), posterior.kl()
        distance = error.detach().abs()
        terms = {
            "huber": field.detach(),
            "kl": kl.detach(),
            "near_vox": (distance * near).sum() / near.sum() * config.truncation,
            "far_vox": (distance * ~near).sum() / (~near).sum() * config.truncation,
        }
        return Loss(field + config.kl_weight * kl, terms)

    def estimate_memory(self, mesh: Mesh | None, resolution: int) -> int:
        """See `Codec.estimate_memory`."""
        tokens = typical_tokens(resolution) if mesh is None else estimate_tokens(mesh, resolution)
        return estimate_memory(self.config, tokens, self.device.type)

    def _autocast(self) -> torch.autocast:
        """bf16 where the hardware is made for it; float32 on the CPU (a trial: bf16 costs 0.0005 voxel)."""
        return torch.autocast(self.device.type, torch.bfloat16, enabled=self.device.type == "cuda")
