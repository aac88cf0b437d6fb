"""From an exact or noisy unsigned field to a mesh: what used to come back double, inverted, torn or not at all."""

import numpy as np
import pytest
import torch

from shapecodec.codecs.log3d.field import BlockField
from shapecodec.codecs.log3d.regions import two_colours
from shapecodec.codecs.log3d.surface import extract_surface
from shapecodec.errors import BadArgument, BadMesh
from shapecodec.grid import SparseGrid
from shapecodec.mesh import Mesh
from shapecodec.ops.boundary_loops import boundary_loops
from shapecodec.ops.closest_point import closest_point
from shapecodec.ops.udf_blocks import udf_blocks

N = 64
TILT = torch.linalg.qr(torch.randn(3, 3, generator=torch.Generator().manual_seed(5)))[0]


def sphere(radius: float = 0.4, detail: int = 40) -> tuple[torch.Tensor, torch.Tensor]:
    """A closed latitude-longitude sphere, outward."""
    theta = torch.linspace(0, torch.pi, detail + 1)[1:-1, None]
    phi = (torch.arange(2 * detail) / detail * torch.pi)[None]
    ring = torch.stack([theta.sin() * phi.cos(), theta.sin() * phi.sin(), theta.cos().expand(-1, 2 * detail)], -1)
    points = torch.cat([torch.tensor([[0.0, 0, 1]]), ring.reshape(-1, 3), torch.tensor([[0.0, 0, -1]])]) * radius
    index = 1 + torch.arange((detail - 1) * 2 * detail).view(detail - 1, -1)
    a, b = index[:-1], index[1:]
    c, d = a.roll(-1, 1), b.roll(-1, 1)
    sides = torch.cat([torch.stack([a, b, d], -1).view(-1, 3), torch.stack([a, d, c], -1).view(-1, 3)])
    top = torch.stack([torch.zeros_like(index[0]), index[0], index[0].roll(-1)], 1)
    bottom = torch.stack([torch.full_like(index[0], len(points) - 1), index[-1].roll(-1), index[-1]], 1)
    return points, torch.cat([sides, top, bottom])


def sheet(height: float = 0.0, size: float = 0.35, detail: int = 30) -> tuple[torch.Tensor, torch.Tensor]:
    """A square sheet with waves of the given height."""
    axis = torch.linspace(-1, 1, detail)
    x, y = torch.meshgrid(axis, axis, indexing="ij")
    points = torch.stack([x, y, height / size * (4 * x).sin() * (3 * y).cos()], -1).view(-1, 3) * size
    index = torch.arange(detail**2).view(detail, detail)
    a, b, c, d = index[:-1, :-1], index[1:, :-1], index[1:, 1:], index[:-1, 1:]
    faces = torch.cat([torch.stack([a, b, c], -1).view(-1, 3), torch.stack([a, c, d], -1).view(-1, 3)])
    return points, faces


def box(low: tuple[float, ...], high: tuple[float, ...]) -> tuple[torch.Tensor, torch.Tensor]:
    """A closed box, outward."""
    corners = torch.cartesian_prod(*[torch.tensor([a, b]) for a, b in zip(low, high, strict=True)])
    quads = [[0, 1, 3, 2], [4, 6, 7, 5], [0, 4, 5, 1], [2, 3, 7, 6], [0, 2, 6, 4], [1, 5, 7, 3]]
    faces = torch.tensor([[q[0], q[i], q[i + 1]] for q in quads for i in (1, 2)])
    return corners, faces


def mesh(*parts: tuple[torch.Tensor, torch.Tensor], tilt: bool = True) -> Mesh:
    offsets = np.cumsum([0] + [len(points) for points, _ in parts])
    points = torch.cat([points for points, _ in parts])
    faces = torch.cat([faces + int(offset) for (_, faces), offset in zip(parts, offsets, strict=False)])
    return Mesh(points @ TILT.T if tilt else points, faces, "test")


