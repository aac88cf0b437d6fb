"""A queried solid to a mesh: parts lost between samples, holes where the band ends, walls in the deep inside."""

from collections.abc import Callable

import pytest
import torch
from torch import Tensor

from shapecodec.codecs.lagem.field import QueryField
from shapecodec.errors import BadArgument, BadLatents, BadMesh
from shapecodec.grid import SparseGrid
from shapecodec.mesh import Mesh
from shapecodec.ops.components import components
from shapecodec.ops.marching_cubes import marching_cubes

Values = Callable[[Tensor], Tensor]


def ball(radius: float, centre: tuple[float, float, float] = (0.0, 0.0, 0.0)) -> Values:
    return lambda p: radius - (p - p.new_tensor(centre)).norm(dim=1)


def union(*parts: Values) -> Values:
    return lambda p: torch.stack([part(p) for part in parts]).amax(0)


def hollow(outer: Values, inner: Values) -> Values:
    return lambda p: torch.minimum(outer(p), -inner(p))


def box(low: tuple[float, float, float], high: tuple[float, float, float]) -> Values:
    """The signed distance inside, a bound of it outside."""
    return lambda p: torch.minimum(p - p.new_tensor(low), p.new_tensor(high) - p).amin(1)


def torus(p: Tensor) -> Tensor:
    return 0.1 - ((p[:, :2].norm(dim=1) - 0.3).square() + p[:, 2].square()).sqrt()


def gyroid(p: Tensor) -> Tensor:
    """A wall of uneven thickness, with handles, that the cube's border cuts."""
    x, y, z = (p * 14.0 + 0.3).unbind(1)
    return 0.35 - (x.sin() * y.cos() + y.sin() * z.cos() + z.sin() * x.cos()).abs()


def logits(p: Tensor) -> Tensor:
    """Saturated like a trained occupancy."""
    return 12.0 * (40.0 * torus(p)).tanh()


COARSE = 16  # of these cases, so that a voxel is about 0.07 and 56^3 takes three levels
CASES: dict[str, Values] = {
    "ball": ball(0.4),
    "torus": torus,
    "logits": logits,
    "off the lattice": ball(0.31, (0.111, -0.07, 0.013)),
    "several": union(ball(0.13, (0.3, 0.3, 0.3)), ball(0.09, (-0.3, 0.1, 0.2)), ball(0.2, (-0.1, -0.2, -0.2))),
    "nested": union(hollow(ball(0.45), ball(0.33)), ball(0.2)),
    "shell of two coarse voxels": hollow(ball(0.42), ball(0.295)),
    "shell of half a coarse voxel": hollow(ball(0.42), ball(0.39)),
    "slanted plate of a quarter": lambda p: 0.008 - (p @ p.new_tensor([0.36, 0.48, 0.8]) - 0.01).abs(),
    "gyroid": gyroid,
    "half of the cube": lambda p: p @ p.new_tensor([0.3, 0.5, 0.2]) + 0.1,
}


