"""What goes wrong in dual marching cubes on sparse voxels: doubled edges, wrong turns, holes, gradients of the wrong voxel."""

from itertools import product

import numpy as np
import pytest
import torch

from shapecodec.errors import BadArgument
from shapecodec.grid import SparseGrid
from shapecodec.ops.flex_surface import average_corners, flex_surface, voxel_corners
from shapecodec.ops.flex_surface.tables import tables

PLACES = list(product(range(2), repeat=3))  # corner 4 x + 2 y + z
MEASURES = {  # volume and area of the shapes below
    "sphere": (4 / 3 * np.pi * 0.37**3, 4 * np.pi * 0.37**2),
    "torus": (2 * np.pi**2 * 0.29 * 0.13**2, 4 * np.pi**2 * 0.29 * 0.13),
    "box": (0.62 * 0.44 * 0.54, 2 * (0.62 * 0.44 + 0.44 * 0.54 + 0.54 * 0.62)),
}


def distance(shape: str, p: torch.Tensor) -> torch.Tensor:
    if shape == "sphere":
        return (p - 0.013).norm(dim=-1) - 0.37
    if shape == "torus":
        return torch.stack([p[..., :2].norm(dim=-1) - 0.29, p[..., 2]], -1).norm(dim=-1) - 0.13
    beyond = p.abs() - torch.tensor([0.31, 0.22, 0.27], dtype=p.dtype)
    return beyond.clamp(min=0).norm(dim=-1) + beyond.amax(-1).clamp(max=0)


def grid_of(coords: torch.Tensor, resolution: int) -> SparseGrid:
    return SparseGrid.build(coords.int(), resolution)[0]


def box_grid(*sides: int, resolution: int = 16) -> SparseGrid:
    return grid_of(torch.cartesian_prod(*[torch.arange(side) for side in sides]), resolution)


def shape_grid(shape: str, resolution: int) -> SparseGrid:
    """The voxels near the surface."""
    axis = torch.arange(resolution)
    coords = torch.cartesian_prod(axis, axis, axis)
    near = distance(shape, (coords + 0.5) / resolution - 0.5).abs() < 1.0 / resolution
    return grid_of(coords[near], resolution)


def plain(grid: SparseGrid, dtype: torch.dtype = torch.float32) -> list[torch.Tensor]:
    """Deformation, alpha, beta and gamma that change nothing."""
    rows, corners = len(grid), len(voxel_corners(grid))
    sizes = ((corners, 3), 0.0), ((rows, 8), 1.0), ((rows, 12), 1.0), ((rows,), 0.5)
    return [torch.full(size, value, dtype=dtype) for size, value in sizes]


def noise(grid: SparseGrid, seed: int, dtype: torch.dtype = torch.float32) -> list[torch.Tensor]:
    """All five inputs at random; sdf keeps off zero."""
    generator = torch.Generator().manual_seed(seed)
    deformation, alpha, beta, gamma = (
        torch.rand(value.shape, generator=generator, dtype=dtype) for value in plain(grid, dtype)
    )
    sdf = torch.rand(len(voxel_corners(grid)), generator=generator, dtype=dtype) * 2 - 1
    sdf = sdf + 0.1 * sdf.sign()
    return [sdf, 0.6 * deformation - 0.3, alpha + 0.3, beta + 0.3, gamma + 0.2]


def volume(vertices: torch.Tensor, faces: torch.Tensor) -> float:
    at = vertices.double()[faces]
    return float((at[:, 0] * torch.linalg.cross(at[:, 1], at[:, 2])).sum() / 6)


def area(vertices: torch.Tensor, faces: torch.Tensor) -> float:
    at = vertices.double()[faces]
    return float(torch.linalg.cross(at[:, 1] - at[:, 0], at[:, 2] - at[:, 0]).norm(dim=1).sum() / 2)


def half_edges(faces: torch.Tensor) -> torch.Tensor:
    return torch.cat([faces[:, [0, 1]], faces[:, [1, 2]], faces[:, [2, 0]]])


def borders(faces: torch.Tensor) -> int:
    """Directed edges without their opposite, after a check that none occurs twice."""
    edges = half_edges(faces)
    size = int(faces.max()) + 1
    forward, backward = edges[:, 0] * size + edges[:, 1], edges[:, 1] * size + edges[:, 0]
    assert len(forward.unique()) == len(forward), "an edge is used twice in one direction"
    return int((~torch.isin(forward, backward)).sum())


