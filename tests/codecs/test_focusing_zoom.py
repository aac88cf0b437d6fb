import math

import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st

from shapecodec.camera import Camera, orbit
from shapecodec.codecs.focusing.carve import carve
from shapecodec.codecs.focusing.zoom import ZoomConfig, zoom
from shapecodec.errors import BadArgument
from shapecodec.grid import SparseGrid
from shapecodec.latents import Latents, Level
from shapecodec.mesh import Mesh
from shapecodec.ops.voxelise import voxelise
from shapecodec.render.raster import rasterise
from shapecodec.rng import rng

RESOLUTION = 24
FEW = ZoomConfig(least=20, most=60)


def cloud(seed: int, count: int = 400) -> SparseGrid:
    """Random voxels within a ball: nothing of a surface's regularity, many layers on each ray."""
    generator = torch.Generator().manual_seed(seed)
    points = torch.randn(4 * count, 3, generator=generator).mul(0.16)
    coords = torch.unique(((points[points.norm(dim=1) < 0.48] + 0.5) * RESOLUTION).int(), dim=0)
    return SparseGrid.build(coords[torch.randperm(len(coords), generator=generator)[:count]], RESOLUTION)[0]


def latents_of(*grids: SparseGrid) -> Latents:
    grid = SparseGrid.concatenate(list(grids))
    feats = torch.arange(float(len(grid)))[:, None]
    return Latents((Level(feats, grid.offsets, grid.coords, grid.resolution),), 4 * grid.resolution)


def camera_at(yaw: float, pitch: float, fov: float | None, size: tuple[int, int] = (48, 36)) -> Camera:
    eye = orbit(yaw, pitch, 1.6)
    if fov is None:
        return Camera.orthographic(eye, (0, 0, 0), 0.3, size)
    return Camera.perspective(eye, (0.0, 0.05, 0.0), fov, size)


def rays(camera: Camera, count: int, seed: int) -> tuple[torch.Tensor, torch.Tensor]:
    """Origins and directions of rays anywhere in the image, its four corners among them."""
    ndc = torch.rand(count, 2, generator=torch.Generator().manual_seed(seed), dtype=torch.float64) * 2 - 1
    ndc[:4] = torch.tensor([[-1.0, -1], [-1, 1], [1, -1], [1, 1]])
    inverse = torch.linalg.inv(camera.projection @ camera.view)
    ends = []
    for z in (-1.0, 0.5):
        place = torch.cat([ndc, torch.tensor([[z, 1.0]]).double().expand(count, 2)], 1) @ inverse.T
        ends.append(place[:, :3] / place[:, 3:])
    return ends[0], ends[1] - ends[0]


def entry(grid: SparseGrid, origin: torch.Tensor, direction: torch.Tensor) -> torch.Tensor:
    """(Q, N) how far along each ray each voxel begins, inf where it is missed."""
    low = (grid.coords.double() / grid.resolution - 0.5)[None] - origin[:, None]
    steps = torch.stack([low, low + 1 / grid.resolution]) / direction[None, :, None]
    first, last = steps.amin(0).amax(2), steps.amax(0).amin(2)
    return torch.where((first < last) & (last > 0), first, torch.inf)


@settings(max_examples=25, deadline=None)
@given(
    seed=st.integers(0, 1000),
    yaw=st.integers(0, 359),
    pitch=st.integers(-80, 80),
    fov=st.sampled_from([None, 15.0, 35.0, 60.0]),
    most=st.sampled_from([20, 60, 300, 5000]),
)
def test_ray_of_the_zoomed_image_misses_a_voxel(seed, yaw, pitch, fov, most):
    grid, camera = cloud(seed), camera_at(yaw, pitch, fov)
    found = zoom(latents_of(grid), [camera], rng(seed), ZoomConfig(alpha=(0.1, 0.9), least=20, most=most))
    kept = torch.zeros(len(grid), dtype=torch.bool)
    kept[found.rows] = True
    origin, direction = rays(found.cameras[0], 300, seed)
    hit = entry(grid, origin, direction).isfinite().any(0)
    assert bool(hit.any()) and not bool((hit & ~kept).any())
    pixels = camera.project(origin + direction)[0] / torch.tensor([48, 36])
    assert bool(((pixels > -1e-5) & (pixels < 1 + 1e-5)).all())  # beyond the first image nothing is known