def dense(values: Values, resolution: int) -> tuple[Tensor, Tensor]:
    """Every voxel evaluated."""
    axis = torch.arange(resolution // 8)
    grid, _ = SparseGrid.build(torch.cartesian_prod(axis, axis, axis), resolution // 8)
    voxel = torch.cartesian_prod(*[torch.arange(8)] * 3)
    points = ((grid.coords[:, None] * 8 + voxel).float() + 0.5).view(-1, 3) / resolution - 0.5
    blocks = values(points).view(-1, 8, 8, 8)
    return marching_cubes(blocks, grid, 0.0, fill=-1e38, inside_is_below=False)


def triangles(vertices: Tensor, faces: Tensor) -> Tensor:
    """Corners (F, 9) in an order that does not depend on how vertices are numbered."""
    return torch.unique(vertices[faces].flatten(1), dim=0)


def volume_of(mesh: Mesh) -> float:
    corners = mesh.vertices.double()[mesh.faces]
    return float((corners[:, 0] * torch.linalg.cross(corners[:, 1], corners[:, 2])).sum() / 6)


# ---- the same surface as every voxel would give ---------------------------------------------------------------------


@pytest.mark.parametrize("name", CASES)
def test_surface_differs_from_dense(name: str) -> None:
    mesh, report = QueryField(CASES[name], 56, coarse=COARSE).to_surface()
    assert torch.equal(triangles(mesh.vertices, mesh.faces), triangles(*dense(CASES[name], 56)))
    assert mesh.is_watertight()
    assert report.queries < report.dense == 56**3


@pytest.mark.parametrize("resolution", [8, 24, 40, 72, 104])
def test_resolution_that_is_no_power_of_two(resolution: int) -> None:
    """The levels of 104 are 104, 52, 26 and 13, those of 72 are 72, 36 and 18: their last blocks stick out of the cube."""
    values = union(ball(0.31, (0.1, -0.07, 0.013)), ball(0.2, (-0.28, 0.25, 0.28)))
    mesh = QueryField(values, resolution, coarse=COARSE).to_mesh()
    assert torch.equal(triangles(mesh.vertices, mesh.faces), triangles(*dense(values, resolution)))


def test_voxel_of_the_first_grid_that_sticks_out() -> None:
    """88 voxels in steps of 4 need 22; in steps of 16, 6 with half of the last one beyond the cube."""
    values = box((-0.41, -0.32, 0.2), (0.47, 0.495, 0.49))
    mesh = QueryField(values, 88, coarse=8).to_mesh()
    assert torch.equal(triangles(mesh.vertices, mesh.faces), triangles(*dense(values, 88)))
    assert float(mesh.vertices.max()) < 0.5


def test_deep_inside_gets_walls() -> None:
    mesh, report = QueryField(ball(0.45), 64, coarse=COARSE).to_surface()
    assert report.queries < 0.4 * report.dense  # the inside alone is 0.38 of the cube
    assert int(components(len(mesh.vertices), mesh.faces).max()) == 0
    assert volume_of(mesh) == pytest.approx(4 / 3 * torch.pi * 0.45**3, rel=0.005)


def test_wall_between_two_samples_is_lost() -> None:
    """A plate of 0.4 voxel in the middle between two layers of the first grid: no sample of that grid is inside."""
    plate = box((-0.4, -0.4, -0.025), (0.4, 0.4, 0.025))
    axis = (torch.arange(8) + 0.5) / 8 - 0.5
    assert float(plate(torch.cartesian_prod(axis, axis, axis)).max()) < 0.0
    with pytest.raises(BadMesh, match="nothing inside"):
        QueryField(plate, 64, coarse=8, near=0.0).to_mesh()
    mesh = QueryField(plate, 64, coarse=8).to_mesh()
    assert torch.equal(triangles(mesh.vertices, mesh.faces), triangles(*dense(plate, 64)))


def test_surface_ends_where_the_first_grid_saw_nothing() -> None:
    """Of a long thin bar only the thick knob has samples inside: the surface is followed along the bar."""
    bar = union(box((-0.45, 0.005, 0.007), (0.45, 0.054, 0.056)), ball(0.15, (-0.3, 0.0, 0.0)))
    mesh = QueryField(bar, 64, coarse=8, near=0.0).to_mesh()
    assert torch.equal(triangles(mesh.vertices, mesh.faces), triangles(*dense(bar, 64)))
    assert float(mesh.vertices[:, 0].max()) > 0.44


def test_slit_in_a_solid_is_taken_for_outside() -> None:
    """A slit that only the last grid sees, from a hole into the deep inside, where several levels have no block.

    Nothing of the first grid is outside: what the box leaves free at the cube's border is thinner than its voxels.
    """
    slit = box((-0.3, 0.0165, 0.0165), (0.3, 0.023, 0.023))
    values = hollow(box((-0.48,) * 3, (0.48,) * 3), union(slit, ball(0.08, (-0.35, 0.02, 0.02))))
    mesh, report = QueryField(values, 128, coarse=8, near=0.0).to_surface()
    deepest = mesh.vertices[(mesh.vertices - torch.tensor([0.3, 0.02, 0.02])).norm(dim=1) < 0.01]
    assert len(deepest) > 0
    assert mesh.is_watertight()
    assert report.queries < 600_000  # 1.4M where the slit's surroundings are believed to be outside


# ---- queries --------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize(("resolution", "most"), [(128, 400_000), (256, 1_200_000)])
def test_too_many_queries(resolution: int, most: int) -> None:
    """64^3 = 262,144 are the first grid's; a sphere of 0.4 has 2.01 R^2 voxels on its surface."""
    asked = []

    def values(points: Tensor) -> Tensor:
        asked.append(len(points))
        return ball(0.4)(points)

    _, report = QueryField(values, resolution).to_surface()
    assert sum(asked) == report.queries < most
    assert max(asked) <= 1 << 18
    assert report.ratio == resolution**3 / report.queries
    assert f"{report.queries:,} queries" in report.reason


@pytest.mark.parametrize("chunk", [999, 1 << 20])
def test_result_depends_on_the_chunk(chunk: int) -> None:
    expected, report = QueryField(gyroid, 40, coarse=COARSE).to_surface()
    mesh, again = QueryField(gyroid, 40, coarse=COARSE, chunk=chunk).to_surface()
    assert torch.equal(mesh.vertices, expected.vertices)
    assert torch.equal(mesh.faces, expected.faces)
    assert again == report


def test_voxel_is_asked_twice() -> None:
    points = []

    def values(asked: Tensor) -> Tensor:
        points.append(asked)
        return gyroid(asked)

    QueryField(values, 40, coarse=COARSE).to_mesh()
    asked = torch.cat(points)
    assert len(torch.unique(asked, dim=0)) == len(asked)
    assert float(asked.abs().max()) < 0.5


# ---- the surface itself ---------------------------------------------------------------------------------------------


def cubic(p: Tensor) -> Tensor:
    """A ball of 0.4 whose value bends strongly along an edge."""
    gap = (0.4 - p.norm(dim=1)) * 20.0
    return gap.exp() - 1.0 + gap**3


def test_refined_vertices_stay_off_the_surface() -> None:
    errors = []
    for refine in (0, 1, 2, 3):
        mesh, report = QueryField(cubic, 32, coarse=16, refine=refine).to_surface()
        assert mesh.is_watertight()
        assert report.queries - refine * len(mesh.vertices) == QueryField(cubic, 32, coarse=16).to_surface()[1].queries
        errors.append(float((mesh.vertices.norm(dim=1) - 0.4).abs().mean()))
    assert errors[0] * 32 > 0.015  # voxels
    assert errors[1] < errors[0] / 4
    assert errors[2] < errors[1]
    assert errors[3] < errors[0] / 1000


def test_refinement_leaves_the_edge() -> None:
    """The same triangles, and vertices of a step function and of the cube's border stay on their edges."""
    step: Values = lambda p: (p @ p.new_tensor([0.3, 0.5, 0.2]) + 0.1 > 0).float() - 0.5  # noqa: E731
    plain = QueryField(step, 32, coarse=16).to_mesh()
    moved = QueryField(step, 32, coarse=16, refine=3).to_mesh()
    assert torch.equal(plain.faces, moved.faces)
    assert moved.is_watertight()
    shift = (plain.vertices - moved.vertices).abs() * 32
    assert 0.1 < float(shift.max()) < 0.51
    assert int((shift > 1e-4).sum(1).max()) == 1
    exact = moved.vertices @ torch.tensor([0.3, 0.5, 0.2]) + 0.1
    within = (moved.vertices.abs() < 0.48).all(1)
    assert float(exact[within].abs().mean()) < 0.3 * float(
        (plain.vertices @ torch.tensor([0.3, 0.5, 0.2]) + 0.1)[within].abs().mean()
    )


def test_level_is_ignored() -> None:
    shifted = QueryField(lambda p: ball(0.4)(p) + 3.0, 32, coarse=16, level=3.1).to_mesh()
    assert float((shifted.vertices.norm(dim=1) - 0.3).abs().max()) < 0.002


def test_answers_of_inference_mode_or_half_precision() -> None:
    """What a network gives."""

    @torch.inference_mode()
    def values(points: Tensor) -> Tensor:
        return (points * 1.0).norm(dim=1).neg().add(0.4).bfloat16()

    field = QueryField(values, 32, coarse=16)
    assert field.to_mesh().is_watertight()
    assert field.sample(torch.zeros(5, 3)).dtype == torch.float32


def test_sample_is_not_the_field() -> None:
    points = torch.rand(1000, 3, generator=torch.Generator().manual_seed(0)) - 0.5
    field = QueryField(torus, 64, chunk=7)
    assert torch.equal(field.sample(points), torus(points))
    assert field.sample(points[:0]).shape == (0,)
    with pytest.raises(BadArgument, match=r"\(Q, 3\)"):
        field.sample(points[0])


def test_mesh_at_another_resolution() -> None:
    field = QueryField(torus, 64, coarse=16)
    mesh, report = field.to_surface(32, "single")
    assert (report.requested, report.mode, report.dense) == ("single", "single", 32**3)
    assert torch.equal(mesh.vertices, QueryField(torus, 32, coarse=16).to_mesh().vertices)


# ---- what cannot be served ------------------------------------------------------------------------------------------


def test_field_without_a_surface_gives_an_empty_mesh() -> None:
    with pytest.raises(BadMesh, match=r"no surface at level 0: its values lie between .*nothing inside.*level below"):
        QueryField(lambda p: -1.0 - p.norm(dim=1), 32, coarse=16).to_mesh()
    with pytest.raises(BadMesh, match="all inside"):
        QueryField(lambda p: 1.0 - p.norm(dim=1), 32, coarse=16).to_mesh()


def test_nan_becomes_a_surface() -> None:
    with pytest.raises(BadLatents, match="NaN or infinite at 8 of"):
        QueryField(lambda p: torch.where(p.norm(dim=1) < 0.11, torch.nan, torus(p)), 8, coarse=8).to_mesh()


def test_surface_of_an_unsigned_field_is_accepted() -> None:
    with pytest.raises(BadArgument, match="auto, single"):
        QueryField(torus, 32).to_surface(None, "snapped")


def test_bad_arguments_are_accepted() -> None:
    with pytest.raises(BadArgument, match="multiple of 8"):
        QueryField(torus, 100)
    with pytest.raises(BadArgument, match="multiple of 8"):
        QueryField(torus, 64).to_mesh(0)
    with pytest.raises(BadArgument, match="chunk 0"):
        QueryField(torus, 64, chunk=0)
    with pytest.raises(BadArgument, match="gave"):
        QueryField(lambda p: torus(p)[:, None], 64).to_mesh()


@pytest.mark.gpu
@pytest.mark.parametrize("name", CASES)
def test_gpu_gives_another_surface(name: str) -> None:
    """At 256^3 from 64^3. The two devices round distances differently, so vertices are compared, and counts by a share."""
    on_cpu = QueryField(CASES[name], 256).to_mesh()
    on_gpu = QueryField(CASES[name], 256, device="cuda").to_mesh()
    assert on_gpu.vertices.is_cuda
    assert on_gpu.is_watertight()
    assert len(on_gpu.faces) == pytest.approx(len(on_cpu.faces), rel=1e-4)
    assert volume_of(on_gpu) == pytest.approx(volume_of(on_cpu), rel=1e-5)


@pytest.mark.gpu
def test_gpu_takes_a_tenth_at_512() -> None:
    mesh, report = QueryField(torus, 512, device="cuda", refine=1).to_surface()
    assert report.ratio > 10.0
    assert mesh.is_watertight()
    torch.cuda.reset_peak_memory_stats()
    QueryField(torus, 1024, device="cuda").to_mesh()
    assert torch.cuda.max_memory_allocated() < 6e9
