import math

import pytest
import torch

from shapecodec.camera import Camera, orbit
from shapecodec.codecs.focusing.carve import _largest, carve, seen_voxels
from shapecodec.codecs.focusing.halo import encoder_needs
from shapecodec.errors import BadArgument, BadLatents
from shapecodec.grid import SparseGrid
from shapecodec.latents import Latents, Level
from shapecodec.nn.transformer import SparseTransformer

RESOLUTION = 16
SIZE = (40, 30)
EYES = [(20, 10), (140, -35), (-80, 60)]


def shell(radius: float = 0.4, resolution: int = RESOLUTION) -> SparseGrid:
    """Voxels that a sphere about the origin passes through."""
    cells = torch.arange(resolution)
    coords = torch.cartesian_prod(cells, cells, cells)
    centre = (coords.double() + 0.5) / resolution - 0.5
    near = (centre.abs() - 0.5 / resolution).clamp_min(0).norm(dim=1)
    far = (centre.abs() + 0.5 / resolution).norm(dim=1)
    return SparseGrid.build(coords[(near <= radius) & (far >= radius)], resolution)[0]


def latents_of(*grids: SparseGrid) -> Latents:
    grid = SparseGrid.concatenate(list(grids))
    feats = torch.arange(float(len(grid)))[:, None]
    return Latents((Level(feats, grid.offsets, grid.coords, grid.resolution),), 4 * grid.resolution)


def pinhole(yaw: float, pitch: float, fov: float = 32.0, distance: float = 2.0) -> Camera:
    return Camera.perspective(orbit(yaw, pitch, distance), (0, 0, 0), fov, SIZE)


def parallel(yaw: float, pitch: float) -> Camera:
    return Camera.orthographic(orbit(yaw, pitch, 2.0), (0, 0, 0), 0.45, SIZE)


def rays(camera: Camera, pixels: torch.Tensor) -> tuple[torch.Tensor, torch.Tensor]:
    """Origins and directions (Q, 3) through pixel positions (Q, 2); a direction advances one unit of viewing length."""
    size = torch.tensor([camera.width, camera.height], dtype=torch.float64)
    ndc = (pixels.double() / size * 2 - 1) * torch.tensor([1.0, -1.0], dtype=torch.float64)
    inverse = torch.linalg.inv(camera.projection @ camera.view)
    ends = []
    for z in (-0.5, 0.5):
        clip = torch.cat([ndc, torch.full((len(ndc), 1), z), torch.ones(len(ndc), 1)], 1).double() @ inverse.T
        ends.append(clip[:, :3] / clip[:, 3:])
    lengths = [camera.lengths(end)[:, None] for end in ends]
    direction = (ends[1] - ends[0]) / (lengths[1] - lengths[0])
    return ends[0] - direction * lengths[0], direction


def centres(camera: Camera) -> torch.Tensor:
    y, x = torch.meshgrid(torch.arange(camera.height), torch.arange(camera.width), indexing="ij")
    return torch.stack([x, y], -1).reshape(-1, 2) + 0.5


def ball_depth(origin: torch.Tensor, direction: torch.Tensor, radius: float = 0.4) -> torch.Tensor:
    """(Q,) viewing length to the sphere, inf beside it."""
    a, b = (direction**2).sum(1), (origin * direction).sum(1)
    inner = b**2 - a * ((origin**2).sum(1) - radius**2)
    return torch.where(inner >= 0, (-b - inner.clamp_min(0).sqrt()) / a, torch.inf)


def picture(camera: Camera, radius: float = 0.4) -> torch.Tensor:
    return ball_depth(*rays(camera, centres(camera)), radius).reshape(camera.height, camera.width)


def entries(grid: SparseGrid, origin: torch.Tensor, direction: torch.Tensor) -> torch.Tensor:
    """(Q, N) viewing length at which each ray enters each voxel, inf where it misses: the slab test, one by one."""
    low = (grid.coords.double() / grid.resolution - 0.5)[None]
    steps = torch.stack([(low - origin[:, None]), (low + 1 / grid.resolution - origin[:, None])])
    steps = steps / direction[None, :, None]
    first, last = steps.amin(0).amax(2), steps.amax(0).amin(2)
    return torch.where((first < last) & (last > 0), first, torch.inf)


@pytest.mark.parametrize("make", [pinhole, parallel])
@pytest.mark.parametrize("eye", EYES)
def test_voxel_that_a_pixel_sees_is_carved_away(make, eye):
    grid, camera = shell(), make(*eye)
    kept = carve(latents_of(grid), [camera], picture(camera)[None], threshold=0.87)
    origin, direction = rays(camera, centres(camera))
    depth = ball_depth(origin, direction)
    entry = entries(grid, origin, direction)
    visible = (entry.isfinite() & (entry <= depth[:, None])).any(0)
    mask = torch.zeros(len(grid), dtype=torch.bool)
    mask[kept.rows] = True
    assert int(visible.sum()) > 200 and not bool((visible & ~mask).any())
    assert int(mask.sum()) < 0.9 * len(grid)