@settings(max_examples=40, deadline=None)
@given(
    seed=st.integers(0, 1000),
    count=st.integers(1, 400),
    low=st.floats(0.01, 0.5),
    width=st.floats(0.0, 0.5),
    least=st.integers(1, 150),
    more=st.integers(0, 200),
)
def test_number_of_voxels_leaves_its_bounds(seed, count, low, width, least, more):
    grid = cloud(seed, count)
    config = ZoomConfig((low, low + width), least, least + more, nearest=1e-6)
    found = zoom(latents_of(grid), [camera_at(seed, 20, 50.0)], rng(seed), config)
    rows = found.rows
    assert min(least, len(grid)) <= len(rows) <= min(least + more, len(grid)) or len(rows) == deepest(grid, seed)
    assert bool((rows.diff() > 0).all()) and torch.equal(found.latents.levels[0].coords, grid.coords[rows])
    if least < (low + width) * len(grid) < least + more:
        assert len(rows) <= round((low + width) * len(grid)) or len(rows) == deepest(grid, seed)


def deepest(grid: SparseGrid, seed: int) -> int:
    """Voxels on the ray through the voxel that was drawn: they are never parted."""
    found = zoom(latents_of(grid), [camera_at(seed, 20, 50.0)], rng(seed), ZoomConfig((1e-9, 1e-9), 1, 1, nearest=1e-6))
    return len(found.rows)


@pytest.mark.parametrize("fov", [None, 40.0])
def test_box_fills_part_of_the_image_or_is_moved(fov):
    camera = camera_at(30, 20, fov)
    points = torch.rand(200, 3, generator=torch.Generator().manual_seed(1)) - 0.5
    size = torch.tensor([camera.width, camera.height])
    flip = torch.tensor([1.0, -1.0])
    before, depth, _ = camera.project(points)
    low, high = torch.tensor([-0.3, 0.1]), torch.tensor([0.5, 0.4])
    for scale in (1.0, 1.1, 2.0):
        after, deep, _ = camera.zoomed(low, high, scale).project(points)
        ndc, new = (before / size * 2 - 1) * flip, (after / size * 2 - 1) * flip
        torch.testing.assert_close(new, scale * (2 * ndc - (high + low)) / (high - low), rtol=0, atol=2e-5)
        torch.testing.assert_close(deep, depth)
    with pytest.raises(BadArgument):
        camera.zoomed(high, low)


@pytest.mark.parametrize("fov", [None, 40.0])
def test_depth_of_a_picture_is_not_a_length(fov):
    camera = camera_at(50, 10, fov).zoomed((-0.5, -0.5), (0.5, 0.3), 1.1)
    points = torch.rand(100, 3, generator=torch.Generator().manual_seed(0)) - 0.5
    lengths = camera.lengths(points)
    torch.testing.assert_close(camera.to_lengths(camera.project(points)[1]), lengths, rtol=1e-4, atol=1e-5)
    if fov is not None:
        eye, back = orbit(50, 10, 1.6), orbit(50, 10, 1.6) - torch.tensor([0.0, 0.05, 0.0], dtype=torch.float64)
        torch.testing.assert_close(lengths, (eye - points.double()) @ (back / back.norm()))
    assert float(camera.to_lengths(torch.tensor(math.inf))) == math.inf


def test_small_shape_loses_voxels_or_is_not_zoomed_to():
    grid, camera = cloud(3, 50), camera_at(0, 0, 90.0)
    found = zoom(latents_of(grid), [camera], rng(0))
    assert torch.equal(found.rows, torch.arange(50))
    pixels = found.cameras[0].project(grid.centres())[0] / torch.tensor([48, 36])
    span = (pixels.amax(0) - pixels.amin(0)).amax()
    assert bool(((pixels > 0) & (pixels < 1)).all()) and float(span) > 0.5


