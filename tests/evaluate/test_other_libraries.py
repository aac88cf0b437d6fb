"""The same distances, volumes and topology by trimesh, libigl and Open3D."""

import numpy as np
import pytest
import torch
import trimesh
from solids import cube, moved, sphere, together

from shapecodec.evaluate.metrics import compare, distance_statistics
from shapecodec.evaluate.pair import Pair
from shapecodec.evaluate.topology import topology
from shapecodec.mesh import Mesh, Similarity

POINTS = 2000


def pair() -> tuple[Mesh, Mesh]:
    reference = together(cube(5, half=0.25), moved(sphere(0.1, 4), 0.35, 0.1, 0))
    generator = torch.Generator().manual_seed(0)
    return Mesh(
        reference.vertices + 0.005 * torch.randn(reference.vertices.shape, generator=generator), reference.faces
    ), reference


def by_trimesh(points: np.ndarray, vertices: np.ndarray, faces: np.ndarray) -> np.ndarray:
    """Every point against every triangle, by its closest points of pairs."""
    triangles = vertices.astype(np.float64)[faces]
    every = [
        trimesh.triangles.closest_point(triangles, np.repeat(point[None].astype(np.float64), len(triangles), 0))
        for point in points
    ]
    return np.linalg.norm(np.stack(every) - points[:, None], axis=2).min(1)


def by_libigl(points: np.ndarray, vertices: np.ndarray, faces: np.ndarray) -> np.ndarray:
    igl = pytest.importorskip("igl", reason="the bench extra has it")
    return np.sqrt(igl.point_mesh_squared_distance(points.astype(np.float64), vertices.astype(np.float64), faces)[0])


def by_open3d(points: np.ndarray, vertices: np.ndarray, faces: np.ndarray) -> np.ndarray:
    open3d = pytest.importorskip("open3d", reason="the bench extra has it")
    scene = open3d.t.geometry.RaycastingScene()
    scene.add_triangles(open3d.core.Tensor(vertices), open3d.core.Tensor(faces.astype(np.uint32)))
    return scene.compute_distance(open3d.core.Tensor(points)).numpy()


@pytest.mark.parametrize("library", [by_trimesh, by_libigl, by_open3d])
def test_exact_distances_differ(library):
    prediction, reference = pair()
    count = 300 if library is by_trimesh else POINTS
    result = compare(prediction, reference, points=count, frame=Similarity())
    samples = Pair(prediction, reference, cube=Similarity()).samples(count)
    for side, points, target in (
        ("accuracy", samples.prediction[0], reference),
        ("completeness", samples.reference[0], prediction),
    ):
        theirs = distance_statistics(torch.from_numpy(library(points.numpy(), *target.numpy()).astype(np.float32)))
        assert result["exact"][side] == pytest.approx(theirs, abs=1e-6)


def test_hausdorff_below_that_of_the_vertices():
    igl = pytest.importorskip("igl", reason="the bench extra has it")
    prediction, reference = pair()
    arrays = [a for mesh in (prediction, reference) for a in (mesh.vertices.double().numpy(), mesh.faces.numpy())]
    theirs = igl.hausdorff(*arrays)  # from the vertices alone
    ours = compare(prediction, reference, points=100, frame=Similarity(), full=True)["hausdorff"]
    assert theirs <= ours["upper"] + 1e-6 and ours["lower"] >= theirs - 1e-6


def test_volume_area_and_topology_differ():
    for mesh in pair():
        theirs, ours = trimesh.Trimesh(*mesh.numpy(), process=False), topology(mesh)
        assert ours.volume == pytest.approx(theirs.volume, rel=1e-5) and ours.area == pytest.approx(
            theirs.area, rel=1e-5
        )
        assert ours.watertight == theirs.is_watertight and ours.components == theirs.body_count == 2


def test_volume_overlap_differs():
    """Shifted boxes by trimesh's own inside test where the surfaces are far away."""
    igl = pytest.importorskip("igl", reason="the bench extra has it")
    one, two = moved(sphere(0.4, 8), 0.1, 0, 0), cube(3, half=0.3)
    iou = compare(one, two, points=100, frame=Similarity(), full=True)
    generator = np.random.default_rng(0)
    points = generator.uniform(-0.5, 0.5, (40_000, 3))
    inside = [
        igl.winding_number(mesh.vertices.double().numpy(), mesh.faces.numpy(), points) > 0.5 for mesh in (one, two)
    ]
    theirs = (inside[0] & inside[1]).sum() / (inside[0] | inside[1]).sum()
    assert iou["iou"]["value"] == pytest.approx(theirs, abs=6 * iou["standard_error"]["iou"]["value"])
