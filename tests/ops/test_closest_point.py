from importlib.util import find_spec

import numba
import pytest
import torch

from shapecodec.errors import BadArgument
from shapecodec.ops.closest_point import closest_point
from shapecodec.ops.nearest_point import nearest_point

SQUARE = torch.tensor([[0.0, 0, 0], [1, 0, 0], [1, 1, 0], [0, 1, 0]])
TWO = torch.tensor([[0, 1, 2], [0, 2, 3]])


def soup(faces: int, seed: int = 0, spread: float = 0.05) -> tuple[torch.Tensor, torch.Tensor]:
    """Small random triangles in the unit cube."""
    generator = torch.Generator().manual_seed(seed)
    centres = torch.rand(faces, 1, 3, generator=generator)
    corners = centres + spread * torch.randn(faces, 3, 3, generator=generator)
    return corners.reshape(-1, 3), torch.arange(3 * faces).reshape(-1, 3)


def points(count: int, seed: int = 1) -> torch.Tensor:
    return torch.rand(count, 3, generator=torch.Generator().manual_seed(seed)) * 1.4 - 0.2


def agree(query: torch.Tensor, vertices: torch.Tensor, faces: torch.Tensor, tolerance: float = 2e-7) -> None:
    """The fast path against the specification: distances equal, the point as far away as it says and on the mesh."""
    exact, fast = closest_point(query, vertices, faces, backend="reference"), closest_point(query, vertices, faces)
    scale = float(vertices.abs().max())
    assert float((exact.distance - fast.distance).abs().max()) <= tolerance * max(scale, float(exact.distance.max()))
    again = (query.double() - fast.point.double()).norm(dim=1)
    assert float((again - fast.distance.double()).abs().max()) <= 4e-7 * max(scale, float(again.max()))
    own = closest_point(fast.point, vertices, faces, backend="reference").distance
    assert float(own.max()) <= 1e-6 * scale


def test_reference_against_dense_barycentric_samples():
    vertices, faces = soup(5, spread=0.4)
    steps = torch.arange(201) / 200
    u, v = torch.meshgrid(steps, steps, indexing="ij")
    keep = u + v <= 1 + 1e-6
    weights = torch.stack([1 - u[keep] - v[keep], u[keep], v[keep]], 1)
    dense = torch.einsum("nk,fkc->fnc", weights, vertices[faces]).reshape(-1, 3)
    query = points(40)
    exact = closest_point(query, vertices, faces, backend="reference").distance
    sampled = torch.cdist(query, dense).min(1).values
    assert bool((sampled >= exact - 1e-6).all()) and bool((sampled <= exact + 0.01).all())


@pytest.mark.parametrize("faces", [1, 7, 8, 9, 64, 65, 511, 600])
def test_sizes_around_the_trees_width(faces: int):
    agree(points(257), *soup(faces))


def test_no_queries():
    found = closest_point(torch.zeros(0, 3), SQUARE, TWO)
    assert found.distance.shape == (0,) and found.face.shape == (0,) and found.point.shape == (0, 3)


def test_inside_edge_and_corner_of_one_triangle():
    query = torch.tensor([[0.7, 0.2, 2.0], [0.5, -3.0, 0.0], [2.0, -1.0, 0.0], [0.2, 0.7, 0.0]])
    found = closest_point(query, SQUARE, TWO[:1])
    expected = torch.tensor([[0.7, 0.2, 0], [0.5, 0, 0], [1, 0, 0], [0.45, 0.45, 0]])
    assert torch.allclose(found.point, expected, atol=1e-7)
    assert torch.allclose(found.distance, torch.tensor([2.0, 3.0, 2**0.5, 0.5**0.5 * 0.5]), atol=1e-6)


def test_needles_segments_and_points_among_the_faces():
    generator = torch.Generator().manual_seed(3)
    vertices = torch.rand(90, 3, generator=generator)
    faces = torch.arange(90).reshape(-1, 3)
    vertices[faces[:10, 2]] = vertices[faces[:10, 0]] + 1e-5 * torch.randn(10, 3, generator=generator)
    vertices[faces[10:20, 2]] = 0.3 * vertices[faces[10:20, 0]] + 0.7 * vertices[faces[10:20, 1]]
    vertices[faces[20:25, 1]] = vertices[faces[20:25, 0]]
    vertices[faces[20:25, 2]] = vertices[faces[20:25, 0]]
    agree(points(2000), vertices, faces, 5e-7)
    for part in (faces[:10], faces[10:20], faces[20:25]):
        agree(points(500), vertices, part, 5e-7)


def test_huge_triangles_among_small_ones():
    vertices, faces = soup(500, spread=0.003)
    vertices[faces[::100]] *= 40
    agree(points(800), vertices, faces, 5e-7)


@pytest.mark.parametrize("scale", [1e-25, 1e-6, 1.0, 1e6, 1e30])
@pytest.mark.parametrize("shift", [0.0, 100.0])
def test_scales_and_offsets(scale: float, shift: float):
    vertices, faces = soup(100)
    agree((points(200) + shift) * scale, (vertices + shift) * scale, faces)


@pytest.mark.parametrize("away", [1e3, 1e9, 1e30])
def test_far_points(away: float):
    vertices, faces = soup(100)
    query = torch.nn.functional.normalize(points(64) - 0.5, dim=1) * away
    agree(query, vertices, faces)


def test_points_on_the_surface_have_distance_zero():
    vertices, faces = soup(300)
    assert float(closest_point(vertices, vertices, faces).distance.max()) == 0.0
    centroids = vertices[faces].mean(1)
    assert float(closest_point(centroids, vertices, faces).distance.max()) < 2e-7


