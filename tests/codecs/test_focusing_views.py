import math

import pytest
import torch
from focusing_shapes import box, star

from shapecodec.camera import Camera, orbit
from shapecodec.codecs.focusing.views import CameraConfig, draw_cameras, section
from shapecodec.errors import BadArgument
from shapecodec.grid import SparseGrid
from shapecodec.ops.voxelise import voxelise
from shapecodec.render.differentiable import render_mesh


def seeded(seed: int = 0) -> torch.Generator:
    return torch.Generator().manual_seed(seed)


def eye(camera: Camera) -> torch.Tensor:
    return -camera.view[:3, :3].T @ camera.view[:3, 3]


def test_poles_are_seen_more_often():
    cameras = draw_cameras(3000, seeded(), 32, CameraConfig())
    eyes = torch.stack([eye(camera) for camera in cameras])
    distance = eyes.norm(dim=1)
    direction = eyes / distance[:, None]
    assert direction.mean(0).abs().max() < 0.03
    assert torch.allclose(direction.T @ direction / len(eyes), torch.eye(3).double() / 3, atol=0.02)
    inverse = 1 / distance.square()
    low, high = 1 / 10**2, 1 / 2**2
    share = ((inverse - low) / (high - low)).sort().values
    assert torch.allclose(share, torch.linspace(0, 1, 3000).double(), atol=0.03)


def test_shape_is_smaller_from_afar():
    """The ball touches the picture's border from every distance: a cone of half the field is tangent to it."""
    for camera in draw_cameras(20, seeded(1), 32, CameraConfig(ball=0.6)):
        back, right = camera.view[2, :3], camera.view[0, :3]
        distance = float(eye(camera).norm())
        touch = back * (0.6**2 / distance) + right * 0.6 * math.sqrt(1 - (0.6 / distance) ** 2)
        pixel, _, _ = camera.project(touch[None])
        assert pixel[0].tolist() == pytest.approx([32, 16], abs=1e-3)
        assert camera.project(torch.zeros(1, 3))[0][0].tolist() == pytest.approx([16, 16], abs=1e-4)


def test_planes_cut_the_cube():
    corners = torch.cartesian_prod(*[torch.tensor([-0.5, 0.5])] * 3)
    for camera in draw_cameras(50, seeded(2), 32, CameraConfig(kind="varied")):
        assert camera.project(corners)[1].abs().max() < 1
    fixed = draw_cameras(50, seeded(2), 32, CameraConfig(kind="fixed"))
    assert {round(float(eye(camera).norm()), 9) for camera in fixed} == {2.0}
    assert all(camera.projection[1, 1].item() == pytest.approx(1 / math.tan(math.radians(20))) for camera in fixed)
    inside = [camera.lengths(eye(camera)[None] * 0).item() for camera in fixed]
    cut = draw_cameras(200, seeded(2), 32, CameraConfig(cut=0.5))
    near = [(float(camera.to_lengths(torch.tensor(-1.0))) - float(eye(camera).norm())) for camera in cut]
    within = [value for value in near if value > -0.5 - 1e-9]
    assert inside == pytest.approx([2.0] * 50) and 70 < len(within) < 130
    assert max(within) <= 0 and min(within) < -0.4


def test_same_draws_other_cameras():
    first, again = (draw_cameras(4, seeded(5), 32, CameraConfig(cut=0.5)) for _ in range(2))
    assert all(torch.equal(a.projection @ a.view, b.projection @ b.view) for a, b in zip(first, again, strict=True))
    for wrong in ({"ball": 2.5}, {"kind": "film"}, {"distance": (0.7, 2.0)}, {"cut": 1.5}, {"distance": (3.0, 2.0)}):
        with pytest.raises(BadArgument, match=r"cube|in front"):
            CameraConfig(**wrong)


