"""A training run in its own process, for tests that kill it or start several."""

import os
import time
from pathlib import Path

import torch
from vector_codec import VectorConfig, VectorSource, make_codec

from shapecodec.train.config import RunConfig
from shapecodec.train.loop import train


class TroubledSource(VectorSource):
    """Takes its time, and gives a NaN in the last shard of one step."""

    pause_s = 0.0
    nan_step = -1

    def batch(self, step, rank, world, device):
        time.sleep(self.pause_s)
        batch = super().batch(step, rank, world, device)
        if step == self.nan_step and rank == world - 1:
            batch.vectors[-1, -1] = float("nan")
        return batch


def run_vectors(folder, settings, environment):
    """Go on where the folder holds a run, else begin.

    Args:
        folder: the run's; the outcome is left beside it, in `outcome.RANK`.
        settings: RunConfig's, and `_noise`, `_pause_s` (seconds a batch), `_nan_step`.
        environment: what a launcher of several processes sets.
    """
    os.environ.update(environment)  # noqa: TID251 (stands in for the launcher)
    torch.set_num_threads(1)
    folder, settings = Path(folder), dict(settings)
    TroubledSource.pause_s, TroubledSource.nan_step = settings.pop("_pause_s", 0.0), settings.pop("_nan_step", -1)
    codec = make_codec(VectorConfig(noise=settings.pop("_noise", 0.0)))
    source = TroubledSource()
    outcome = train(
        codec, source, RunConfig.from_json(settings), folder, resume=(folder / "config.json").exists(), device="cpu"
    )
    weights = torch.cat([p.detach().flatten() for p in codec.parameters()]).tolist()
    report = {"finished": outcome.finished, "step": outcome.step, "weights": weights}
    folder.with_name(f"outcome.{environment.get('RANK', 0)}").write_text(repr(report))
    if torch.distributed.is_initialized():
        torch.distributed.destroy_process_group()