@pytest.mark.parametrize("away", [0.0, 1e-3, 0.3])
def test_packets_of_queries_miss_a_group(away: float):
    """Neighbouring queries share the groups that they look at: enough of them to fill packets, near and far."""
    vertices, faces = soup(700, spread=0.02)
    generator = torch.Generator().manual_seed(4)
    centres = vertices[faces[::60]].mean(1)
    query = (centres[:, None] + 0.01 * torch.randn(len(centres), 40, 3, generator=generator)).reshape(-1, 3) + away
    agree(query, vertices, faces)
    exact = nearest_point(query, vertices, backend="reference")[0]
    assert torch.allclose(nearest_point(query, vertices)[0], exact, rtol=1e-6, atol=1e-9)


def test_other_queries_in_the_call_change_which_face_wins():
    """Points nearest to an edge or a vertex are equally near to all its faces."""
    vertices, faces = soup(300)
    faces = torch.cat([faces, faces.roll(1, 1)])[torch.randperm(600, generator=torch.Generator().manual_seed(5))]
    query = torch.cat([vertices[:400], vertices[faces[:100, 0]] + 0.02, points(500)])
    other = points(3000, seed=6)
    for backend in ("cpu", "triton") if find_spec("triton") else ("cpu",):
        few = slice(None) if backend == "cpu" else slice(None, None, 20)
        alone = closest_point(query[few], vertices, faces, backend=backend)
        among = closest_point(torch.cat([other[few], query[few]]), vertices, faces, backend=backend)
        for one, two in zip(alone, among, strict=True):
            assert torch.equal(one, two[len(other[few]) :])
    assert torch.equal(nearest_point(query, vertices)[1], nearest_point(torch.cat([other, query]), vertices)[1][3000:])


def test_result_does_not_depend_on_threads():
    vertices, faces = soup(400)
    query, threads = points(3000), numba.get_num_threads()
    many = closest_point(query, vertices, faces)
    try:
        numba.set_num_threads(1)
        one = closest_point(query, vertices, faces)
    finally:
        numba.set_num_threads(threads)
    assert all(torch.equal(a, b) for a, b in zip(many, one, strict=True))


@pytest.mark.parametrize(
    ("query", "vertices", "faces"),
    [
        (torch.zeros(3), SQUARE, TWO),
        (torch.zeros(1, 3), SQUARE, TWO.int()),
        (torch.zeros(1, 3), SQUARE, TWO[:0]),
        (torch.zeros(1, 3), SQUARE, TWO + 1),
        (torch.full((1, 3), float("nan")), SQUARE, TWO),
    ],
)
def test_bad_arguments_are_named(query: torch.Tensor, vertices: torch.Tensor, faces: torch.Tensor):
    with pytest.raises(BadArgument, match="closest_point"):
        closest_point(query, vertices, faces)


def test_unknown_backend():
    with pytest.raises(BadArgument, match="unknown backend"):
        closest_point(torch.zeros(1, 3), SQUARE, TWO, backend="magic")


@pytest.mark.parametrize("faces", [1, 8, 9, 65, 130])
def test_triton_interpreted_against_reference(faces: int):
    pytest.importorskip("triton")
    vertices, corners = soup(faces)
    vertices[corners[::7, 1]] = vertices[corners[::7, 0]]
    vertices[corners[::5, 2]] *= 20.0
    query = torch.cat([points(33), 1e9 * points(2), vertices[:1]])
    exact, fast = (closest_point(query, vertices, corners, backend=name) for name in ("reference", "triton"))
    assert torch.allclose(exact.distance, fast.distance, rtol=3e-7, atol=5e-7)
    distance, row = nearest_point(query, vertices, backend="triton")
    assert torch.allclose(distance, nearest_point(query, vertices, backend="reference")[0], rtol=3e-7, atol=5e-7)
    assert torch.allclose((query.double() - vertices[row].double()).norm(dim=1).float(), distance, rtol=1e-6)


@pytest.mark.gpu
@pytest.mark.parametrize(("faces", "spread"), [(1, 0.1), (1000, 0.05), (300_000, 0.002)])
def test_triton_against_cpu_path(device: str, faces: int, spread: float):
    vertices, corners = soup(faces, spread=spread)
    vertices[corners[::1000, 1]] *= 5.0
    query = torch.cat([points(300_001), points(100) * 1e6, vertices[:1000]])
    slow = closest_point(query, vertices, corners, backend="cpu")
    fast = closest_point(query.to(device), vertices.to(device), corners.to(device), backend="triton")
    assert torch.allclose(slow.distance, fast.distance.cpu(), rtol=3e-7, atol=1e-6)
    again = closest_point(query.to(device), vertices.to(device), corners.to(device), backend="triton")
    assert all(torch.equal(one, two) for one, two in zip(fast, again, strict=True))
    near = nearest_point(query.to(device), vertices.to(device))[0].cpu()
    assert torch.allclose(near, nearest_point(query, vertices)[0], rtol=3e-7, atol=1e-6)


@pytest.mark.parametrize("targets", [1, 8, 9, 700])
@pytest.mark.parametrize("scale", [1e-25, 1.0, 1e30])
def test_nearest_point_against_brute_force(targets: int, scale: float):
    query, cloud = points(300) * scale, points(targets, seed=2) * scale
    distance, row = nearest_point(query, cloud)
    exact, _ = nearest_point(query, cloud, backend="reference")
    assert torch.allclose(distance, exact, rtol=1e-6, atol=0)
    assert torch.allclose((query.double() - cloud[row].double()).norm(dim=1).float(), distance, rtol=1e-6, atol=0)


def test_nearest_point_edges():
    distance, row = nearest_point(torch.zeros(0, 3), SQUARE)
    assert len(distance) == len(row) == 0
    with pytest.raises(BadArgument, match="no targets"):
        nearest_point(SQUARE, torch.zeros(0, 3))
