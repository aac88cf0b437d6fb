import math

import numpy as np
import pytest
import torch

from shapecodec.errors import BadArgument
from shapecodec.ops.closest_point import closest_point
from shapecodec.ops.winding_number import inside, winding_number

TWINS = ("reference", "cpu", "triton")
SQUARE = torch.tensor([[0.0, 0, 0], [1, 0, 0], [1, 1, 0], [0, 1, 0]])
TWO = torch.tensor([[0, 1, 2], [0, 2, 3]])
CORNERS = torch.cartesian_prod(*[torch.tensor([-0.5, 0.5])] * 3)
CUBE = torch.tensor(
    [
        [0, 1, 3], [0, 3, 2], [4, 6, 7], [4, 7, 5], [0, 4, 5], [0, 5, 1],
        [2, 3, 7], [2, 7, 6], [0, 2, 6], [0, 6, 4], [1, 5, 7], [1, 7, 3],
    ]
)  # fmt: skip


@pytest.fixture(params=TWINS)
def twin(request):
    if request.param == "triton":
        pytest.importorskip("triton")
    return request.param


def soup(faces: int, seed: int = 0, spread: float = 0.2) -> tuple[torch.Tensor, torch.Tensor]:
    """Unconnected random triangles in the unit cube: every edge is a boundary."""
    generator = torch.Generator().manual_seed(seed)
    corners = torch.rand(faces, 1, 3, generator=generator) + spread * torch.randn(faces, 3, 3, generator=generator)
    return corners.reshape(-1, 3), torch.arange(3 * faces).reshape(-1, 3)


def points(count: int, seed: int = 1) -> torch.Tensor:
    return torch.rand(count, 3, generator=torch.Generator().manual_seed(seed)) * 1.4 - 0.2


def ball(around: int, across: int, holes: int = 0) -> tuple[torch.Tensor, torch.Tensor]:
    """A sphere of radius 1, counter-clockwise outward, without the `holes` rows of faces at its north pole."""
    theta = torch.linspace(0, math.pi, across + 1, dtype=torch.float64)[:, None]
    phi = torch.arange(around, dtype=torch.float64)[None] * (2 * math.pi / around)
    rim = theta.sin()
    vertices = torch.stack([rim * phi.cos(), rim * phi.sin(), theta.cos().expand(-1, around)], -1).reshape(-1, 3)
    row, column = torch.meshgrid(torch.arange(holes, across), torch.arange(around), indexing="ij")
    a, b = row * around + column, row * around + (column + 1) % around
    faces = torch.stack([a, a + around, b, b, a + around, b + around], -1).reshape(-1, 3)
    vertices[:around], vertices[-around:] = vertices[0].clone(), vertices[-1].clone()  # each pole one position
    return vertices.float(), faces


def brute(point: list[float], vertices: torch.Tensor, faces: torch.Tensor) -> float:
    """The solid angles of spherical triangles by L'Huilier's theorem: another formula, one triangle at a time."""
    total = 0.0
    for a, b, c in vertices[faces].double().numpy() - np.asarray(point):
        u, v, w = (k / np.linalg.norm(k) for k in (a, b, c))
        sides = [math.acos(np.clip(p @ q, -1, 1)) for p, q in ((u, v), (v, w), (w, u))]
        half = sum(sides) / 2
        product = math.tan(half / 2) * math.prod(math.tan(max((half - side) / 2, 0.0)) for side in sides)
        total += math.copysign(4 * math.atan(math.sqrt(max(product, 0.0))), np.linalg.det([u, v, w]))
    return total / (4 * math.pi)


def agree(query: torch.Tensor, vertices: torch.Tensor, faces: torch.Tensor) -> None:
    exact = winding_number(query, vertices, faces, backend="reference")
    assert float((winding_number(query, vertices, faces) - exact).abs().max()) < 1e-6


def test_reference_against_another_formula():
    vertices, faces = soup(20)
    query = points(30)
    found = winding_number(query, vertices, faces, backend="reference")
    expected = [brute(point, vertices, faces) for point in query.double().tolist()]
    assert np.allclose(found.numpy(), expected, atol=1e-6)


