"""Damaged bytes give an error of ours or a valid mesh, in every format.

A library reader let 675 of 1,000 such GLB files through with indices past the last vertex.
"""

import numpy as np
import pytest
from shapes import gltf, parse, wavy_grid

from shapecodec.errors import UserError
from shapecodec.io.mesh_files import write_mesh

FORESEEN = (UserError, MemoryError)


@pytest.mark.parametrize("suffix", ["obj", "ply", "stl", "off", "glb", "gltf", "ascii.ply", "ascii.stl"])
def test_flipped_cut_and_doubled_bytes(tmp_path, suffix):
    path = tmp_path / f"a.{suffix}"
    mesh = wavy_grid(8)
    if suffix == "gltf":
        gltf(path, points=mesh.vertices.numpy(), index=mesh.faces.numpy().astype(np.uint32))
    elif suffix in ("off", "ascii.ply", "ascii.stl"):
        import trimesh

        kinds = {"off": {}, "ascii.ply": {"encoding": "ascii"}, "ascii.stl": {"file_type": "stl_ascii"}}
        trimesh.Trimesh(*mesh.numpy(), process=False).export(path, **kinds[suffix])
    else:
        write_mesh(mesh, path)
    good, random = path.read_bytes(), np.random.default_rng(sum(suffix.encode()))
    outcomes = {"mesh": 0, "error": 0}
    for trial in range(60):
        data = bytearray(good)
        header = trial % 2 == 0  # half of the changes where the structure is
        for _ in range(random.integers(1, 4)):
            place = int(random.integers(0, min(len(data), 600) if header else len(data)))
            data[place] = int(random.integers(0, 256))
        if trial % 5 == 0:
            cut = int(random.integers(0, len(data)))
            data = data[:cut] if trial % 10 else data + data[cut:]
        path.write_bytes(bytes(data))
        try:
            vertices, faces = parse(path, max_faces=100_000)
        except FORESEEN:
            outcomes["error"] += 1
            continue
        outcomes["mesh"] += 1
        assert vertices.dtype == np.float32
        assert np.isfinite(vertices).all()
        assert faces.min() >= 0
        assert faces.max() < len(vertices)
    assert min(outcomes.values()) > 0