def assert_closed_manifold(vertices: torch.Tensor, faces: torch.Tensor) -> int:
    """Every edge in two faces of opposite direction, the faces of every vertex in one fan; returns the Euler number."""
    assert torch.isfinite(vertices).all()
    assert borders(faces) == 0
    assert len(faces.unique()) == len(vertices)
    following: dict[int, dict[int, int]] = {}
    for a, b, c in torch.cat([faces, faces.roll(1, 1), faces.roll(2, 1)]).tolist():
        following.setdefault(a, {})[b] = c
    for start in following.values():
        first = at = next(iter(start))
        steps = 0
        while steps == 0 or at != first:
            at, steps = start[at], steps + 1
        assert steps == len(start), "a vertex joins several fans"
    return len(vertices) - len(half_edges(faces)) // 2 + len(faces)


# ---- closed and open surfaces ---------------------------------------------------------------------------------------


@pytest.mark.parametrize("split", ["centre", "diagonal"])
@pytest.mark.parametrize(("shape", "resolution"), [("sphere", 16), ("torus", 24), ("box", 32)])
def test_solid_shapes(shape: str, resolution: int, split: str) -> None:
    grid = shape_grid(shape, resolution)
    out = flex_surface(grid, distance(shape, voxel_corners(grid).positions()), *plain(grid), split=split)
    assert out.vertices.dtype == torch.float32
    assert assert_closed_manifold(out.vertices, out.faces) == {"sphere": 2, "torus": 0, "box": 2}[shape]
    off = distance(shape, out.vertices).abs() * resolution
    assert off.max() < {"sphere": 0.15, "torus": 0.15, "box": 0.5}[shape]  # dual vertices round a box's edges off
    assert off.mean() < 0.07
    true_volume, true_area = MEASURES[shape]
    assert volume(out.vertices, out.faces) == pytest.approx(true_volume, rel=0.04)
    assert area(out.vertices, out.faces) == pytest.approx(true_area, rel=0.08 if shape == "box" else 0.03)


@pytest.mark.parametrize("shape", ["sphere", "torus"])
def test_error_that_does_not_fall_with_the_square_of_the_voxel(shape: str) -> None:
    errors = []
    for resolution in (16, 32):
        grid = shape_grid(shape, resolution)
        out = flex_surface(grid, distance(shape, voxel_corners(grid).positions()), *plain(grid))
        measured = volume(out.vertices, out.faces), area(out.vertices, out.faces)
        errors.append([abs(value / true - 1) for value, true in zip(measured, MEASURES[shape], strict=True)])
    assert all(fine < 0.3 * coarse for coarse, fine in zip(*errors, strict=True))


@pytest.mark.parametrize("split", ["centre", "diagonal"])
def test_four_quads_in_one_edge(split: str) -> None:
    """Signs at random, outside at the border: every way for two cells to meet occurs."""
    grid = box_grid(13, 12, 11)
    corners = voxel_corners(grid)
    sdf, *rest = noise(grid, 5)
    rim = (corners.coords == 0).any(1) | (corners.coords == torch.tensor([13, 12, 11])).any(1)
    sdf = torch.where(rim, sdf.abs(), sdf)
    out = flex_surface(grid, sdf, *rest, split=split)
    assert_closed_manifold(out.vertices, out.faces)
    if split == "diagonal":
        ambiguous = torch.tensor(tables().switch)[((sdf < 0)[corners.index] * 2 ** torch.arange(8)).sum(1)]
        assert (ambiguous >= 0).sum() > 100


def places(triangle: torch.Tensor) -> tuple:
    """The corners in turn from the smallest: two triangles of one place and turn compare equal."""
    points = [tuple(point) for point in triangle.tolist()]
    first = points.index(min(points))
    return tuple(points[first:] + points[:first])


def test_missing_voxel_is_an_open_boundary() -> None:
    grid = shape_grid("sphere", 16)

    def extract(kept: SparseGrid):
        return flex_surface(kept, distance("sphere", voxel_corners(kept).positions()), *plain(kept), split="diagonal")

    whole = extract(grid)
    holder = grid.coords[((whole.vertices + 0.5) * 16).floor().int()[7].eq(grid.coords).all(1)]
    rest = extract(grid_of(grid.coords[(grid.coords != holder).any(1)], 16))
    assert borders(rest.faces) > 0
    assert len(rest.vertices) == len(whole.vertices) - 1
    gone = {tuple(v) for v in whole.vertices.tolist()} - {tuple(v) for v in rest.vertices.tolist()}
    assert gone == {tuple(whole.vertices[7].tolist())}
    triangles = {places(at) for at in whole.vertices[whole.faces]}
    left = {places(at) for at in rest.vertices[rest.faces]}
    assert left < triangles
    fan = int((whole.faces == 7).any(1).sum())
    assert fan <= len(triangles - left) <= 2 * fan  # the quads around the vertex go whole