def field_of(shape: Mesh, resolution: int = N, noise: float = 0.0) -> BlockField:
    """The exact field; or with smooth noise, its standard deviation in voxels."""
    grid, values = udf_blocks(shape.vertices, shape.faces, resolution)
    if noise:
        draw = torch.Generator().manual_seed(1)
        rough = torch.randn(1, 1, resolution, resolution, resolution, generator=draw)
        for _ in range(3):
            rough = torch.nn.functional.avg_pool3d(rough, 3, 1, 1)
        blocks = rough[0, 0].view(resolution // 8, 8, resolution // 8, 8, resolution // 8, 8).permute(0, 2, 4, 1, 3, 5)
        bump = blocks[tuple(grid.coords.long().unbind(1))] * (noise / rough.std() / 4)
        values = torch.where(values < 1, (values + bump).clamp(0, 1), values)
    return BlockField(values, grid, resolution)


def volume(shape: Mesh) -> float:
    a, b, c = shape.vertices.double()[shape.faces].unbind(1)
    return float((a * torch.linalg.cross(b, c)).sum() / 6)


def area_ratio(result: Mesh, shape: Mesh) -> float:
    return float(result.face_areas().sum() / shape.face_areas().sum())


def rims(shape: Mesh) -> int:
    """Loops of edges that one face only uses."""
    faces, count = shape.faces, len(shape.vertices)
    edges = torch.cat([faces[:, [0, 1]], faces[:, [1, 2]], faces[:, [2, 0]]])
    key, mirrored = edges[:, 0] * count + edges[:, 1], edges[:, 1] * count + edges[:, 0]
    return int(boundary_loops(edges[~torch.isin(mirrored, key)]).max()) + 1


def farthest(points: torch.Tensor, shape: Mesh, resolution: int = N) -> float:
    """Largest distance in voxels."""
    return float(closest_point(points, shape.vertices, shape.faces).distance.max()) * resolution


def samples(shape: Mesh) -> torch.Tensor:
    return shape.sample(3000, torch.Generator().manual_seed(0))[0]


SOLIDS = {
    "sphere": lambda: mesh(sphere()),
    "box": lambda: mesh(box((-0.3, -0.2, -0.25), (0.3, 0.2, 0.25))),
    "plate of 1.5 voxels": lambda: mesh(box((-0.3, -0.3, -0.75 / N), (0.3, 0.3, 0.75 / N)), tilt=False),
    "hollow": lambda: mesh(sphere(0.42), (lambda s: (s[0], s[1].flip(1)))(sphere(0.25))),
    "ball in a hollow": lambda: mesh(sphere(0.45), (lambda s: (s[0], s[1].flip(1)))(sphere(0.33)), sphere(0.2)),
    "apart": lambda: mesh(box((-0.4, -0.2, -0.2), (-0.1, 0.2, 0.2)), box((0.1, -0.2, -0.2), (0.4, 0.2, 0.2))),
}
SHEETS = {
    "square": lambda: mesh(sheet()),
    "waves": lambda: mesh(sheet(0.08)),
    "hemisphere": lambda: (lambda s: mesh((s[0], s[1][(s[0][s[1]][..., 2] > -1e-6).all(1)])))(sphere(0.4)),
    "one triangle": lambda: mesh(
        (torch.tensor([[-0.3, -0.3, 0.1], [0.4, 0, 0], [0, 0.4, -0.2]]), torch.tensor([[0, 1, 2]]))
    ),
}


@pytest.mark.parametrize("name", SOLIDS)
@pytest.mark.parametrize("noise", [0.0, 0.1])
def test_a_solid_comes_back_watertight_once_and_outward(name, noise):
    shape = SOLIDS[name]()
    result, report = field_of(shape, noise=noise).to_surface()
    assert report.mode == "single" or (name.startswith("plate") and report.mode == "snapped")
    assert result.is_watertight()
    assert volume(result) == pytest.approx(volume(shape), rel=0.012 if "plate" not in name else 0.12)
    assert area_ratio(result, shape) == pytest.approx(1, abs=0.1 if name.startswith("plate") else 0.03 + noise)
    assert farthest(samples(shape), result) < 1


@pytest.mark.parametrize("name", SHEETS)
@pytest.mark.parametrize("noise", [0.0, 0.1])
def test_an_open_sheet_comes_back_once_with_one_rim(name, noise):
    shape = SHEETS[name]()
    result, report = field_of(shape, noise=noise).to_surface()
    assert report.mode == "single"
    assert rims(result) == 1
    assert area_ratio(result, shape) == pytest.approx(1, abs=0.06)
    assert farthest(samples(shape), result) < 1.1
    assert farthest(result.vertices, shape) < 0.6 + 3 * noise


def test_parts_that_touch_lose_nothing():
    shape = mesh(box((-0.4, -0.2, -0.2), (0.0, 0.2, 0.2)), box((0.0, -0.3, -0.3), (0.3, 0.3, 0.3)))
    result, _ = field_of(shape).to_surface()
    assert farthest(samples(shape), result) < 1.5
    assert area_ratio(result, shape) < 1.1


def test_parts_that_pass_through_each_other_come_back_once():
    shape = mesh(box((-0.4, -0.12, -0.12), (0.4, 0.12, 0.12)), box((-0.12, -0.4, -0.15), (0.15, 0.4, 0.15)))
    result, report = field_of(shape).to_surface()
    assert report.mode == "single"
    assert result.is_watertight()
    assert area_ratio(result, shape) == pytest.approx(1, abs=0.03)
    assert farthest(samples(shape), result) < 1.1


@pytest.mark.parametrize("noise", [0.0, 0.1])
def test_a_fin_on_a_sheet_is_not_lost(noise):
    flat = sheet()
    fin = (flat[0][:, [2, 0, 1]] * torch.tensor([1, 1, 0.5]) + torch.tensor([0.02, 0, 0.175]), flat[1])
    shape = mesh(flat, fin)
    result, report = field_of(shape, noise=noise).to_surface()
    assert report.mode in ("single", "mixed")
    assert farthest(samples(shape), result) < 1.3
    assert area_ratio(result, shape) < 1.1


def test_a_moebius_band_keeps_both_layers():
    t, s = torch.meshgrid(torch.linspace(0, 2 * torch.pi, 121)[:-1], torch.linspace(-0.1, 0.1, 9), indexing="ij")
    radius = 0.3 + s * (t / 2).cos()
    points = torch.stack([radius * t.cos(), radius * t.sin(), s * (t / 2).sin()], -1).view(-1, 3)
    index = torch.arange(len(points)).view(120, 9)
    index = torch.cat([index, index[:1].flip(1)])
    a, b, c, d = index[:-1, :-1], index[1:, :-1], index[1:, 1:], index[:-1, 1:]
    faces = torch.cat([torch.stack([a, b, c], -1).view(-1, 3), torch.stack([a, c, d], -1).view(-1, 3)])
    result, report = field_of(mesh((points, faces))).to_surface()
    assert report.mode == "snapped"
    assert "layer" in report.reason
    assert result.is_watertight()


def test_snapping_an_exact_field_leaves_hundredths_of_a_voxel():
    shape = mesh(sphere(detail=100))
    shell = field_of(shape, 128).to_mesh(surface="shell")
    snapped = field_of(shape, 128).to_mesh(surface="snapped")
    off, left = (closest_point(m.vertices, shape.vertices, shape.faces).distance * 128 for m in (shell, snapped))
    assert float(off.mean()) == pytest.approx(1, abs=0.01)
    assert float(left.mean()) < 0.01
    assert float(left.max()) < 0.1


def test_snapping_a_noisy_field_averages_both_sides():
    shape = mesh(sphere(detail=100))
    noisy = field_of(shape, 128, noise=0.15)
    shell, snapped = (noisy.to_mesh(surface=surface) for surface in ("shell", "snapped"))
    off, left = (closest_point(m.vertices, shape.vertices, shape.faces).distance * 128 for m in (shell, snapped))
    assert float(left.mean()) < 0.6 * float((off - 1).abs().mean())


def test_the_same_field_gives_the_same_mesh():
    noisy = field_of(mesh(sphere(), sheet()), noise=0.1)
    first, second = noisy.to_mesh(), noisy.to_mesh()
    assert torch.equal(first.vertices, second.vertices)
    assert torch.equal(first.faces, second.faces)


def test_no_surface_at_all():
    empty = SparseGrid.build(torch.zeros(0, 3, dtype=torch.int32), N // 8)[0]
    with pytest.raises(BadMesh, match="no surface"):
        extract_surface(torch.zeros(0, 8, 8, 8), empty, N)
    high = SparseGrid.build(torch.ones(1, 3, dtype=torch.int32), N // 8)[0]
    with pytest.raises(BadMesh, match="no surface"):
        extract_surface(torch.full((1, 8, 8, 8), 0.9), high, N)


def test_wrong_surface_or_resolution():
    field = field_of(mesh(sphere()))
    with pytest.raises(BadArgument, match="smooth"):
        field.to_mesh(surface="smooth")
    with pytest.raises(BadArgument, match="128"):
        field.to_mesh(resolution=128)
    assert len(field.to_mesh(resolution=N).faces)
    with pytest.raises(BadArgument, match="resolution"):
        BlockField(field.values, field.grid, 2 * N)
    with pytest.raises(BadArgument, match="values"):
        BlockField(field.values[:-1], field.grid, N)


def test_sampling_is_in_unit_lengths_and_saturates():
    field = field_of(mesh(sphere(detail=100)), 128)
    points = torch.tensor([[0.4 + 1.5 / 128, 0, 0], [0, 0, 0], [0, 0.4 + 2.5 / 128, 0]])
    expected = torch.tensor([1.5, 4.0, 2.5]) / 128
    torch.testing.assert_close(field.sample(points), expected, atol=0.05 / 128, rtol=0)


def test_colours_of_a_frustrated_triangle_break_its_weakest_vote():
    first, second = torch.tensor([0, 1, 0, 3]), torch.tensor([1, 2, 2, 3])
    votes = torch.tensor([-5.0, -4.0, -1.0, 1.0], dtype=torch.float64)
    assert two_colours(4, first, second, votes).tolist() == [0, 1, 0, 0]


def test_colours_against_a_planted_answer():
    draw = torch.Generator().manual_seed(2)
    planted = torch.randint(0, 2, (300,), generator=draw)
    ends = torch.randint(0, 300, (4000, 2), generator=draw)
    same = planted[ends[:, 0]] == planted[ends[:, 1]]
    votes = torch.where(same, 1.0, -1.0).double() * torch.rand(4000, generator=draw).double()
    wrong = torch.rand(4000, generator=draw) < 0.05
    colour = two_colours(300, ends[:, 0], ends[:, 1], torch.where(wrong, -votes * 0.3, votes))
    assert torch.equal(colour ^ colour[0], planted ^ planted[0])


@pytest.mark.gpu
def test_cuda_against_cpu():
    shape = mesh(sphere(0.45, 200), (sheet()[0] * 0.7, sheet()[1]))
    grid, values = udf_blocks(shape.vertices.cuda(), shape.faces.cuda(), 512)
    on_gpu, report = BlockField(values, grid, 512).to_surface()
    on_cpu, expected = BlockField(values.cpu(), grid.to("cpu"), 512).to_surface()
    assert report.mode == expected.mode == "single"
    assert area_ratio(on_gpu.to("cpu"), on_cpu) == pytest.approx(1, abs=1e-3)
    again = BlockField(values, grid, 512).to_mesh()
    assert torch.equal(again.vertices, on_gpu.vertices)
    assert torch.equal(again.faces, on_gpu.faces)
