import pytest
import torch
from focusing_shapes import apart, box, inverted, sheet, star, together

from shapecodec.codecs.focusing.orient import first_copies, oriented
from shapecodec.codecs.focusing.targets import Surface, occupied_children, signed_distance
from shapecodec.codecs.focusing.total_variation import next_corners, total_variation
from shapecodec.errors import BadArgument
from shapecodec.grid import SparseGrid
from shapecodec.mesh import Mesh
from shapecodec.ops.closest_point import closest_point
from shapecodec.ops.flex_surface import voxel_corners
from shapecodec.ops.voxelise import voxelise
from shapecodec.ops.winding_number import winding_number


def points(count: int = 4000, seed: int = 0) -> torch.Tensor:
    return torch.rand(count, 3, generator=torch.Generator().manual_seed(seed)) - 0.5


def shuffled(mesh: Mesh, share: float = 0.4, seed: int = 1) -> Mesh:
    """Some of the faces turned, all of them and the first corners in another order."""
    generator = torch.Generator().manual_seed(seed)
    faces = mesh.faces[torch.randperm(len(mesh.faces), generator=generator)]
    turned = torch.rand(len(faces), 1, generator=generator) < share
    return Mesh(mesh.vertices, torch.where(turned, faces[:, [0, 2, 1]], faces))


@pytest.mark.parametrize("shape", [box(), star(), star(5, 0.02), apart(star())], ids=["box", "star", "thin", "apart"])
def test_sign_wrong_beside_a_sharp_edge(shape):
    queries = points()
    inside = winding_number(queries, shape.vertices, shape.faces) > 0.5
    distance = signed_distance(queries, Surface.of(shape))
    assert 5 < int(inside.sum()) < len(queries) - 5
    assert torch.equal(distance < 0, inside)
    assert torch.allclose(distance.abs(), closest_point(queries, shape.vertices, shape.faces).distance)


def test_sign_of_one_face_alone_would_be_wrong():
    """What edge and vertex normals are for: the nearest face's own plane misleads beside spikes."""
    shape, queries = star(), points()
    inside = winding_number(queries, shape.vertices, shape.faces) > 0.5
    nearest = closest_point(queries, shape.vertices, shape.faces)
    behind = ((queries - nearest.point) * shape.face_normals()[nearest.face]).sum(1) < 0
    assert not torch.equal(behind, inside)


def test_places_on_the_surface_are_not_at_distance_zero():
    shape = star()
    corners = shape.vertices[shape.faces]
    queries = torch.cat([corners.mean(1), corners[:, :2].mean(1), shape.vertices])
    assert signed_distance(queries, Surface.of(shape)).abs().max() < 1e-7


def test_open_sheet_has_no_sides():
    queries = points()
    queries = queries[(queries[:, :2].abs() < 0.38).all(1)]
    surface = Surface.of(sheet())
    distance = signed_distance(queries, surface)
    flat = signed_distance(queries, Surface.of(sheet(bend=0.0)))
    assert torch.allclose(flat, queries[:, 2], atol=1e-6)
    above = queries[:, 2] > 0.11
    assert bool((distance[above] > 0).all()) and bool((distance[queries[:, 2] < -0.11] < 0).all())


def test_winding_sign_needs_agreeing_neighbours():
    overlapping = together(box(0.25, (-0.1, 0, 0)), box(0.25, (0.1, 0, 0)))
    queries = points()
    truth = ((queries[:, 1:].abs() < 0.25).all(1)) & (queries[:, 0].abs() < 0.35)
    distance = signed_distance(queries, Surface.of(overlapping), sign="winding")
    assert torch.equal(distance < 0, truth)
    with pytest.raises(BadArgument, match="unknown sign"):
        signed_distance(queries, Surface.of(overlapping), sign="rays")  # type: ignore[arg-type]


def test_faces_without_area_choose_the_side():
    shape = box()
    needle = torch.tensor([[0, 1, 1], [7, 7, 7], [0, 0, 4]])
    with_needles = Mesh(shape.vertices, torch.cat([needle, shape.faces]))
    queries = points()
    assert torch.equal(signed_distance(queries, Surface.of(with_needles)) < 0, (queries.abs() < 0.3).all(1))


def test_welding_takes_a_neighbour():
    vertices = torch.tensor([[0.0, 0, 0], [1, 0, 0], [-0.0, 0, 0], [1, 0, 1e-30], [1, 0, 0], [0, -0.0, -0.0]])
    assert first_copies(vertices).tolist() == [0, 1, 0, 3, 1, 0]
    shape = star()
    assert torch.equal(Surface.of(shape).edge_normals, Surface.of(shape, welded=True).edge_normals)


