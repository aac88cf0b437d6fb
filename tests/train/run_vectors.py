"""A training run in its own process, for tests that kill it or start several."""

import os
import time
from pathlib import Path

import torch
from vector_codec import VectorConfig, VectorSource, make_codec

from shapecodec.train.config import RunConfig
from shapecodec.train.loop import train


class SlowSource(VectorSource):
    pause_s = 0.0

    def batch(self, step, rank, world, device):
        time.sleep(self.pause_s)
        return super().batch(step, rank, world, device)


def run_vectors(folder, settings, environment):
    """Go on where the folder holds a run, else begin.

    Args:
        folder: the run's; the outcome is left beside it, in `outcome.RANK`.
        settings: RunConfig's, and `_noise`, `_size` (of the global batch), `_pause_s` (seconds a batch).
        environment: what a launcher of several processes sets.
    """
    os.environ.update(environment)  # noqa: TID251 (stands in for the launcher)
    torch.set_num_threads(1)
    folder, settings = Path(folder), dict(settings)
    SlowSource.pause_s = settings.pop("_pause_s", 0.0)
    codec = make_codec(VectorConfig(noise=settings.pop("_noise", 0.0)))
    source = SlowSource(size=settings.pop("_size", 8))
    outcome = train(
        codec, source, RunConfig.from_json(settings), folder, resume=(folder / "config.json").exists(), device="cpu"
    )
    weights = torch.cat([p.detach().flatten() for p in codec.parameters()]).tolist()
    report = {"finished": outcome.finished, "step": outcome.step, "weights": weights}
    folder.with_name(f"outcome.{environment.get('RANK', 0)}").write_text(repr(report))
    if torch.distributed.is_initialized():
        torch.distributed.destroy_process_group()