def test_sheet_that_ends_in_space() -> None:
    """A plane through 6 x 5 voxels: a grid of 5 x 4 quads, open all round, facing where the field is positive."""
    grid = box_grid(6, 5, 1)
    sdf = 0.4 / 16 - (voxel_corners(grid).positions()[:, 2] + 0.5)
    out = flex_surface(grid, sdf, *plain(grid), split="diagonal")
    assert len(out.vertices) == 30
    assert len(out.faces) == 40
    assert borders(out.faces) == 18
    at = out.vertices[out.faces]
    assert (torch.linalg.cross(at[:, 1] - at[:, 0], at[:, 2] - at[:, 0])[:, 2] < 0).all()
    assert torch.allclose(out.vertices[:, 2], torch.tensor(0.4 / 16 - 0.5), atol=1e-7)


@pytest.mark.parametrize("count", [0, 1, 2])
def test_too_few_voxels_for_a_face(count: int) -> None:
    grid = box_grid(count, 1, 1)
    inputs = [value.requires_grad_() for value in noise(grid, 1)]
    out = flex_surface(grid, *inputs)
    assert out.vertices.shape == (0, 3)
    assert out.faces.shape == (0, 3)
    assert bool(out.deviation > 0) == (count > 0)
    (out.deviation + out.vertices.sum()).backward()
    assert all(value.grad is not None and torch.isfinite(value.grad).all() for value in inputs)


def test_no_change_of_sign() -> None:
    grid = box_grid(3, 3, 3)
    sdf = torch.full((64,), -1.0, requires_grad=True)
    out = flex_surface(grid, sdf, *plain(grid))
    assert len(out.vertices) == len(out.faces) == 0
    out.deviation.backward()
    assert float(out.deviation.detach()) == 0.0
    assert sdf.grad is not None
    assert not sdf.grad.any()


def test_corner_exactly_on_the_surface() -> None:
    """Zero counts as outside; crossings then lie in corners, and values and gradients stay finite."""
    grid = box_grid(4, 4, 4)
    inputs = [torch.where(voxel_corners(grid).coords[:, 0] < 2, -1.0, 0.0), *plain(grid)]
    inputs = [value.requires_grad_() for value in inputs]
    out = flex_surface(grid, *inputs)
    assert torch.allclose(out.vertices[:, 0], torch.tensor(2 / 16 - 0.5))
    (out.vertices.square().sum() + out.deviation).backward()
    assert all(torch.isfinite(value.grad).all() for value in inputs)


# ---- what each input means ------------------------------------------------------------------------------------------


def test_deformation_in_voxels() -> None:
    grid = shape_grid("sphere", 16)
    sdf, rest = distance("sphere", voxel_corners(grid).positions()), plain(grid)
    still = flex_surface(grid, sdf, *rest).vertices
    moved = flex_surface(grid, sdf, rest[0] + torch.tensor([0.25, -0.5, 0.125]), *rest[1:]).vertices
    assert torch.allclose((moved - still) * 16, torch.tensor([0.25, -0.5, 0.125]).expand_as(still), atol=1e-5)


def test_alpha_beta_gamma_move_what_they_should() -> None:
    grid = box_grid(2, 2, 1)
    z = voxel_corners(grid).positions()[:, 2] + 0.5
    sdf = (z - 0.5 / 16) * 16
    deformation, alpha, beta, gamma = plain(grid)
    beta[0, 8 + 3] = 1e6  # edge z at (1, 1) of voxel (0, 0, 0): the one that all four voxels share
    alpha[3, 1::2] = 3.0  # voxel (1, 1, 0): the upper ends weigh three times, so its crossings sink to a quarter
    gamma[1:3] = 1e-3  # the diagonal of voxels 1 and 2 hardly counts
    out = flex_surface(grid, sdf, deformation, alpha, beta, gamma)
    voxels = (out.vertices + 0.5) * 16
    expected = [[1.0, 1.0, 0.5], [0.5, 1.5, 0.5], [1.5, 0.5, 0.5], [1.5, 1.5, 0.25], [1.25, 1.25, 0.375]]
    assert torch.allclose(voxels, torch.tensor(expected), atol=1e-4)
    halves = flex_surface(grid, sdf, deformation, alpha, beta, gamma, split="diagonal")
    assert all({0, 3} < set(face) for face in halves.faces.tolist())
    gamma = 1 / gamma
    halves = flex_surface(grid, sdf, deformation, alpha, beta, gamma, split="diagonal")
    assert all({1, 2} < set(face) for face in halves.faces.tolist())