@pytest.mark.parametrize("seed", range(4))
def test_neighbours_disagree(seed):
    for shape in (box(), star(), apart(star())):
        broken = shuffled(shape, seed=seed)
        volume = signed_volume(oriented(broken))
        assert signed_volume(broken) < 0.99 * signed_volume(shape)
        assert volume == pytest.approx(signed_volume(shape), rel=1e-5)


def signed_volume(mesh: Mesh) -> float:
    a, b, c = mesh.vertices.double()[mesh.faces].unbind(1)
    return float((a * torch.linalg.cross(b, c)).sum() / 6)


def test_cavity_filled_or_body_turned():
    hollow = together(box(0.4), inverted(box(0.2)))
    assert torch.equal(oriented(hollow).faces, hollow.faces)
    assert torch.equal(oriented(inverted(hollow)).faces, hollow.faces)
    beside = together(box(0.2, (0.25, 0, 0)), inverted(box(0.2, (-0.25, 0, 0))), inverted(box(0.05, (0.25, 0, 0))))
    assert signed_volume(oriented(beside)) == pytest.approx(2 * 0.4**3 - 0.1**3, rel=1e-5)


def test_open_sheet_turned_over():
    """Nothing says which side of it is outside, so most of its area decides."""
    one = sheet()
    few = shuffled(one, share=0.2)
    normals = oriented(few).face_normals()
    assert bool((normals[:, 2] > 0).all())
    assert torch.equal(oriented(inverted(one)).faces, inverted(one).faces)


def test_sack_that_is_inside_out():
    """An open box shows its front outside; a sheet and the inner wall of a cup have nothing to be turned for."""
    five = Mesh(box().vertices, box().faces[2:])
    assert torch.equal(oriented(inverted(five)).face_normals(), five.face_normals())
    inner = Mesh(box(0.28).vertices, box(0.28).faces[2:])
    cup = together(five, inverted(inner))
    assert torch.equal(oriented(cup).faces, cup.faces)
    assert torch.equal(oriented(inverted(cup)).face_normals(), cup.face_normals())


def test_moebius_strip_breaks_the_others():
    steps = 12
    turn = torch.arange(steps) * (2 * torch.pi / steps)
    across = torch.stack([(turn / 2).cos() * turn.cos(), (turn / 2).cos() * turn.sin(), (turn / 2).sin()], 1) * 0.1
    middle = torch.stack([turn.cos(), turn.sin(), torch.zeros(steps)], 1) * 0.3
    left, right = torch.arange(steps), torch.arange(steps) + steps
    next_left, next_right = left.roll(-1), right.roll(-1)
    next_left[-1], next_right[-1] = steps, 0  # after one turn the sides are exchanged
    faces = torch.cat([torch.stack([left, right, next_right], 1), torch.stack([left, next_right, next_left], 1)])
    strip = Mesh(torch.cat([middle - across, middle + across]), faces)
    assert torch.equal(oriented(strip).faces, faces)
    both = oriented(together(strip, inverted(box(0.1, (2.0, 0, 0)))))
    assert torch.equal(both.faces[: len(faces)], faces)
    assert torch.equal(both.faces[len(faces) :] - 2 * steps, box().faces)


def test_child_without_surface_counts_as_occupied():
    meshes = [star(), sheet(), box(0.2)]
    grids = [voxelise(mesh.vertices, mesh.faces, 12, dilation=1.0) for mesh in meshes]
    batch = SparseGrid.concatenate([grids[0], grids[1], SparseGrid.build(grids[2].coords[5:9], 12)[0]])
    occupied = occupied_children(batch, meshes)
    assert occupied.shape == (len(batch), 8) and not bool(occupied.all())
    place = batch.batch_index()
    for row in torch.arange(0, len(batch), 7).tolist():
        mesh = meshes[int(place[row])]
        whole = {tuple(c) for c in voxelise(mesh.vertices, mesh.faces, 24).coords.tolist()}
        for child in range(8):
            at = (2 * batch.coords[row] + torch.tensor([child >> 2, child >> 1 & 1, child & 1])).tolist()
            assert bool(occupied[row, child]) == (tuple(at) in whole)
    whole = occupied_children(SparseGrid.concatenate(grids), meshes)
    exact = sum(len(voxelise(mesh.vertices, mesh.faces, 24)) for mesh in meshes)
    assert int(whole.sum()) == exact
    assert int(occupied_children(SparseGrid.concatenate(grids), meshes, dilation=0.5).sum()) > exact
    with pytest.raises(BadArgument, match="2 meshes for 3 items"):
        occupied_children(batch, meshes[:2])


