import numba
import numpy as np
import pytest
import torch

from shapecodec.errors import BadArgument
from shapecodec.ops.self_intersections import self_intersections, to_lattice
from shapecodec.ops.self_intersections.exact import side

FLAT = torch.tensor([[0.0, 0, 0], [4, 0, 0], [0, 4, 0]])


def both(vertices: torch.Tensor, faces: torch.Tensor) -> int:
    """The number of pairs, the same by both backends."""
    one, two = (self_intersections(vertices, faces, backend=backend) for backend in ("reference", "cpu"))
    assert one.pairs == two.pairs and torch.equal(one.faces, two.faces)
    return two.pairs


def pair(*corners: list[float]) -> int:
    """Whether a triangle meets the flat one above."""
    vertices = torch.cat([FLAT, torch.tensor(corners)])
    pairs = {both(vertices, torch.tensor([[0, 1, 2], face])) for face in ([3, 4, 5], [4, 3, 5], [5, 4, 3])}
    assert len(pairs) == 1
    return pairs.pop()


def grid(steps: int, seed: int = 0, noise: float = 0.0) -> tuple[torch.Tensor, torch.Tensor]:
    """A square sheet of 2 * steps^2 welded faces, its vertices moved at random."""
    line = torch.linspace(0, 1, steps + 1)
    x, y = torch.meshgrid(line, line, indexing="ij")
    i, j = torch.meshgrid(torch.arange(steps), torch.arange(steps), indexing="ij")
    a = (i * (steps + 1) + j).flatten()
    b, c, d = a + steps + 1, a + steps + 2, a + 1
    vertices = torch.stack([x, y, 0.1 * torch.sin(5 * x)], -1).reshape(-1, 3)
    vertices += noise * torch.randn(vertices.shape, generator=torch.Generator().manual_seed(seed))
    return vertices, torch.cat([torch.stack([a, b, c], 1), torch.stack([a, c, d], 1)])


@pytest.mark.parametrize(
    ("corners", "met"),
    [
        ([[1, 1, -1], [1, 1, 1], [2, 1, 1]], 1),  # an edge passes through the inside
        ([[1, 1, 1], [1, 1, 2], [2, 1, 1]], 0),  # above
        ([[5, 5, -1], [5, 5, 1], [6, 5, 1]], 0),  # crosses the plane beside it
        ([[1, 1, 0], [1, 1, 1], [2, 1, 1]], 1),  # a corner touches the inside
        ([[2, 0, 0], [2, -1, 1], [2, -2, 1]], 1),  # a corner touches an edge
        ([[-1, 0, -1], [-1, 0, 1], [5, 0, 0]], 1),  # its inside touches an edge
        ([[1, 1, 0], [2, 1, 0], [1, 2, 0]], 1),  # lies within, in one plane
        ([[-9, -9, 0], [30, -9, 0], [-9, 30, 0]], 1),  # lies around
        ([[3, 3, 0], [4, 4, 0], [4, 3, 0]], 0),  # in one plane, beside
        ([[4, 0, 0], [8, 0, 0], [8, 1, 0]], 0),  # one common corner
        ([[4, 0, 0], [0, 1, 1], [0, 1, -1]], 1),  # one common corner, passes through
        ([[4, 0, 0], [1, 1, 0], [9, 9, 0]], 1),  # one common corner, overlaps in one plane
        ([[4, 0, 0], [2, 0, 0], [3, -1, 1]], 1),  # one common corner, and an edge along an edge
        ([[4, 0, 0], [0, 4, 0], [4, 4, 0]], 0),  # neighbours across an edge, flat
        ([[4, 0, 0], [0, 4, 0], [1, 1, 1]], 0),  # neighbours, at an angle
        ([[4, 0, 0], [0, 4, 0], [1, 1, 0]], 1),  # neighbours, folded onto each other
        ([[0, 0, 0], [4, 0, 0], [0, 4, 0]], 1),  # the same again
        ([[1, 1, -1], [1, 1, 1], [1, 1, 0]], 0),  # has no area
    ],
)
def test_how_two_triangles_meet(corners: list, met: int):
    assert pair(*corners) == met


def test_backends_differ_on_random_soups_of_many_ties():
    generator = torch.Generator().manual_seed(0)
    found = 0
    for side_length in (3, 4, 6, 12, 1000):
        for flat in (False, True):
            vertices = torch.randint(0, side_length, (12, 3), generator=generator).float()
            vertices[:, 2] = vertices[:, 2] % 2 if flat else vertices[:, 2]
            found += both(vertices, torch.randint(0, 12, (24, 3), generator=generator))
    assert found > 200


@pytest.mark.parametrize("steps", [1, 2, 5, 7])
def test_sizes_around_a_leaf(steps: int):
    assert both(*grid(steps)) == 0
    both(*grid(steps, noise=0.3 / steps))