@pytest.mark.parametrize("lookup", ["footprint", "centre"])
def test_surface_is_deleted_and_the_back_kept(lookup):
    grid, camera = shell(), Camera.perspective((0, 0, 2.0), (0, 0, 0), 40.0, SIZE)
    kept = carve(latents_of(grid), [camera], picture(camera)[None], lookup=lookup)
    z = grid.centres()[:, 2]
    row = torch.zeros(len(grid), dtype=torch.bool)
    row[kept.rows] = True
    assert bool(row[z > 0.15].all()) and not bool(row[z < -0.25].any())
    torch.testing.assert_close(kept.latents.levels[0].feats[:, 0].long(), kept.rows)
    assert torch.equal(kept.latents.levels[0].coords, grid.coords[kept.rows])


def test_threshold_counts_other_voxels_or_does_nothing():
    grid, camera = shell(resolution=32), pinhole(*EYES[0])
    counts = [
        len(carve(latents_of(grid), [camera], picture(camera)[None], threshold=r, unit=unit).rows)
        for r, unit in ((-1.0, "latent"), (4.0, "output"), (1.0, "latent"), (4.0, "latent"), (40.0, "latent"))
    ]
    assert counts[0] < counts[1] == counts[2] < counts[3] < counts[4] == len(grid)


def test_silhouette_lacks_its_neighbours():
    """r = 0 and a depth just in front of everything: what remains are voxels over the background, and their neighbours."""
    grid, camera = shell(), parallel(0, 0)
    depth = torch.where(picture(camera).isinf(), torch.inf, 0.0)[None]
    found = carve(latents_of(grid), [camera], depth, threshold=0.0, lookup="centre").rows
    place = grid.coords.long()
    seeds = (camera.project(grid.centres())[0] + 0).floor().long()
    inside = ((seeds >= 0) & (seeds < torch.tensor(SIZE))).all(1)
    seeds = seeds.clamp_min(0).minimum(torch.tensor(SIZE) - 1)
    seeds = inside & depth[0][seeds[:, 1], seeds[:, 0]].isinf()
    expected = (torch.cdist(place.double(), place[seeds].double(), p=math.inf) <= 1).any(1)
    assert 0 < int(seeds.sum()) < len(found) and torch.equal(found, expected.nonzero()[:, 0])


def test_views_or_shapes_of_a_batch_are_mixed():
    grids = shell(), shell(0.3)
    cameras = [pinhole(*eye) for eye in EYES]
    depth = torch.stack([picture(cameras[0]), picture(cameras[1], 0.3), picture(cameras[2])])
    items = [0, 1, 0]
    kept = carve(latents_of(*grids), cameras, depth, items=items)
    alone = [
        carve(latents_of(grids[item]), [camera], depth[v][None]).rows
        for v, (item, camera) in enumerate(zip(items, cameras, strict=True))
    ]
    expected = [torch.unique(torch.cat([alone[0], alone[2]])), alone[1] + len(grids[0])]
    assert torch.equal(kept.rows, torch.cat(expected))
    assert kept.latents.levels[0].offsets.tolist() == [0, len(expected[0]), len(kept.rows)]
    nothing = carve(latents_of(*grids), cameras[:1], depth[:1], items=[1])
    assert nothing.latents.levels[0].offsets[1] == 0


def test_voxels_beside_or_behind_the_camera_stay():
    grid = shell()
    narrow = pinhole(0, 0, fov=6.0)
    kept = seen_voxels(grid, [narrow], torch.full((1, *SIZE[::-1]), math.inf), reach=0.0)
    pixels, _, w = narrow.project(grid.centres()[kept])
    margin = 2 * 2**0.5 * SIZE[1] / (2 * math.tan(math.radians(3)) * 1.6) / RESOLUTION * 1.5
    assert 0 < int(kept.sum()) < 0.2 * len(grid) and bool((w > 0).all())
    assert bool(((pixels > -margin) & (pixels < torch.tensor(SIZE) + margin)).all())
    inside = Camera.perspective((0.0, 0.0, 0.0), (0, 0, -1.0), 60.0, SIZE)
    kept = seen_voxels(grid, [inside], torch.full((1, *SIZE[::-1]), math.inf), reach=0.0)
    assert bool((grid.centres()[kept][:, 2] < 2 / RESOLUTION).all()) and 100 < int(kept.sum()) < 0.7 * len(grid)