def test_deviation_of_a_flat_sheet_is_zero() -> None:
    grid = box_grid(4, 4, 1)
    sdf = voxel_corners(grid).positions()[:, 2] + 0.5 - 0.3 / 16
    deformation, alpha, beta, gamma = plain(grid)
    assert float(flex_surface(grid, sdf, deformation, alpha, beta, gamma).deviation) < 1e-8
    beta[5, 8] = 9.0  # the vertex of one voxel moves to weights 9 : 1 : 1 : 1 of a square's corners
    at = torch.tensor([[0.0, 0.0], [0.0, 1.0], [1.0, 0.0], [1.0, 1.0]])
    lengths = (at - (at * torch.tensor([[9.0], [1.0], [1.0], [1.0]])).sum(0) / 12).norm(dim=1)
    expected = float((lengths - lengths.mean()).abs().sum()) / 64 / 16
    assert float(flex_surface(grid, sdf, deformation, alpha, beta, gamma).deviation) == pytest.approx(
        expected, rel=1e-4
    )


@pytest.mark.parametrize("name", ["sdf", "deformation", "alpha", "beta", "gamma"])
def test_gradients_against_finite_differences(name: str) -> None:
    grid = box_grid(3, 2, 2)
    inputs = noise(grid, 3, torch.float64)
    at = ["sdf", "deformation", "alpha", "beta", "gamma"].index(name)
    weights = torch.rand(200, 3, generator=torch.Generator().manual_seed(0), dtype=torch.float64)

    def measured(value: torch.Tensor) -> torch.Tensor:
        out = flex_surface(grid, *inputs[:at], value, *inputs[at + 1 :])
        return torch.stack([(out.vertices * weights[: len(out.vertices)]).sum(), 16 * out.deviation])

    value = inputs[at].clone().requires_grad_()
    gradient = torch.autograd.grad(measured(value)[0], value)[0]
    assert (gradient != 0).sum() >= (4 if name == "gamma" else 20)
    assert torch.autograd.gradcheck(measured, (value,), eps=1e-6, atol=1e-7, rtol=1e-5)


def test_order_of_the_voxels_and_repeated_runs() -> None:
    grid = box_grid(7, 6, 5)
    inputs = noise(grid, 2)
    shuffled, _ = SparseGrid.build(grid.coords[torch.randperm(len(grid))], 16)
    assert torch.equal(shuffled.coords, grid.coords)
    assert torch.equal(voxel_corners(shuffled).index, voxel_corners(grid).index)
    results = []
    for one in (grid, shuffled, grid):
        values = [value.clone().requires_grad_() for value in inputs]
        out = flex_surface(one, *values)
        (out.vertices.square().sum() + out.deviation).backward()
        results.append([out.vertices, out.faces, out.deviation, *(value.grad for value in values)])
    for other in results[1:]:
        assert all(torch.equal(a, b) for a, b in zip(results[0], other, strict=True))


def test_far_corner_of_the_finest_grid() -> None:
    """2^20 voxels an axis: keys beyond 2^31 stay apart, and a shape there has the places that it has at the origin."""
    finest = 1 << 20
    near = box_grid(4, 4, 4, resolution=finest)
    far = grid_of(near.coords + (finest - 4), finest)
    a, b = voxel_corners(near), voxel_corners(far)
    assert int(b.keys.max()) > 1 << 59
    assert torch.equal(b.coords, a.coords + (finest - 4))
    assert torch.equal(b.positions()[-1], torch.full((3,), 0.5))
    assert torch.equal(b.positions(torch.tensor([7, 2])), b.positions()[[7, 2]])
    inputs = noise(near, 4)
    first, second = flex_surface(near, *inputs), flex_surface(far, *inputs)
    assert len(first.faces) > 50
    assert torch.equal(first.faces, second.faces)
    assert torch.allclose(first.vertices + (1 - 4 / finest), second.vertices, atol=1e-7)


