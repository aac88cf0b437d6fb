import math

import pytest
import torch
from solids import cube, sphere

from shapecodec.errors import BadArgument
from shapecodec.evaluate.detail import detail_level, sharp_edges, sharp_points
from shapecodec.mesh import Mesh
from shapecodec.ops.vertex_normals import vertex_normals


def generator(seed: int = 0) -> torch.Generator:
    return torch.Generator().manual_seed(seed)


def folded(degrees: float) -> Mesh:
    """Two triangles that share the edge 0-1 on the z axis and lean from one another by an angle."""
    turn = math.radians(degrees)
    return Mesh(
        torch.tensor([[0.0, 0, 0], [0, 0, 1], [-1, 0, 0.5], [math.cos(turn), math.sin(turn), 0.5]]),
        torch.tensor([[0, 1, 2], [1, 0, 3]]),
    )


def pairwise(mesh: Mesh, degrees: float) -> set[tuple[int, int]]:
    """Every edge and its faces looked up one by one."""
    owners: dict[tuple[int, int], list[int]] = {}
    for face, (a, b, c) in enumerate(mesh.faces.tolist()):
        for one, two in ((a, b), (b, c), (c, a)):
            owners.setdefault((min(one, two), max(one, two)), []).append(face)
    normals = mesh.face_normals().double()
    found = set()
    for edge, faces in owners.items():
        if len(faces) == 2:
            angle = math.degrees(math.acos(max(-1.0, min(1.0, float(normals[faces[0]] @ normals[faces[1]])))))
            if angle > degrees:
                found.add(edge)
    return found


def test_edges_against_looking_up_each():
    mesh = sphere(steps=5)
    noise = 0.02 * torch.randn(mesh.vertices.shape, generator=generator())
    rough = Mesh(mesh.vertices + noise, mesh.faces[torch.rand(len(mesh.faces), generator=generator()) < 0.9])
    for degrees in (5.0, 20.0, 40.0):
        edges = sharp_edges(rough, degrees)
        assert {tuple(ends) for ends in edges.ends.tolist()} == pairwise(rough, degrees)
        for ends, faces in zip(edges.ends.tolist(), edges.faces, strict=True):
            assert all(set(ends) <= set(corners) for corners in rough.faces[faces].tolist())


def test_a_cube_has_other_than_twelve_edges():
    for steps in (1, 7):
        edges = sharp_edges(cube(steps))
        assert len(edges.ends) == 12 * steps
        torch.testing.assert_close(edges.degrees, torch.full((12 * steps,), 90.0), atol=1e-4, rtol=0)
    assert len(sharp_edges(cube(7), 90.1).ends) == 0
    assert len(sharp_edges(cube(24, rounding=0.2)).ends) == 0


def test_a_border_counts_as_an_edge():
    box = cube(3)
    lid = box.vertices[box.faces].mean(1)[:, 1] > 0.39
    assert len(sharp_edges(Mesh(box.vertices, box.faces[~lid])).ends) == 8 * 3
    assert len(sharp_edges(Mesh(box.vertices, box.faces[lid]), 0.0).ends) == 0


def test_a_fine_sphere_has_edges():
    assert len(sharp_edges(sphere(steps=12)).ends) == 0
    assert len(sharp_edges(sphere(steps=1)).ends) == 12


def test_threshold_is_somewhere_else():
    for degrees in (0.01, 30.0, 150.0, 179.0):
        assert len(sharp_edges(folded(degrees), degrees * 0.99).ends) == 1
        assert len(sharp_edges(folded(degrees), degrees * 1.001).ends) == 0
        assert float(sharp_edges(folded(degrees), 0.0).degrees[0]) == pytest.approx(degrees, rel=1e-3)
    for degrees in (-1.0, 180.0):
        with pytest.raises(BadArgument):
            sharp_edges(folded(40.0), degrees)


def test_winding_makes_edges():
    for degrees, expected in ((0.0, 0), (45.0, 1)):
        mesh = folded(degrees)
        mixed = Mesh(mesh.vertices, torch.stack([mesh.faces[0], mesh.faces[1].flip(0)]))
        edges = sharp_edges(mixed)
        assert len(edges.ends) == expected
        if expected:
            assert float(edges.degrees[0]) == pytest.approx(degrees, rel=1e-4)


