"""Farthest points: the reference against brute force, every backend against the reference, row for row."""

import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st

from shapecodec.errors import BadArgument
from shapecodec.ops.farthest_points import farthest_points

BACKENDS = ["reference", "cpu", "triton"]


def cloud(items: int, size: int, kind: str = "sphere", device: str = "cpu") -> torch.Tensor:
    draw = torch.Generator().manual_seed(items * 1000 + size)
    points = torch.randn(items, size, 3, generator=draw)
    if kind == "sphere":
        points = torch.nn.functional.normalize(points, dim=2)
    elif kind == "lattice":  # equal distances everywhere
        points = (points * 2).round()
    elif kind == "copies":  # a tenth of the points, ten times
        points = points[:, torch.randperm(size, generator=draw) % max(size // 10, 1)]
    elif kind == "line":
        points = points * torch.tensor([1.0, 0.0, 0.0])
    elif kind == "far":  # squares overflow to inf and vanish to 0
        points = points * torch.tensor([1e-30, 1.0, 1e25])[torch.arange(size) % 3, None]
    return points.contiguous().to(device)


def brute_force(points: torch.Tensor, count: int, start: int) -> list[int]:
    """One item (N, 3): all distances to all picks at every step, in float64."""
    picks, wide = [start], points.double()
    while len(picks) < count:
        least = torch.cdist(wide, wide[picks], compute_mode="donot_use_mm_for_euclid_dist").amin(1)
        least[picks] = -1.0
        picks.append(int(torch.nonzero(least == least.max())[0]))
    return picks


@pytest.mark.parametrize("kind", ["sphere", "lattice", "copies", "line"])
def test_reference_against_all_distances(kind):
    points, start = cloud(3, 90, kind), torch.tensor([0, 41, 89])
    found = farthest_points(points, 90, start=start, backend="reference")
    assert found.tolist() == [brute_force(item, 90, int(s)) for item, s in zip(points, start, strict=True)]


@pytest.mark.parametrize("kind", ["sphere", "lattice", "copies", "line", "far"])
@pytest.mark.parametrize(("items", "size", "count"), [(1, 1, 1), (3, 2, 2), (1, 64, 64), (4, 65, 30), (2, 1500, 700)])
def test_cpu_picks_other_rows_than_the_reference(kind, items, size, count):
    points = cloud(items, size, kind)
    start = torch.arange(items) * 7 % size
    want = farthest_points(points, count, start=start, backend="reference")
    assert torch.equal(farthest_points(points, count, start=start, backend="cpu"), want)


@settings(max_examples=30, deadline=None)
@given(st.data())
def test_cpu_ties_on_small_lattices(data):
    corner = st.sampled_from([-1.5, -0.1, 0.0, 0.1, 1.0])
    rows = data.draw(st.lists(st.tuples(corner, corner, corner), min_size=1, max_size=200))
    points = torch.tensor([rows])
    start = torch.tensor([data.draw(st.integers(0, len(rows) - 1))])
    want = farthest_points(points, len(rows), start=start, backend="reference")
    assert torch.equal(farthest_points(points, len(rows), start=start, backend="cpu"), want)


@pytest.mark.filterwarnings("ignore:overflow encountered:RuntimeWarning")  # Triton's interpreter; meant, in "far"
@pytest.mark.parametrize("kind", ["sphere", "copies", "far"])
@pytest.mark.parametrize(("items", "size", "count"), [(1, 1, 1), (2, 2, 2), (1, 131, 12), (1, 600, 5)])
@pytest.mark.parametrize("resident", [16384, 0])
def test_kernels_pick_other_rows_than_the_reference(kind, items, size, count, resident):
    from shapecodec.ops.farthest_points.triton import farthest_points as run

    device = "cuda" if torch.cuda.is_available() else "cpu"
    points = cloud(items, size, kind, device)
    start = torch.arange(items, device=device) * 7 % size
    want = farthest_points(points, count, start=start, backend="reference")
    assert torch.equal(run(points, start, count, resident=resident, warps=4), want)


@pytest.mark.parametrize("backend", BACKENDS)
def test_a_prefix_is_the_shorter_order_and_its_own(backend):
    points = cloud(2, 600)
    long = farthest_points(points, 9, backend=backend)
    assert torch.equal(farthest_points(points, 5, backend=backend), long[:, :5])
    chosen = points.gather(1, long[..., None].expand(-1, -1, 3))
    assert torch.equal(farthest_points(chosen, 5, backend=backend), torch.arange(5).expand(2, -1))


@pytest.mark.parametrize("backend", BACKENDS)
def test_rows_come_twice_where_all_points_coincide(backend):
    points = torch.full((1, 9, 3), 0.3)
    found = farthest_points(points, 9, start=torch.tensor([4]), backend=backend)
    assert found.tolist() == [[4, 0, 1, 2, 3, 5, 6, 7, 8]]


@pytest.mark.parametrize("backend", BACKENDS)
def test_of_equally_far_corners_the_lowest_row(backend):
    corners = torch.cartesian_prod(*[torch.tensor([0.0, 1.0])] * 3)[None]
    assert farthest_points(corners, 8, backend=backend).tolist() == [[0, 7, 1, 2, 3, 4, 5, 6]]


def test_no_items():
    assert farthest_points(torch.zeros(0, 5, 3), 2).shape == (0, 2)


def test_strided_points_and_points_with_gradients():
    points = cloud(2, 50).transpose(0, 1).contiguous().transpose(0, 1).requires_grad_()
    assert torch.equal(farthest_points(points, 9), farthest_points(points.detach().clone(), 9, backend="reference"))


@pytest.mark.parametrize(
    ("points", "count", "start"),
    [
        (torch.zeros(5, 3), 1, None),
        (torch.zeros(1, 5, 2), 1, None),
        (torch.zeros(1, 5, 3).double(), 1, None),
        (torch.zeros(1, 5, 3), 0, None),
        (torch.zeros(1, 5, 3), 6, None),
        (torch.zeros(1, 0, 3), 1, None),
        (torch.full((1, 5, 3), torch.nan), 1, None),
        (torch.full((1, 5, 3), torch.inf), 1, None),
        (torch.zeros(1, 5, 3), 1, torch.tensor([5])),
        (torch.zeros(1, 5, 3), 1, torch.tensor([-1])),
        (torch.zeros(1, 5, 3), 1, torch.tensor([0], dtype=torch.int32)),
        (torch.zeros(1, 5, 3), 1, torch.tensor([0, 0])),
    ],
)
def test_arguments_that_cannot_be_served(points, count, start):
    with pytest.raises(BadArgument):
        farthest_points(points, count, start=start)


def test_unknown_backend():
    with pytest.raises(BadArgument, match="unknown backend"):
        farthest_points(torch.zeros(1, 5, 3), 1, backend="cuda")


@pytest.mark.gpu
@pytest.mark.parametrize("kind", ["sphere", "lattice", "copies", "far"])
@pytest.mark.parametrize(
    ("items", "size", "count"),
    [
        (64, 2048, 512),
        (4, 8192, 2048),
        (3, 7001, 900),
        (1, 16384, 2048),
        (2, 20001, 1500),
        (1, 100_000, 4096),
        (1, 700_000, 500),
    ],
)
def test_kernels_against_reference_at_size(kind, items, size, count):
    points = cloud(items, size, kind, "cuda")
    start = torch.arange(items, device="cuda") * 7 % size
    want = farthest_points(points, count, start=start, backend="reference")
    assert torch.equal(farthest_points(points, count, start=start, backend="triton"), want)


@pytest.mark.gpu
@pytest.mark.parametrize(("warps", "resident"), [(4, 16384), (8, 16384), (32, 16384), (8, 0), (32, 0)])
def test_configurations_pick_the_same_rows(warps, resident):
    from shapecodec.ops.farthest_points.triton import farthest_points as run

    points = cloud(2, 6000, device="cuda")
    start = torch.zeros(2, dtype=torch.int64, device="cuda")
    want = farthest_points(points, 1000, backend="reference")
    assert torch.equal(run(points, start, 1000, warps=warps, resident=resident), want)
