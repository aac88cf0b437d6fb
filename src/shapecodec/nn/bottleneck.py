"""Bottlenecks: a diagonal Gaussian per token with a KL loss, or vectors of mean 0 and variance 1 without any loss."""

from __future__ import annotations

from dataclasses import dataclass

import torch
from torch import Tensor, nn
from torch.nn.functional import layer_norm

from shapecodec.errors import BadArgument


@dataclass(frozen=True)
class Gaussian:
    """N(mean, exp(logvar)) for each element; mean and logvar are (N, Z) float32."""

    mean: Tensor
    logvar: Tensor

    def sample(self, rng: torch.Generator) -> Tensor:
        """(N, Z): mean + sigma * noise; the generator must live on the same device."""
        noise = torch.randn(self.mean.shape, generator=rng, device=self.mean.device, dtype=self.mean.dtype)
        return self.mean + (0.5 * self.logvar).exp() * noise

    def kl(self) -> Tensor:
        """0-dim mean over elements of KL(N(mean, sigma^2) || N(0, 1)) in nats; 0 when there are no tokens."""
        each = 0.5 * (self.mean.square() + self.logvar.exp() - 1 - self.logvar)
        return each.sum() / max(each.numel(), 1)


class KLBottleneck(nn.Module):
    """Tokens to a Gaussian of few channels.

    Args:
        channels: C of the tokens.
        latent: Z channels a token.
        logvar_start: bias of the log-variance before training. At -6 (sigma 0.05) a block autoencoder learns at once;
            at 0 its error stood still for hundreds of steps, as unit noise hides the mean (a trial on 512^3 blocks).
        logvar_range: log-variances are clamped to it: exp stays finite and gradients do not explode.
    """

    def __init__(
        self,
        channels: int,
        latent: int,
        *,
        logvar_start: float = -6.0,
        logvar_range: tuple[float, float] = (-30.0, 20.0),
    ) -> None:
        super().__init__()
        self.project = nn.Linear(channels, 2 * latent)
        self.logvar_range = logvar_range
        nn.init.constant_(self.project.bias[latent:], logvar_start)

    def forward(self, feats: Tensor) -> Gaussian:
        """(N, C) tokens -> Gaussian over (N, Z), in float32."""
        with torch.autocast(feats.device.type, enabled=False):
            mean, logvar = self.project(feats.float()).chunk(2, -1)
        return Gaussian(mean, logvar.clamp(*self.logvar_range))


class StandardiseBottleneck(nn.Module):
    """Tokens to few channels of mean 0 and variance 1 within each token, and back (LaGeM eqs. 6 and 7, appendix C).

    Every latent vector lies on a sphere: its sum is 0 and its square norm is Z. So their variance is exactly 1, which is what a
    diffusion model's sigma_data states, and whatever a generator makes can be put back onto the sphere by `standardise`.

    Args:
        channels: C of the tokens.
        latent: Z channels a token, at least 3: with 2 the sphere has two points only.
    """

    EPS = 1e-6  # of the variance (appendix C)

    def __init__(self, channels: int, latent: int) -> None:
        super().__init__()
        if latent < 3:
            raise BadArgument(f"{latent} latent channels hold nothing once they are standardised.", where="bottleneck")
        self.down = nn.Linear(channels, latent)
        self.scale = nn.Parameter(torch.ones(latent))
        self.shift = nn.Parameter(torch.zeros(latent))
        self.up = nn.Linear(latent, channels)

    def standardise(self, latents: Tensor) -> Tensor:
        """(..., Z) -> (..., Z) float32 with mean 0 and variance 1 over the channels of each vector."""
        return layer_norm(latents.float(), latents.shape[-1:], eps=self.EPS)

    def encode(self, feats: Tensor) -> Tensor:
        """(..., C) -> (..., Z) float32 latents (eq. 6)."""
        with torch.autocast(feats.device.type, enabled=False):
            return self.standardise(self.down(feats.float()))

    def decode(self, latents: Tensor) -> Tensor:
        """(..., Z) latents -> (..., C) (eq. 7)."""
        return self.up(latents * self.scale + self.shift)
