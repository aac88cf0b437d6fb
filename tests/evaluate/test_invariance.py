"""What must not matter: how a surface is cut into triangles, in which order, and where it stands."""

import pytest
import torch
from solids import cube, moved, sphere, together
from walking import cut_faces, numbers, outside_their_intervals

from shapecodec.evaluate.metrics import compare_all
from shapecodec.evaluate.protocol import PROTOCOLS
from shapecodec.mesh import Mesh

POINTS = 10_000


def generator(seed: int = 0) -> torch.Generator:
    return torch.Generator().manual_seed(seed)


def pair() -> tuple[Mesh, Mesh]:
    """A noisy reconstruction of a cube beside a ball, some of it missing."""
    reference = together(cube(4, half=0.3), moved(sphere(0.2, 4), 0.7, 0.1, 0))
    noisy = Mesh(
        reference.vertices + 0.004 * torch.randn(reference.vertices.shape, generator=generator()), reference.faces
    )
    return noisy, reference


def measure(prediction: Mesh, reference: Mesh, **options) -> dict:
    """Under the protocols of whole surfaces: what is seen from fixed views changes as the meshes turn."""
    whole = [protocol for protocol in PROTOCOLS.values() if protocol.outer is None]
    points = options.pop("points", POINTS)
    return compare_all(prediction, reference, points=points, resolution=128, protocols=whole, **options)


def test_cutting_every_face_into_27_moves_a_number():
    one, two = pair()
    finer = cut_faces(one, 3, generator(1)), cut_faces(two, 3, generator(2))
    assert len(finer[0].faces) == 27 * len(one.faces)
    before, after = measure(one, two), measure(*finer, seed=1)
    for name, result in before.items():
        assert outside_their_intervals(result, after[name], 4.0) == []
        for key in ("lower", "upper"):
            assert after[name]["hausdorff"][key] == pytest.approx(result["hausdorff"][key], rel=3e-3)
        for key in ("area_ratio", "volume_ratio"):
            assert after[name][key] == pytest.approx(result[key], rel=1e-4)
        for key in ("watertight", "components", "boundary_edges", "non_manifold_edges"):
            assert after[name]["prediction"][key] == result["prediction"][key]


def test_a_lost_tenth_of_the_surface_stays_within_the_intervals():
    """The test above must be able to fail: a tenth of the faces gone shows in many numbers."""
    one, two = pair()
    holes = Mesh(one.vertices, one.faces[torch.randperm(len(one.faces), generator=generator())[len(one.faces) // 10 :]])
    missed = outside_their_intervals(measure(one, two)["exact-v1"], measure(holes, two)["exact-v1"], 4.0)
    assert len(missed) > 10


def test_order_of_vertices_and_faces():
    one, two = pair()
    expected = measure(one, two)
    shuffled = []
    for seed, mesh in enumerate((one, two)):
        order = torch.randperm(len(mesh.vertices), generator=generator(seed))
        place = torch.empty_like(order).scatter_(0, order, torch.arange(len(order)))
        shuffled.append(Mesh(mesh.vertices[order], place[mesh.faces]))
    found = measure(*shuffled)
    for name, result in expected.items():  # the same faces are sampled at the same places
        for path, value in numbers({key: result[key] for key in ("exact", "sampled", "prediction", "iou")}):
            assert dict(numbers(found[name]))[path] == pytest.approx(value, rel=1e-5, abs=1e-7), path
    for seed, mesh in enumerate((one, two)):
        order = torch.randperm(len(mesh.faces), generator=generator(seed + 2))
        shuffled[seed] = Mesh(mesh.vertices, mesh.faces[order].roll(seed, 1))
    found = measure(*shuffled)
    for name, result in expected.items():
        assert outside_their_intervals(result, found[name], 4.0) == []
        assert found[name]["hausdorff"]["lower"] == pytest.approx(result["hausdorff"]["lower"], rel=2e-3)


def test_quarter_turns_shifts_and_units():
    """The frames follow the box, so numbers stay as they are."""
    one, two = pair()
    turn = torch.tensor([[0.0, 0, 1], [1, 0, 0], [0, 1, 0]])
    shift = torch.tensor([100.0, -50.0, 3.0])
    there = [Mesh(37.0 * mesh.vertices @ turn.T + shift, mesh.faces) for mesh in (one, two)]
    before, after = measure(one, two), measure(*there)
    for name, result in before.items():
        found = dict(numbers(after[name]))
        for path, value in numbers({key: result[key] for key in ("exact", "sampled", "paper")}):
            assert found[path] == pytest.approx(value, rel=5e-3, abs=2e-5), path
        assert outside_their_intervals(result, after[name], 4.0) == []
        assert found["hausdorff/upper"] == pytest.approx(result["hausdorff"]["upper"], rel=2e-3)


def test_any_turn_changes_lengths_of_the_user():
    """A turned box has another longest side, so numbers change with the frame; in the user's own lengths they do not."""
    one, two = pair()
    turn = torch.linalg.qr(torch.randn(3, 3, generator=generator(5)))[0]
    there = [Mesh((mesh.vertices - 0.2) @ turn.T, mesh.faces) for mesh in (one, two)]
    before, after = measure(one, two), measure(*there)
    for name, result in before.items():
        scales = result["frame"]["scale"], after[name]["frame"]["scale"]
        assert scales[0] != pytest.approx(scales[1], rel=0.01) or name == "lagem-v1"
        for side in ("accuracy", "completeness"):
            for key in ("mean", "p50", "p95", "max"):
                lengths = result["exact"][side][key] / scales[0], after[name]["exact"][side][key] / scales[1]
                assert lengths[0] == pytest.approx(lengths[1], rel=5e-3)
        for name_, power in (("chamfer_l1", 1), ("chamfer_l2", 2)):
            sums = [r["sampled"][name_]["sum"] / s**power for r, s in zip((result, after[name]), scales, strict=True)]
            assert sums[0] == pytest.approx(sums[1], rel=5e-3)
        assert after[name]["area_ratio"] == pytest.approx(result["area_ratio"], rel=1e-5)