# ---- corners --------------------------------------------------------------------------------------------------------


def random_grid(seed: int) -> SparseGrid:
    pick = torch.randperm(4**3, generator=torch.Generator().manual_seed(seed))[:23]
    return grid_of(torch.stack([pick // 16, pick // 4 % 4, pick % 4], 1), 4)


def test_corner_averages_against_a_loop() -> None:
    grid = random_grid(0)
    corners = voxel_corners(grid)
    predictions = torch.rand(len(grid), 8, 3, generator=torch.Generator().manual_seed(1))
    means, loss = average_corners(predictions, corners)
    said: dict[tuple[int, ...], list[np.ndarray]] = {}
    for row, (x, y, z) in enumerate(grid.coords.tolist()):
        for s, (dx, dy, dz) in enumerate(PLACES):
            said.setdefault((x + dx, y + dy, z + dz), []).append(predictions[row, s].numpy())
    assert len(corners) == len(said)
    for mean, place in zip(means, corners.coords.tolist(), strict=True):
        assert np.allclose(mean, np.mean(said[tuple(place)], axis=0), atol=1e-6)
    squares = [np.square(np.array(values) - np.mean(values, axis=0)).sum() for values in said.values()]
    assert float(loss) == pytest.approx(np.sum(squares) / predictions.numel(), rel=1e-5)
    assert float(average_corners(means[corners.index], corners)[1]) < 1e-12


def test_corner_averages_gradients() -> None:
    grid = random_grid(2)
    predictions = torch.rand(len(grid), 8, 1, dtype=torch.float64, requires_grad=True)
    weights = torch.rand(len(voxel_corners(grid)), 1, dtype=torch.float64)

    def measured(value: torch.Tensor) -> torch.Tensor:
        means, loss = average_corners(value, voxel_corners(grid))
        return torch.stack([(means * weights).sum(), loss])

    assert torch.autograd.gradcheck(measured, (predictions,))


def test_corners_of_nothing() -> None:
    grid = box_grid(0, 1, 1)
    corners = voxel_corners(grid)
    assert len(corners) == 0
    assert corners.index.shape == (0, 8)
    means, loss = average_corners(torch.zeros(0, 8, 4), corners)
    assert means.shape == (0, 4)
    assert float(loss) == 0.0


# ---- refusals and devices -------------------------------------------------------------------------------------------


def test_arguments_that_are_refused() -> None:
    grid = box_grid(2, 2, 2)
    inputs = noise(grid, 0)
    with pytest.raises(BadArgument, match="expected beta"):
        flex_surface(grid, *inputs[:3], inputs[2], inputs[4])
    with pytest.raises(BadArgument, match=r"sdf is torch\.float16"):
        flex_surface(grid, *(value.half() for value in inputs))
    with pytest.raises(BadArgument, match=r"gamma is torch\.float64"):
        flex_surface(grid, *inputs[:4], inputs[4].double())
    with pytest.raises(BadArgument, match="unknown split"):
        flex_surface(grid, *inputs, split="both")
    with pytest.raises(BadArgument, match="unknown backend"):
        flex_surface(grid, *inputs, backend="numpy")
    with pytest.raises(BadArgument, match="batch of 2"):
        voxel_corners(SparseGrid.concatenate([grid, grid]))
    with pytest.raises(BadArgument, match=r"\(8, 8, K\)"):
        average_corners(torch.zeros(8, 4, 3), voxel_corners(grid))


@pytest.mark.gpu
def test_cuda_against_cpu() -> None:
    grid = shape_grid("torus", 96)
    inputs = noise(grid, 7)
    results = []
    for device in ("cpu", "cuda", "cuda"):
        values = [value.to(device).detach().requires_grad_() for value in inputs]
        out = flex_surface(grid.to(device), *values)
        (out.vertices.square().sum() + out.deviation).backward()
        results.append([r.detach().cpu() for r in (out.faces, out.vertices, out.deviation, *(v.grad for v in values))])
    assert torch.equal(results[0][0], results[1][0])
    for host, device, again in zip(*(result[1:] for result in results), strict=True):
        assert torch.allclose(host, device, rtol=1e-3, atol=1e-5 * float(host.abs().max()))
        assert torch.equal(device, again)
