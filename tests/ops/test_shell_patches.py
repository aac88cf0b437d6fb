"""Patches of a shell: a case by hand, and the compiled path against the reference."""

import pytest
import torch

from shapecodec.errors import BadArgument
from shapecodec.grid import SparseGrid
from shapecodec.ops.layer_pairs import opposite_vertices, vertex_cells
from shapecodec.ops.marching_cubes import marching_cubes
from shapecodec.ops.shell_patches import shell_patches
from shapecodec.ops.vertex_normals import vertex_normals


def shell(size: int = 32, noise: float = 0.0) -> tuple[torch.Tensor, torch.Tensor, torch.Tensor]:
    """Both layers of a square sheet, with noise on its directions."""
    axis = torch.arange(size) + 0.5 - size / 2
    x, y, z = torch.meshgrid(axis, axis, axis, indexing="ij")
    beyond = torch.stack([x.abs() - 9, y.abs() - 7], -1).clamp(min=0).norm(dim=-1)
    distance = (beyond**2 + (z - 0.3) ** 2).sqrt().clamp(max=4) / 4
    blocks = size // 8
    values = distance.view(blocks, 8, blocks, 8, blocks, 8).permute(0, 2, 4, 1, 3, 5).reshape(-1, 8, 8, 8)
    grid, order = SparseGrid.build(torch.cartesian_prod(*[torch.arange(blocks)] * 3), blocks)
    vertices, faces = marching_cubes(values[order].contiguous(), grid, 0.25)
    directions = vertex_normals(vertices, faces)
    rough = noise * torch.randn(directions.shape, generator=torch.Generator().manual_seed(0))
    directions = torch.nn.functional.normalize(directions + rough, dim=1)
    opposite = opposite_vertices(vertex_cells((vertices + 0.5) * size - directions, backend="cpu"), directions)
    return directions, faces, opposite


def test_the_two_sides_of_a_sheet_are_two_patches_that_meet_at_the_rim():
    directions, faces, opposite = shell()
    patch = shell_patches(directions, faces, opposite, backend="reference")
    top, bottom = patch[directions[:, 2] > 0.99].unique(), patch[directions[:, 2] < -0.99].unique()
    assert len(top) == len(bottom) == 1
    assert top != bottom
    assert len(patch.unique()) == 2


@pytest.mark.parametrize("noise", [0.0, 0.1, 0.4])
def test_cpu_against_reference(noise):
    parts = shell(noise=noise)
    got = shell_patches(*parts, backend="cpu")
    assert torch.equal(got, shell_patches(*parts, backend="reference"))
    assert torch.equal(got, shell_patches(parts[0], parts[1].int(), parts[2], backend="cpu"))


def test_nothing_and_nothing_paired():
    directions, faces, opposite = shell(16)
    for backend in ("reference", "cpu"):
        alone = shell_patches(directions, faces, torch.full_like(opposite, -1), backend=backend)
        assert len(alone.unique()) < 5
        empty = shell_patches(directions[:0], faces[:0], opposite[:0], backend=backend)
        assert len(empty) == 0


def test_shapes_that_do_not_fit():
    with pytest.raises(BadArgument):
        shell_patches(torch.zeros(4, 3), torch.zeros(1, 3, dtype=torch.long), torch.zeros(3, dtype=torch.long))