def test_sphere_is_one_inside_and_nothing_outside(twin):
    vertices, faces = ball(8, 4)
    away = torch.nn.functional.normalize(points(40) - 0.4, dim=1)
    radius = torch.tensor([0.0, 0.4, 0.8, 1.01, 3.0, 1e20])[:, None, None]
    found = winding_number((radius * away).reshape(-1, 3), vertices, faces, backend=twin)
    assert torch.allclose(found.view(6, 40), (radius < 1).float().view(6, 1).expand(6, 40), atol=2e-6)


def test_flipped_mesh_is_inside_all_the_same(twin):
    query = torch.tensor([[0.1, 0.2, -0.3], [0.7, 0.1, 0.0]])
    found = winding_number(query, CORNERS, CUBE.flip(1), backend=twin)
    assert torch.allclose(found, torch.tensor([-1.0, 0.0]), atol=1e-6)
    assert inside(query, CORNERS, CUBE.flip(1), backend=twin).tolist() == [True, False]


def test_double_cover_counts_twice_and_opposite_faces_cancel(twin):
    query = torch.tensor([[0.1, 0.2, -0.3], [0.7, 0.1, 0.0]])
    twice = winding_number(query, CORNERS, torch.cat([CUBE, CUBE]), backend=twin)
    assert torch.allclose(twice, torch.tensor([2.0, 0.0]), atol=1e-6)
    nothing = winding_number(query, CORNERS, torch.cat([CUBE, CUBE.flip(1)]), backend=twin)
    assert torch.allclose(nothing, torch.zeros(2), atol=1e-6)


def test_open_sheet_has_no_inside(twin):
    query = torch.tensor([[0.5, 0.4, 0.003], [0.5, 0.4, -0.003], [0.5, 0.5, 0.5]])
    found = winding_number(query, SQUARE, TWO, backend=twin)
    assert float(found[0]) < -0.49 and float(found[1]) > 0.49  # nearly half, on the side that the normal leaves
    assert abs(float(found[2]) + 1 / 6) < 1e-6  # a face of a cube, seen from its centre
    assert not inside(query, SQUARE, TWO, backend=twin).any()


def test_missing_lid_leaves_most_of_a_box_inside(twin):
    query = torch.tensor([[0.0, 0.0, 0.0], [0.0, 0.0, 0.45], [0.0, 0.0, 0.55]])
    lid = (CORNERS[CUBE][..., 2] == 0.5).all(1)
    found = winding_number(query, CORNERS, CUBE[~lid], backend=twin)
    assert abs(float(found[0]) - 5 / 6) < 1e-6 and 0.5 < float(found[1]) < 0.6 and 0.4 < float(found[2]) < 0.5
    assert inside(query, CORNERS, CUBE[~lid], backend=twin).tolist() == [True, True, False]


def test_points_on_a_face_an_edge_and_a_corner(twin):
    query = torch.tensor([[0.5, 0.25, 0.125], [0.25, 0.5, 0.0], [0.5, -0.5, 0.125], [-0.5, 0.25, 0.5], [0.5, 0.5, 0.5]])
    found = winding_number(query, CORNERS, CUBE, backend=twin)
    assert torch.allclose(found, torch.tensor([0.5, 0.5, 0.25, 0.25, 0.125]), atol=1e-6)
    diagonal = torch.tensor([[0.5, 0.5, 0.0], [0.25, 0.25, 0.0], [1.0, 0.0, 0.0], [0.5, 0.0, 0.0]])
    assert float(winding_number(diagonal, SQUARE, TWO, backend=twin).abs().max()) < 1e-6


def test_degenerate_faces_add_nothing(twin):
    vertices = torch.cat([CORNERS, torch.tensor([[0.1, 0.0, 0.0], [0.3, 0.0, 0.0], [0.2, 0.0, 0.0]])])
    faces = torch.cat([CUBE, torch.tensor([[8, 9, 10], [8, 8, 9], [9, 9, 9], [0, 7, 7]])])
    query = torch.cat([vertices[8:], torch.tensor([[0.15, 0.0, 0.0], [0.15, 0.0, 0.2], [0.15, 0.0, -0.2]])])
    assert torch.allclose(winding_number(query, vertices, faces, backend=twin), torch.ones(6), atol=1e-6)