def test_no_voxels_no_children():
    empty = SparseGrid.build(torch.zeros(0, 3, dtype=torch.int32), 8)[0]
    assert occupied_children(empty, [box()]).shape == (0, 8)


def corners_of(count: int = 40, resolution: int = 6, seed: int = 0) -> tuple[SparseGrid, torch.Tensor]:
    generator = torch.Generator().manual_seed(seed)
    cells = torch.randperm(resolution**3, generator=generator)[:count]
    coords = torch.stack([cells // resolution**2, cells // resolution % resolution, cells % resolution], 1)
    grid = SparseGrid.build(coords, resolution)[0]
    return grid, torch.randn(len(voxel_corners(grid)), 2, generator=generator, dtype=torch.float64)


def test_differences_across_a_gap():
    grid, values = corners_of()
    corners = voxel_corners(grid)
    at = {tuple(place): row for row, place in enumerate(corners.coords.tolist())}
    edges = set()
    for x, y, z in grid.coords.tolist():
        for u in (0, 1):
            for v in (0, 1):
                edges |= {(x, y + u, z + v, 0), (x + u, y, z + v, 1), (x + u, y + v, z, 2)}
    squares, wanted = torch.zeros_like(values), torch.full((len(corners), 3), -1)
    for x, y, z, axis in edges:
        step = [int(axis == k) for k in range(3)]
        row, other = at[x, y, z], at[x + step[0], y + step[1], z + step[2]]
        wanted[row, axis] = other
        squares[row] += (values[other] - values[row]) ** 2
    assert torch.equal(next_corners(corners), wanted)
    expected = ((squares + 1e-10).sqrt() - 1e-5).sum()
    assert torch.allclose(total_variation(values, corners), expected)
    assert torch.allclose(total_variation(values, corners, reduction="mean"), expected / len(corners))
    assert torch.allclose(total_variation(values[:, 0], corners), ((squares[:, 0] + 1e-10).sqrt() - 1e-5).sum())


def test_slope_of_a_constant_field_is_nan():
    grid, values = corners_of()
    corners = voxel_corners(grid)
    flat = torch.full((len(corners),), 0.3, requires_grad=True)
    loss = total_variation(flat, corners)
    loss.backward()
    assert loss.item() == 0 and bool((flat.grad == 0).all())
    assert torch.autograd.gradcheck(lambda v: total_variation(v, corners, epsilon=1e-3), values[:, :1].requires_grad_())
    empty = voxel_corners(SparseGrid.build(torch.zeros(0, 3, dtype=torch.int32), 4)[0])
    assert float(total_variation(torch.zeros(0), empty, reduction="mean")) == 0
    with pytest.raises(BadArgument, match="corners need floats"):
        total_variation(torch.zeros(3), corners)
    with pytest.raises(BadArgument, match="reduction"):
        total_variation(flat, corners, epsilon=0.0)


@pytest.mark.gpu
def test_supervision_differs_on_the_device(device):
    """The same signs, distances, normals' sums, occupancies and variation as on the CPU, at a step's size."""
    mesh = together(star(300, 0.05), apart(box(0.2)))
    queries = points(300_000)
    here, there = Surface.of(mesh), Surface.of(mesh.to(device))
    for name in ("faces", "edge_normals", "vertex_normals"):
        assert torch.allclose(getattr(here, name).double(), getattr(there, name).cpu().double(), atol=1e-6), name
    on_host, on_device = signed_distance(queries, here), signed_distance(queries.to(device), there).cpu()
    assert torch.allclose(on_host.abs(), on_device.abs(), atol=1e-6)
    assert float(((on_host < 0) != (on_device < 0)).double().mean()) < 1e-4  # ties of the two patches, which cross
    grid = voxelise(mesh.vertices, mesh.faces, 64, dilation=1.0)
    occupied = occupied_children(grid, [mesh])
    assert torch.equal(occupied, occupied_children(grid.to(device), [mesh.to(device)]).cpu())
    corners, moved = voxel_corners(grid), voxel_corners(grid.to(device))
    values = torch.randn(len(corners), generator=torch.Generator().manual_seed(0))
    assert torch.equal(next_corners(corners), next_corners(moved).cpu())
    assert total_variation(values.to(device), moved).item() == pytest.approx(
        total_variation(values, corners).item(), rel=1e-5
    )


@pytest.mark.gpu
def test_surface_waits_for_the_device(device):
    mesh = star(300).to(device)
    torch.cuda.set_sync_debug_mode("error")
    try:
        surface = Surface.of(mesh)
    finally:
        torch.cuda.set_sync_debug_mode("default")
    assert torch.equal(surface.faces, mesh.faces)
