import pytest
import torch

from shapecodec.errors import BadArgument
from shapecodec.ops.sample_surface import sample_surface

VERTICES = torch.tensor([[0.0, 0, 0], [0.4, 0, 0], [0, 0.4, 0], [0, 0, 0.3], [0.4, 0.4, 0.001]])
FACES = torch.tensor([[0, 1, 2], [0, 2, 3], [3, 3, 1], [0, 3, 1], [1, 4, 2]])


def seeded(seed: int = 0) -> torch.Generator:
    return torch.Generator().manual_seed(seed)


def cross() -> torch.Tensor:
    a, b, c = VERTICES.double()[FACES].unbind(1)
    return torch.linalg.cross(b - a, c - a)


@pytest.mark.parametrize("count", [1, 7, 1000])
def test_small_face_is_passed_over(count):
    points = sample_surface(VERTICES, FACES, count, seeded())
    areas = cross().norm(dim=1)
    expected = areas / areas.sum() * count
    assert torch.bincount(points.face, minlength=5).tolist() == pytest.approx(expected.tolist(), abs=1.0001)
    assert points.places.shape == points.normals.shape == (count, 3)
    assert torch.allclose(points.normals.double(), torch.nn.functional.normalize(cross(), dim=1)[points.face])


def test_points_beside_their_face():
    points = sample_surface(VERTICES, FACES, 5000, seeded())
    corners = VERTICES[FACES[points.face]]
    frame = torch.stack([corners[:, 1] - corners[:, 0], corners[:, 2] - corners[:, 0], points.normals], 2)
    local = torch.linalg.solve(frame.double(), (points.places - corners[:, 0]).double())
    assert bool((local[:, :2] > -1e-5).all()) and bool((local[:, :2].sum(1) < 1 + 1e-5).all())
    assert local[:, 2].abs().max() < 1e-6
    mean = torch.stack([local[points.face == face, :2].mean(0) for face in (0, 1, 3, 4)])
    assert torch.allclose(mean, torch.full_like(mean, 1 / 3), atol=0.02)
    spread = torch.stack([local[points.face == face, :2].var(0) for face in (0, 1, 3, 4)])
    assert torch.allclose(spread, torch.full_like(spread, 1 / 18), atol=0.005)


def test_another_run_gives_other_points():
    first, again, other = (sample_surface(VERTICES, FACES, 50, seeded(s), voxels=9) for s in (0, 0, 1))
    assert torch.equal(first.places, again.places) and not torch.equal(first.places, other.places)


def test_full_voxel_takes_from_the_others():
    """Of what there is: every voxel has as many as the fullest, or all of its candidates, up to one."""
    voxels, count = 16, 300
    points = sample_surface(VERTICES, FACES, count, seeded(3), voxels=voxels, oversample=5)
    candidates = sample_surface(VERTICES, FACES, 5 * count, seeded(3))

    def counts(places: torch.Tensor) -> torch.Tensor:
        cells = ((places + 0.5) * voxels).floor().clamp(max=voxels - 1).long()
        return torch.bincount((cells * torch.tensor([voxels**2, voxels, 1])).sum(1), minlength=voxels**3)

    kept, there = counts(points.places), counts(candidates.places)
    most = int(kept.max())
    assert len(points.places) == count and int((there > 0).sum()) > 20
    assert bool((kept >= torch.minimum(there, torch.tensor(most - 1))).all()) and bool((kept <= there).all())
    assert int(counts(sample_surface(VERTICES, FACES, count, seeded(3)).places).max()) > most


def test_asks_for_nothing():
    with pytest.raises(BadArgument, match="0 points"):
        sample_surface(VERTICES, FACES, 0, seeded())
    with pytest.raises(BadArgument, match="of 0 faces"):
        sample_surface(VERTICES, FACES[:0], 4, seeded())


@pytest.mark.gpu
def test_waits_for_the_device(device):
    vertices, faces = VERTICES.to(device), FACES.to(device)
    torch.cuda.set_sync_debug_mode("error")
    try:
        points = sample_surface(vertices, faces, 100_000, seeded(), voxels=64)
    finally:
        torch.cuda.set_sync_debug_mode("default")
    assert bool((points.places[:, 2] >= -1e-6).all())