def test_split_vertices_open_nothing():
    vertices, faces = ball(8, 4)
    apart = vertices[faces].reshape(-1, 3)
    query = points(500) * 2 - 1
    exact = winding_number(query, vertices, faces, backend="reference")
    found = winding_number(query, apart, torch.arange(len(apart)).reshape(-1, 3))
    assert torch.equal(found, found.round()) and torch.allclose(found, exact, atol=1e-6)


@pytest.mark.parametrize("faces", [1, 7, 8, 9, 64, 65, 300])
@pytest.mark.parametrize("axis", [0, 1, 2])
def test_soup_at_sizes_around_the_trees_width(faces: int, axis: int):
    vertices, corners = soup(faces, seed=faces)
    vertices[:, axis] *= 0.5  # the ray runs along this side
    agree(points(257), vertices, corners)


@pytest.mark.parametrize("keep", [1.0, 0.97, 0.5])
def test_rays_through_edges_and_vertices(keep: float):
    """Points and vertices on one grid: most rays meet edges and vertices, walls edge on, and many points lie on faces."""
    axis = torch.arange(5) / 4 - 0.5
    grid = torch.cartesian_prod(axis, axis, axis)
    number = torch.arange(125).view(5, 5, 5)
    solid = torch.rand(4, 4, 4, generator=torch.Generator().manual_seed(5)) < 0.5
    cells = torch.stack([number[x : x + 4, y : y + 4, z : z + 4] for x in (0, 1) for y in (0, 1) for z in (0, 1)], -1)
    faces = cells[solid][:, CUBE].reshape(-1, 3)  # boxes that share faces, edges and corners
    kept = torch.rand(len(faces), generator=torch.Generator().manual_seed(6)) <= keep
    fine = torch.arange(-5, 6) / 8
    query = torch.cartesian_prod(fine, fine, fine)
    agree(query, grid, faces[kept])
    agree(query + torch.tensor([0.0, 0.0, 2.0**-20]), grid, faces[kept])


def test_rays_through_needles_and_huge_faces():
    vertices, faces = soup(120)
    vertices[faces[:40, 2]] = vertices[faces[:40, 0]] + 1e-5 * torch.randn(40, 3)
    vertices[faces[40:60, 2], :2] = vertices[faces[40:60, 0], :2]  # edges along the ray
    vertices[faces[::10]] *= 30
    agree(torch.cat([points(600), vertices[faces].mean(1)]), vertices, faces)


def test_non_manifold_and_differently_turned_faces():
    vertices, faces = ball(10, 6)
    generator = torch.Generator().manual_seed(2)
    turned = torch.rand(len(faces), generator=generator) < 0.3
    faces = torch.where(turned[:, None], faces.flip(1), faces)
    fins = torch.randint(len(vertices), (20, 3), generator=generator)
    agree(points(600) * 2 - 0.8, vertices, torch.cat([faces, fins, faces[:5]]))


@pytest.mark.parametrize("scale", [1e-25, 1e-6, 1e6, 1e30])
def test_scale_changes_nothing(scale: float, twin):
    vertices, faces = soup(12)
    query = points(60)
    plain = winding_number(query, vertices, faces, backend="reference")
    assert torch.allclose(winding_number(query * scale, vertices * scale, faces, backend=twin), plain, atol=5e-6)


def test_far_points_see_nothing(twin):
    vertices, faces = soup(30)
    away = torch.nn.functional.normalize(points(64) - 0.5, dim=1)
    away[0] = torch.tensor([0.0, 0.0, 1.0])
    for distance in (1e4, 1e9, 1e30):
        assert float(winding_number(away * distance, vertices, faces, backend=twin).abs().max()) < 1e-6


