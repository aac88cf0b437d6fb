"""A method whose errors are known, and which fails as the shape's name asks; worker processes import it from here."""

import os
import signal
import time
from dataclasses import dataclass
from pathlib import Path

import torch

from shapecodec.errors import BadArgument, BadMesh
from shapecodec.evaluate.methods import Reconstruction
from shapecodec.mesh import Mesh


@dataclass(frozen=True)
class Shifted:
    """The original moved along x by so many voxels; its oracle is the original itself.

    Args:
        shift: voxels.
        resolution: voxels an axis.
        log: a file that gets a line for every shape begun.
        pause_s: of every shape.
    """

    shift: float = 0.5
    resolution: int = 64
    log: Path | None = None
    pause_s: float = 0.0

    def describe(self):
        if self.resolution < 1:
            raise BadArgument("resolution below one.", where="fake")
        return {"method": "fake", "codec": "shifted", "codec_hash": "", "bits": None, "surface": None,
                "resolution": self.resolution, "shift": self.shift}  # fmt: skip

    def open(self, device):
        if self.shift == 99:
            raise BadArgument("no such shift.", where="fake")
        if self.shift == 98:
            os.kill(os.getpid(), signal.SIGKILL)
        return self._reconstruct

    def _reconstruct(self, subject, mesh, frame, clock):
        if self.log is not None:
            with self.log.open("a") as file:
                file.write(f"{subject.name}\n")
        time.sleep(self.pause_s)
        name = subject.name
        if "killed" in name:
            os.kill(os.getpid(), signal.SIGKILL)
        if "slow" in name:
            time.sleep(60)
        if "broken" in name:
            raise RuntimeError("a kernel failed")
        if "open" in name:
            raise BadMesh("it has no inside.", where=str(subject.path))
        if "refused" in name:
            raise BadArgument("resolution 7 is not a multiple of 8.", where="fake")
        unit = mesh.transformed(frame)
        moved = Mesh(unit.vertices + torch.tensor([self.shift / self.resolution, 0.0, 0.0]), unit.faces)
        clock.lap("reconstruct")
        return Reconstruction(moved, unit, {"tokens": len(mesh.faces), "bytes": 100, "surface": "exact"})