def test_largest_depth_of_a_window_is_another():
    generator = torch.Generator().manual_seed(0)
    depth = torch.rand(13, 17, generator=generator, dtype=torch.float64)
    corner = (torch.rand(500, 2, 2, generator=generator) * torch.tensor([17, 13])).long().sort(1).values
    square = corner.clone()
    square[:, 1] = (square[:, 0] + (square[:, 1] - square[:, 0]).amax(1, keepdim=True)).minimum(torch.tensor([16, 12]))
    got = _largest(depth, corner[:, 0], corner[:, 1])
    low = torch.stack([depth[y : q + 1, x : p + 1].max() for (x, y), (p, q) in corner.tolist()])
    assert bool((got >= low).all())
    even = (corner[:, 1] - corner[:, 0]).unbind(1)
    same = even[0] == even[1]
    assert int(same.sum()) > 20 and torch.equal(got[same], low[same])


def test_bad_views_are_accepted():
    latents, camera = latents_of(shell()), pinhole(0, 0)
    depth = picture(camera)[None]
    for cameras, maps, options in (
        ([camera], depth[:, :5], {}),
        ([camera, camera], depth, {}),
        ([camera], depth, {"items": [1]}),
        ([camera], depth, {"lookup": "nearest"}),
    ):
        with pytest.raises(BadArgument):
            carve(latents, cameras, maps, **options)
    with pytest.raises(BadLatents):
        carve(Latents((Level(torch.zeros(3, 2), torch.tensor([0, 3])),), 8), [camera], depth)


def network(depth: int, convs: int, window: int) -> SparseTransformer:
    """Weights that are drawn: the branches of a new one are zero, and then no voxel depends on another."""
    model = SparseTransformer(12, 2, depth, window, convs, 2.0)
    generator = torch.Generator().manual_seed(depth)
    for weight in model.parameters():
        weight.data = 0.4 * torch.randn(weight.shape, generator=generator)
    return model.eval()


@pytest.mark.parametrize(("depth", "convs", "window"), [(1, 0, 8), (2, 0, 8), (3, 1, 4), (2, 2, 4), (4, 0, 4)])
def test_encoder_on_the_halo_differs_from_the_whole(depth, convs, window):
    grid = SparseGrid.concatenate([shell(resolution=32), shell(0.3, resolution=32)])
    camera = pinhole(*EYES[0], fov=5.0)
    model = network(depth, convs, window)
    wanted = seen_voxels(grid, [camera], picture(camera)[None], reach=1 / 32)
    seen = encoder_needs(grid, wanted, depth, window=window, convs_per_block=convs)
    assert 0 < int(wanted.sum()) < int(seen.sum()) < len(grid) and not bool((wanted & ~seen).any())
    feats = torch.randn(len(grid), 12, generator=torch.Generator().manual_seed(0), requires_grad=True)
    whole = model(feats, grid)[wanted]
    offsets = torch.tensor([0, *(int(seen[: grid.offsets[b]].sum()) for b in (1, 2))])
    part = model(feats[seen], SparseGrid(grid.coords[seen], offsets, grid.resolution))[wanted[seen]]
    torch.testing.assert_close(part, whole, rtol=1e-4, atol=1e-4)
    weight = torch.randn(whole.shape, generator=torch.Generator().manual_seed(1))
    (slope,) = torch.autograd.grad((whole * weight).sum(), feats)
    assert torch.equal(slope.abs().sum(1) > 0, seen)  # not a voxel too few, not one too many


@pytest.mark.parametrize(("depth", "last"), [(3, 1), (4, 1), (4, 3)])
def test_part_of_a_halo_cuts_windows_of_the_last_blocks(depth, last):
    grid = shell(resolution=32)
    wanted = grid.coords[:, 0] < 5
    seen = encoder_needs(grid, wanted, depth, last=last, window=4)
    model = network(depth, 0, 4)
    before, after = model.blocks[: depth - last], model.blocks[depth - last :]
    assert len(before) and 0 < int(wanted.sum()) < int(seen.sum()) < len(grid)
    feats = torch.randn(len(grid), 12, generator=torch.Generator().manual_seed(0))
    part = SparseGrid(grid.coords[seen], torch.tensor([0, int(seen.sum())]), 32)
    whole, some = feats, feats[seen]
    for block in after:  # what the blocks before them would give, taken as given
        whole, some = block(whole, grid), block(some, part)
    torch.testing.assert_close(some[wanted[seen]], whole[wanted], rtol=1e-4, atol=1e-4)


def test_halo_of_nothing_or_of_no_block_is_something():
    grid = shell()
    nothing, half = torch.zeros(len(grid), dtype=torch.bool), grid.coords[:, 0] < 5
    assert not bool(encoder_needs(grid, nothing, 4).any())
    with pytest.raises(BadArgument, match="last 5 of 4"):
        encoder_needs(grid, half, 4, last=5)
    assert torch.equal(encoder_needs(grid, half, 0), half)
    with pytest.raises(BadArgument):
        encoder_needs(grid, half[:-1], 2)
