import sys

import pytest
import torch

from shapecodec.data.watertight import make_watertight
from shapecodec.errors import BadArgument, MissingExtra
from shapecodec.mesh import Mesh
from shapecodec.ops.closest_point import closest_point
from shapecodec.ops.components import components

CORNERS = torch.cartesian_prod(*[torch.tensor([-1.0, 1.0])] * 3)
CUBE = torch.tensor(
    [
        [0, 1, 3], [0, 3, 2], [4, 6, 7], [4, 7, 5], [0, 4, 5], [0, 5, 1],
        [2, 3, 7], [2, 7, 6], [0, 2, 6], [0, 6, 4], [1, 5, 7], [1, 7, 3],
    ]
)  # fmt: skip
TURN = torch.tensor([[0.8, -0.6, 0.0], [0.48, 0.64, -0.6], [0.36, 0.48, 0.8]])  # so that nothing lies along the grid
SIZE = 64


def turned(vertices: torch.Tensor, faces: torch.Tensor) -> Mesh:
    return Mesh(vertices @ TURN.T * 3 + torch.tensor([5.0, 0.0, -2.0]), faces)


def volume(mesh: Mesh) -> float:
    a, b, c = (mesh.vertices - mesh.vertices.mean(0))[mesh.faces].double().unbind(1)
    return float((torch.linalg.cross(a, b) * c).sum() / 6)


def voxel(mesh: Mesh) -> float:
    low, high = mesh.bounds()
    return float((high - low).max()) / SIZE


def tight(mesh: Mesh, **options) -> Mesh:
    """The rebuilt mesh, after a check that each directed edge is there once, and its opposite too."""
    made = make_watertight(mesh, resolution=SIZE, **options)
    ends = torch.cat([made.faces[:, [0, 1]], made.faces[:, [1, 2]], made.faces[:, [2, 0]]])
    keys, opposite = (ends * torch.tensor(order) for order in ([len(made.vertices), 1], [1, len(made.vertices)]))
    keys = keys.sum(1).sort().values
    assert bool((keys.diff() > 0).all()) and torch.equal(keys, opposite.sum(1).sort().values)
    assert volume(made) > 0
    return made


def parts(mesh: Mesh) -> int:
    return len(components(len(mesh.vertices), mesh.faces)[mesh.faces[:, 0]].unique())


@pytest.mark.parametrize("flip", [False, True])
def test_closed_mesh_moves_or_gains_an_inner_shell(flip: bool):
    mesh = turned(CORNERS, CUBE.flip(1) if flip else CUBE)
    made = tight(mesh)
    assert parts(made) == 1
    assert abs(volume(made) / (8 * 27) - 1) < 0.02
    there = closest_point(made.vertices, mesh.vertices, mesh.faces).distance
    assert float(there.mean()) < 0.02 * voxel(mesh) and float(there.max()) < 0.6 * voxel(mesh)


def test_box_without_a_lid_stays_open():
    lid = (CORNERS[CUBE][..., 2] == 1).all(1)
    made = tight(turned(CORNERS, CUBE[~lid]))
    assert abs(volume(made) / (8 * 27) - 1) < 0.02
    assert parts(made) == 1


def test_open_sheet_vanishes():
    flat = CORNERS * torch.tensor([1.0, 1.0, 0.0])
    mesh = turned(flat, torch.tensor([[0, 4, 6], [0, 6, 2]]))
    made = tight(mesh, thickness=2.0)
    wall = 2.0 * voxel(mesh) / 0.95
    assert parts(made) == 1
    assert abs(volume(made) / (36 * wall) - 1) < 0.2
    assert float(closest_point(made.vertices, mesh.vertices, mesh.faces).distance.max()) < 0.7 * wall


@pytest.mark.parametrize("share", [0.0, 0.3, 1.1])
def test_plate_thinner_than_a_wall_gets_holes(share: float):
    """A closed plate of `share` voxels is made as thick as a wall, in one piece and without a hole."""
    thin = CORNERS * torch.tensor([1.0, 1.0, share / SIZE * 1.4])
    mesh = turned(thin, CUBE)
    made = tight(mesh)
    assert parts(made) == 1
    euler = len(made.vertices) - len(made.edge_counts()) + len(made.faces)
    assert euler == 2
    top = mesh.sample(2000, torch.Generator().manual_seed(0))[0]
    assert float(closest_point(top, made.vertices, made.faces).distance.max()) < 1.6 * voxel(mesh)


def test_soup_leaks():
    generator = torch.Generator().manual_seed(3)
    corners = torch.rand(40, 1, 3, generator=generator) + 0.3 * torch.randn(40, 3, 3, generator=generator)
    mesh = Mesh(corners.reshape(-1, 3), torch.arange(120).view(-1, 3))
    made = tight(mesh)
    there = mesh.sample(3000, generator)[0]
    reached = closest_point(there, made.vertices, made.faces).distance
    assert float(reached.quantile(0.9)) < 1.5 * voxel(mesh)  # the rest lies inside, where many faces cover half of all


def test_sheet_that_is_there_thrice_fills_the_cube():
    flat = CORNERS * torch.tensor([1.0, 1.0, 0.0])
    faces = torch.tensor([[0, 4, 6], [0, 6, 2]]).repeat(3, 1)  # |w| reaches 1.5, and passes 1/2 beyond the mesh's box
    assert parts(tight(Mesh(flat, faces))) == 1


def test_walls_on_a_solid_whose_faces_lie_on_voxels():
    side = 0.5 - 2.5 / SIZE  # faces through the centres of voxels
    mesh = Mesh(torch.cat([CORNERS * side, torch.tensor([[0.6, 0.0, 0.0], [-0.6, 0.0, 0.0]])]), CUBE)
    made = tight(mesh)
    assert parts(made) == 1 and abs(volume(made) / (2 * side) ** 3 - 1) < 0.05


def test_faces_are_kept_that_a_tolerance_could_save():
    mesh = turned(CORNERS, CUBE)
    plain, saved = tight(mesh), tight(mesh, tolerance=0.2)
    assert len(saved.faces) < 0.5 * len(plain.faces)
    assert abs(volume(saved) / volume(plain) - 1) < 0.01


@pytest.mark.parametrize("options", [{"thickness": 1.0}, {"resolution": 12}, {"resolution": 8}, {"tolerance": -1.0}])
def test_bad_arguments_are_named(options: dict[str, float]):
    with pytest.raises(BadArgument):
        make_watertight(turned(CORNERS, CUBE), **options)


def test_missing_library_is_found_out_at_the_end(monkeypatch: pytest.MonkeyPatch):
    monkeypatch.setitem(sys.modules, "manifold3d", None)
    with pytest.raises(MissingExtra, match=r"shapecodec\[prepare\]"):
        make_watertight(turned(CORNERS, CUBE), resolution=SIZE)