@pytest.mark.parametrize("kind", ["pinhole", "parallel", "zoomed"])
def test_plane_at_another_length(kind):
    if kind == "parallel":
        camera = Camera.orthographic(orbit(30, 20, 2.0), (0, 0, 0), 0.5, (20, 20))
    else:
        camera = Camera.perspective(orbit(30, 20, 2.0), (0, 0, 0), 40.0, (20, 20))
    if kind == "zoomed":
        camera = camera.zoomed((-0.5, -0.2), (0.1, 0.4))
    cut = camera.between(1.7, 2.4)
    points = torch.rand(50, 3, generator=seeded()) - 0.5
    lengths = camera.lengths(points)
    assert torch.equal(cut.project(points)[0], camera.project(points)[0])
    depth = cut.project(points)[1]
    assert torch.allclose(cut.to_lengths(depth), lengths, atol=1e-5)
    assert torch.equal(depth.abs() <= 1, (lengths >= 1.7) & (lengths <= 2.4))
    with pytest.raises(BadArgument, match="planes"):
        camera.between(2.0, 2.0)


def grid_of(resolution: int = 24) -> SparseGrid:
    mesh = star()
    return voxelise(mesh.vertices, mesh.faces, resolution)


@pytest.mark.parametrize("alpha", [0.1, 0.35, 1.0])
def test_section_holds_another_number(alpha):
    grid = grid_of()
    camera = Camera.perspective(orbit(35, 20, 2.0), (0, 0, 0), 14.0, (40, 40))
    inside = camera.project(grid.centres())[0]
    inside = ((inside > 0) & (inside < 40)).all(1)
    lengths = camera.lengths(grid.centres())
    for seed in range(8):
        found = section(grid, camera, alpha, seeded(seed), rim=0.0)
        kept = torch.zeros(len(grid), dtype=torch.bool)
        kept[found.rows] = True
        assert bool((found.rows.diff() > 0).all())
        near, far = (float(found.camera.to_lengths(torch.tensor(side))) for side in (-1.0, 1.0))
        between = (lengths > near) & (lengths < far)
        assert bool((kept | ~(inside & between)).all())  # nobody in the frustum is missing
        goal = min(round(alpha * len(grid)), int(section(grid, camera, 1.0, seeded()).rows.numel()))
        assert goal <= len(found.rows) <= goal + 4


def test_truth_is_cut_where_the_prediction_is_whole():
    """Every visible point of the cut truth lies in a kept voxel, whatever the planes do to voxels."""
    mesh, resolution = box(0.31), 20
    grid = voxelise(mesh.vertices, mesh.faces, resolution)
    for seed in range(6):
        (camera,) = draw_cameras(1, seeded(seed), 48, CameraConfig())
        found = section(grid, camera, 0.3, seeded(seed))
        seen = render_mesh(mesh.vertices, mesh.faces, [found.camera], outlines=False)
        y, x = (seen.mask[0] > 0).nonzero().unbind(1)
        ndc = torch.stack([(x + 0.5) / 24 - 1, 1 - (y + 0.5) / 24], 1).double()
        length = seen.depth[0, y, x].double()
        p = found.camera.projection
        view = torch.stack([ndc[:, 0] * length / p[0, 0], ndc[:, 1] * length / p[1, 1], -length], 1)
        world = (view - camera.view[:3, 3]) @ camera.view[:3, :3]
        cells = ((world + 0.5) * resolution).floor().int()
        row = grid.lookup(cells)
        touched = row >= 0  # rounding puts some of the border's points into the next voxel
        assert len(x) > 20 and float(touched.double().mean()) > 0.4
        assert bool(torch.isin(row[touched], found.rows).all())


def test_nothing_in_the_picture():
    grid = grid_of()
    away = Camera.perspective((0, 0, 2.0), (0, 0, 4.0), 20.0, (16, 16))
    assert len(section(grid, away, 0.5, seeded()).rows) == 0
    with pytest.raises(BadArgument, match="alpha 0"):
        section(grid, away, 0.0, seeded())