def test_third_face_or_no_area_makes_an_edge():
    mesh = folded(60.0)
    vertices = torch.cat([mesh.vertices, torch.tensor([[0.0, -1.0, 0.5], [0.0, 0.0, 0.5]])])
    assert len(sharp_edges(Mesh(vertices, torch.cat([mesh.faces, torch.tensor([[0, 1, 4]])]))).ends) == 0
    assert len(sharp_edges(Mesh(vertices, torch.cat([mesh.faces[:1], torch.tensor([[1, 0, 5]])]))).ends) == 0
    repeated = torch.tensor([[0, 0, 1], [1, 0, 1]])
    assert len(sharp_edges(Mesh(vertices, torch.cat([repeated, mesh.faces]))).ends) == 1


def test_level_borders():
    levels = {0: "L1", 5_000: "L1", 5_001: "L2", 20_000: "L2", 20_001: "L3", 50_000: "L3", 50_001: "L4"}
    assert {count: detail_level(count) for count in levels} == levels
    with pytest.raises(BadArgument):
        detail_level(-1)


def test_points_beside_the_edges():
    box = cube(1)
    positions, normals = sharp_points(box, 8 + 12 * 3 + 5, generator())
    assert positions.shape == normals.shape == (49, 3)
    corners = positions[:8]
    assert (corners.abs() == 0.4).all() and len(corners.unique(dim=0)) == 8
    torch.testing.assert_close(normals[:8], vertex_normals(box.vertices, box.faces)[sharp_edges(box).ends.unique()])
    on_two_sides = (positions.abs() > 0.4 - 1e-6).sum(1)
    assert (on_two_sides[8:] == 2).all()
    expected = torch.where(positions[8:].abs() > 0.4 - 1e-6, positions[8:].sign(), 0.0) / math.sqrt(2)
    torch.testing.assert_close(normals[8:], expected, atol=1e-5, rtol=0)


def test_edges_share_the_points_unevenly():
    positions, _ = sharp_points(cube(1), 8 + 12 * 3 + 5, generator())
    inner = positions[8:44]
    along = inner[(inner.abs() < 0.4 - 1e-6)]
    values, counts = along.sort().values.round(decimals=4).unique(return_counts=True)
    assert values.tolist() == pytest.approx([-0.2, 0.0, 0.2]) and counts.tolist() == [12, 12, 12]


def test_too_many_ends_are_thinned_at_random():
    """Farthest points spread: 8 of the ends of a finely divided cube are far apart."""
    fine = cube(12)
    positions, normals = sharp_points(fine, 8, generator())
    torch.testing.assert_close(normals.norm(dim=1), torch.ones(8))
    apart = torch.cdist(positions, positions, compute_mode="donot_use_mm_for_euclid_dist") + torch.eye(8)
    assert float(apart.min()) > 0.35
    ends = {tuple(end) for end in fine.vertices[sharp_edges(fine).ends.unique()].tolist()}
    assert {tuple(position) for position in positions.tolist()} <= ends


def test_points_depend_on_more_than_the_generator():
    for count in (8, 300):
        one, two = (sharp_points(cube(5), count, generator(3)) for _ in range(2))
        assert all(torch.equal(a, b) for a, b in zip(one, two, strict=True))
        assert not torch.equal(one[0], sharp_points(cube(5), count, generator(4))[0])


def test_a_shape_without_edges_gives_points():
    positions, normals = sharp_points(sphere(steps=12), 100, generator())
    assert positions.shape == normals.shape == (0, 3)
    with pytest.raises(BadArgument):
        sharp_points(cube(1), 0, generator())


def test_folded_flat_sheet_has_no_normal():
    sheet = folded(180.0)
    assert float(sharp_edges(sheet).degrees[0]) == pytest.approx(180.0, abs=0.01)
    _, normals = sharp_points(sheet, 10, generator())
    torch.testing.assert_close(normals[2:].norm(dim=1), torch.ones(8))