def test_vertices_and_edges_as_queries():
    vertices, faces = ball(9, 5, holes=1)
    middles = vertices[faces].double()
    middles = torch.cat([(middles[:, 0] + middles[:, 1]) / 2, (middles[:, 1] + middles[:, 2]) / 2]).float()
    agree(vertices, vertices, faces)
    # The middle of an edge, rounded, lies beside it: between the two faces there, w is anything between their sides.
    exact = winding_number(middles, vertices, faces, backend="reference")
    found = winding_number(middles, vertices, faces)
    assert float((found - exact).abs().max()) < 1e-6


def test_threads_change_nothing():
    vertices, faces = soup(40)
    query, threads = points(3000), torch.get_num_threads()
    try:
        torch.set_num_threads(1)
        one = winding_number(query, vertices, faces)
        torch.set_num_threads(3)
        assert torch.equal(winding_number(query, vertices, faces), one)
    finally:
        torch.set_num_threads(threads)


@pytest.mark.parametrize("faces", [1, 32, 70])
def test_triton_interpreted_against_reference(faces: int, monkeypatch: pytest.MonkeyPatch):
    pytest.importorskip("triton")
    from shapecodec.ops.winding_number import triton as path

    monkeypatch.setattr(path, "LEAST", 32)  # so that 70 triangles are three pieces
    vertices, corners = soup(faces, seed=faces)
    vertices[corners[::7, 1]] = vertices[corners[::7, 0]]
    vertices[corners[::5, 2]] *= 5.0
    query = torch.cat([points(515), vertices[:20]])
    exact, fast = (winding_number(query, vertices, corners, backend=name) for name in ("reference", "triton"))
    assert float((exact - fast).abs().max()) < 1e-4


def test_no_points_and_no_faces(twin):
    assert winding_number(torch.zeros(0, 3), SQUARE, TWO, backend=twin).shape == (0,)
    assert winding_number(torch.zeros(2, 3), SQUARE, TWO[:0], backend=twin).tolist() == [0.0, 0.0]
    assert inside(torch.zeros(0, 3), SQUARE, TWO, backend=twin).dtype == torch.bool


@pytest.mark.parametrize(
    ("query", "vertices", "faces"),
    [
        (torch.zeros(3), SQUARE, TWO),
        (torch.zeros(1, 3), SQUARE, TWO.int()),
        (torch.zeros(1, 3), SQUARE, TWO + 1),
        (torch.full((1, 3), float("nan")), SQUARE, TWO),
        (torch.zeros(1, 3), SQUARE[:, :2], TWO),
    ],
)
def test_bad_arguments_are_named(query: torch.Tensor, vertices: torch.Tensor, faces: torch.Tensor):
    with pytest.raises(BadArgument, match="winding_number"):
        winding_number(query, vertices, faces)


def test_unknown_backend():
    with pytest.raises(BadArgument, match="unknown backend"):
        winding_number(torch.zeros(1, 3), SQUARE, TWO, backend="magic")


@pytest.mark.gpu
@pytest.mark.parametrize(("around", "across", "holes"), [(4, 2, 0), (100, 51, 3), (500, 300, 0), (500, 300, 40)])
def test_triton_against_cpu_path(device: str, around: int, across: int, holes: int):
    vertices, faces = ball(around, across, holes)
    query = torch.cat([points(40_000) * 2 - 0.8, vertices[:5000] * 1.002])
    slow = winding_number(query, vertices, faces, backend="cpu")
    on_device = (query.to(device), vertices.to(device), faces.to(device))
    fast = winding_number(*on_device, backend="triton")
    longest = float((vertices[faces] - vertices[faces].roll(1, 1)).norm(dim=2).max())
    clear = closest_point(query, vertices, faces).distance > 0.004 * longest  # float32 loses digits beside edges
    assert float(clear.float().mean()) > 0.98
    assert float((slow - fast.cpu()).abs()[clear].max()) < 1e-4
    settled = (slow.abs() - 0.5).abs() > 1e-3
    assert torch.equal(inside(*on_device).cpu()[clear & settled], (slow.abs() > 0.5)[clear & settled])
    assert torch.equal(fast, winding_number(*on_device, backend="triton"))