def test_shapes_of_a_batch_share_their_draw_or_camera():
    grids = cloud(1), cloud(2), SparseGrid.build(torch.zeros(0, 3, dtype=torch.int32), RESOLUTION)[0]
    cameras = [camera_at(10, 20, 40.0), camera_at(200, 5, 30.0), camera_at(0, 0, 30.0)]
    found = zoom(latents_of(*grids), cameras, rng(4), FEW)
    assert len(found.cameras) == 3 and found.latents.levels[0].offsets[3] == found.latents.levels[0].offsets[2]
    again = zoom(latents_of(*grids), cameras, rng(4), FEW)
    assert torch.equal(found.rows, again.rows) and torch.equal(found.cameras[1].projection, again.cameras[1].projection)
    first = zoom(latents_of(grids[0]), cameras[:1], rng(4), FEW)
    assert torch.equal(first.rows, found.rows[: len(first.rows)])
    others = [zoom(latents_of(grids[0]), cameras[:1], rng(seed), FEW).rows for seed in range(5)]
    assert len({tuple(rows.tolist()) for rows in others}) > 3
    with pytest.raises(BadArgument):
        zoom(latents_of(*grids), cameras[:2], rng(4), FEW)


def test_alpha_counts_other_voxels():
    grid, camera = cloud(5), camera_at(10, 20, 60.0)
    config = ZoomConfig((0.25, 0.25), 1, 10_000)
    assert len(zoom(latents_of(grid), [camera], rng(0), config).rows) == round(0.25 * len(grid))
    assert len(zoom(latents_of(grid), [camera], rng(0), config, totals=[800]).rows) == 200


def test_camera_that_sees_nothing_fails():
    away = Camera.perspective((0, 0, 2.0), (0, 0, 4.0), 40.0, (48, 36))
    found = zoom(latents_of(cloud(0)), [away], rng(0), FEW)
    assert torch.equal(found.cameras[0].projection, away.projection) and 20 <= len(found.rows) <= 60


def test_bad_numbers_are_accepted():
    for numbers in ({"alpha": (0.3, 0.1)}, {"alpha": (0.0, 0.1)}, {"least": 0}, {"most": 10}, {"scale": 0.9}):
        with pytest.raises(BadArgument):
            ZoomConfig(**numbers)


@pytest.mark.parametrize("seed", range(3))
def test_pixel_of_the_zoomed_picture_has_no_voxel(seed):
    """Mesh, depth map, carving, zoom, the mesh rendered again: the point that each pixel shows lies in a kept voxel."""
    u, v = torch.meshgrid(
        torch.linspace(0, 2 * math.pi, 49)[:-1], torch.linspace(0, 2 * math.pi, 25)[:-1], indexing="ij"
    )
    ring = 0.32 + 0.12 * v.cos()
    vertices = torch.stack([ring * u.cos(), 0.12 * v.sin(), ring * u.sin()], -1).reshape(-1, 3)
    i, j = torch.meshgrid(torch.arange(48), torch.arange(24), indexing="ij")
    a, b = (i * 24 + j).flatten(), ((i + 1) % 48 * 24 + j).flatten()
    c, d = ((i + 1) % 48 * 24 + (j + 1) % 24).flatten(), (i * 24 + (j + 1) % 24).flatten()
    mesh = Mesh(vertices, torch.cat([torch.stack([a, b, c], 1), torch.stack([a, c, d], 1)]))
    grid = voxelise(mesh.vertices, mesh.faces, 48, backend="reference")
    camera = camera_at(40 * seed, 25, 30.0, (160, 120))
    depth = camera.to_lengths(torch.from_numpy(rasterise(mesh, camera).depth))
    carved = carve(latents_of(grid), [camera], depth[None], threshold=2.0)
    found = zoom(carved.latents, [camera], rng(seed), ZoomConfig(least=300, most=500))
    assert len(found.rows) <= 500 < len(carved.rows) < len(grid)
    level = found.latents.levels[0]
    kept = SparseGrid(level.coords, level.offsets, level.resolution)
    picture = rasterise(mesh, found.cameras[0])
    shown = torch.from_numpy(picture.face) >= 0
    corners = mesh.vertices[mesh.faces[torch.from_numpy(picture.face)[shown].long()]]
    points = (corners * torch.from_numpy(picture.weights)[shown][:, :, None]).sum(1)
    place = (points + 0.5) * 48
    near = torch.stack([place - 1e-3, place + 1e-3]).floor().int()  # weights are float32: either side of a border
    assert int(shown.sum()) > 2000
    assert bool(((kept.lookup(near[0]) >= 0) | (kept.lookup(near[1]) >= 0)).all())