def test_walk_misses_pairs_of_a_larger_mesh():
    vertices, faces = grid(40)
    assert self_intersections(vertices, faces).pairs == 0
    upright = torch.stack([vertices[:, 0], torch.full((len(vertices),), 0.4567), vertices[:, 1] - 0.45], 1)
    found = self_intersections(torch.cat([vertices, upright]), torch.cat([faces, faces + len(vertices)]))
    # the second sheet crosses one row of squares: at each of 40, two faces of either sheet, and their neighbours
    assert 40 * 2 < found.pairs < 40 * 8
    rows = found.faces.nonzero().squeeze(1)
    assert bool((rows < len(faces)).any()) and bool((rows >= len(faces)).any())


def test_split_vertices_meet_their_neighbours():
    vertices, faces = grid(6)
    assert both(vertices[faces].reshape(-1, 3), torch.arange(3 * len(faces)).reshape(-1, 3)) == 0


def test_order_units_and_threads_show():
    vertices, faces = grid(24, noise=0.02)
    expected, generator = self_intersections(vertices, faces), torch.Generator().manual_seed(1)
    order = torch.randperm(len(faces), generator=generator)
    shuffled = self_intersections(vertices, faces[order].roll(1, 1))
    assert expected.pairs == shuffled.pairs > 50 and torch.equal(shuffled.faces, expected.faces[order])
    assert self_intersections(vertices * 2.0**-40, faces).pairs == expected.pairs
    threads = numba.get_num_threads()
    try:
        numba.set_num_threads(1)
        assert self_intersections(vertices, faces).pairs == expected.pairs
    finally:
        numba.set_num_threads(threads)


def test_volumes_are_rounded():
    """Signs of volumes of 90 bits against Python's integers, at the corners of the lattice and one step beside."""
    generator = np.random.default_rng(0)
    top = 2**30 - 1
    lattice = np.where(generator.random((4000, 3)) < 0.5, 0, top)
    lattice = np.clip(lattice + generator.integers(-1, 2, lattice.shape), 0, top).astype(np.int32)
    lattice[::7] = generator.integers(0, top, lattice[::7].shape)
    zeros = 0
    for row in range(0, 4000, 4):
        a, b, c, d = (lattice[row + k].astype(object) for k in range(4))
        u, v, w = b - a, c - a, d - a
        volume = np.dot(np.array([u[1] * v[2] - u[2] * v[1], u[2] * v[0] - u[0] * v[2], u[0] * v[1] - u[1] * v[0]]), w)
        expected = int(volume > 0) - int(volume < 0)
        assert side(lattice, row, row + 1, row + 2, row + 3) == expected
        zeros += expected == 0
    assert 0 < zeros < 900


def test_unused_vertex_far_away_coarsens_the_lattice():
    vertices, faces = grid(3)
    far = torch.cat([vertices, torch.tensor([[1e30, 0.0, 0.0]])])
    assert torch.equal(to_lattice(far, faces)[:-1], to_lattice(vertices, faces))


def test_open3d_counts_other_pairs():
    """Open3D leaves out pairs that share a vertex; two closed tori without a common vertex have no such pairs."""
    open3d = pytest.importorskip("open3d", reason="the bench extra has it")
    import trimesh

    torus = trimesh.creation.torus(1.0, 0.4, major_sections=24, minor_sections=12)
    vertices = np.concatenate([torus.vertices, torus.vertices[:, [2, 0, 1]] + [0.31, 0.17, 0.05]])
    faces = np.concatenate([torus.faces, torus.faces + len(torus.vertices)])
    other = open3d.geometry.TriangleMesh(
        open3d.utility.Vector3dVector(vertices.astype(np.float32)), open3d.utility.Vector3iVector(faces)
    )
    pairs = np.asarray(other.get_self_intersecting_triangles())
    found = self_intersections(torch.from_numpy(vertices).float(), torch.from_numpy(np.ascontiguousarray(faces)).long())
    assert found.pairs == len(pairs) > 100
    assert sorted(found.faces.nonzero().squeeze(1).tolist()) == np.unique(pairs).tolist()


def test_empty_and_bad_input():
    assert self_intersections(FLAT, torch.zeros(0, 3, dtype=torch.int64)).pairs == 0
    assert self_intersections(FLAT, torch.tensor([[0, 1, 2]])).faces.tolist() == [False]
    assert self_intersections(FLAT * 0, torch.tensor([[0, 1, 2], [2, 1, 0]])).pairs == 0
    for vertices, faces in (
        (FLAT, torch.tensor([[0, 1, 3]])),
        (FLAT, torch.tensor([[0, 1, 2]], dtype=torch.int32)),
        (FLAT * float("nan"), torch.tensor([[0, 1, 2]])),
        (FLAT[:, :2], torch.tensor([[0, 1, 2]])),
    ):
        with pytest.raises(BadArgument):
            self_intersections(vertices, faces)
