"""Draco meshes (.drc) through DracoPy, Google's decoder."""

from __future__ import annotations

from pathlib import Path

import DracoPy
import numpy as np

from shapecodec.errors import BadFile, BadMesh


def decode_draco(data: bytes) -> tuple[np.ndarray, np.ndarray]:
    """Vertices (V, 3) and faces (F, 3) of one Draco buffer."""
    if data[:5] != b"DRACO":
        raise BadFile("the data does not start with the Draco mark.", hint="check that it is a .drc file.")
    if len(data) < 11:
        raise BadFile("the Draco header is truncated.", hint="download or export the file again.")
    if data[7] == 0:  # the encoder type: 0 is a point cloud
        raise BadMesh("the file is a Draco point cloud, without faces.", hint="export triangles.")
    try:
        mesh = DracoPy.decode(data)
    except Exception as error:  # the binding raises several unrelated types
        raise BadFile(f"Draco cannot decode it ({error}).", hint="download or export the file again.") from error
    return np.asarray(mesh.points, np.float32).reshape(-1, 3), np.asarray(mesh.faces, np.int64).reshape(-1, 3)


def parse_drc(path: Path, max_faces: int) -> tuple[np.ndarray, np.ndarray]:
    """A .drc file; the face limit applies after decoding, for the header does not give a count in plain."""
    del max_faces
    return decode_draco(path.read_bytes())
