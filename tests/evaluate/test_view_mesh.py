"""View meshes that lose triangles on their way, simplification that eats the shape, files that lie."""

import struct
import zlib

import numpy as np
import pytest
import torch

from shapecodec.data.procedural import procedural_arrays
from shapecodec.errors import BadArgument, BadFile
from shapecodec.evaluate.report import read_view_mesh, write_view_mesh
from shapecodec.evaluate.report.mesh_code import decode_faces, encode_faces
from shapecodec.evaluate.report.simplify import simplify
from shapecodec.evaluate.report.view_mesh import decode_view_mesh
from shapecodec.mesh import Mesh
from shapecodec.ops.closest_point import closest_point
from shapecodec.rng import numpy_rng


def sphere(count: int) -> tuple[np.ndarray, np.ndarray]:
    """A sphere of radius .4 from count x 2 count quads."""
    polar, around = np.meshgrid(np.linspace(0, np.pi, count + 1), np.arange(2 * count) * np.pi / count, indexing="ij")
    points = 0.4 * np.stack([np.sin(polar) * np.cos(around), np.cos(polar), -np.sin(polar) * np.sin(around)], 2)
    index = np.arange(points[..., 0].size).reshape(polar.shape)
    a, b = index, np.roll(index, -1, 1)
    faces = np.concatenate([np.stack([a[:-1], a[1:], b[1:]], 2), np.stack([a[:-1], b[1:], b[:-1]], 2)]).reshape(-1, 3)
    return points.reshape(-1, 3).astype(np.float32), faces


def corners(vertices: np.ndarray, faces: np.ndarray) -> list[tuple]:
    """Triangles as sorted tuples of rounded corners, each turned to begin with its smallest one."""
    found = []
    for triangle in np.round(vertices[faces], 3).tolist():
        start = triangle.index(min(triangle))
        found.append(tuple(map(tuple, triangle[start:] + triangle[:start])))
    return sorted(found)


SOUP = np.array(
    [[0, 1, 2], [2, 1, 3], [1, 2, 4], [1, 2, 5], [6, 7, 8], [0, 1, 2], [8, 7, 6]]
)  # fans, repeats, two parts


@pytest.mark.parametrize("kind", ["gear", "open_sheet", "crossings", "soup", "one"])
def test_triangle_lost_or_turned_over_in_a_file(kind, tmp_path):
    if kind == "soup":
        vertices, faces = np.random.default_rng(0).random((9, 3)).astype(np.float32), SOUP
    elif kind == "one":
        vertices, faces = np.eye(3, dtype=np.float32), np.array([[2, 0, 1]])
    else:
        vertices, faces = procedural_arrays(numpy_rng(3, purpose=kind), kind)
    errors = torch.linspace(0, 3, len(vertices))
    mesh = Mesh.from_arrays(vertices, faces)
    size = write_view_mesh(mesh, errors, tmp_path / "a.bin", largest=2.0, unit="lengths", max_faces=10**6)
    assert size == (tmp_path / "a.bin").stat().st_size
    found = read_view_mesh(tmp_path / "a.bin")
    assert (found.largest, found.unit, len(found.faces)) == (2.0, "lengths", len(faces))
    step = float(np.ptp(vertices, axis=0).max()) / 8191
    match = ((vertices[:, None] - found.vertices[None]) ** 2).sum(2).argmin(0)
    assert np.abs(vertices[match] - found.vertices).max() <= step * 0.51
    assert corners(vertices[match], found.faces) == corners(vertices, faces)
    if kind != "soup":
        assert found.errors is not None
        assert np.abs(found.errors - np.minimum(errors.numpy()[match], 2.0)).max() <= 2.0 / 255 * 0.51


def test_file_that_is_not_small(tmp_path):
    vertices, faces = sphere(100)
    size = write_view_mesh(Mesh.from_arrays(vertices, faces), torch.zeros(len(vertices)), tmp_path / "a.bin")
    assert len(faces) == 40_000 and size < 2.0 * len(faces)


def test_mesh_without_errors_has_none(tmp_path):
    write_view_mesh(Mesh.from_arrays(*sphere(8)), None, tmp_path / "a.bin")
    assert read_view_mesh(tmp_path / "a.bin").errors is None


@pytest.mark.parametrize(
    ("errors", "options"),
    [
        (torch.zeros(3), {}),
        (torch.full((1, 1), torch.nan), {}),
        (None, {"largest": 0.0}),
        (None, {"unit": "miles"}),
        (None, {"max_faces": 0}),
        ("nan", {}),
        ("negative", {}),
    ],
)
def test_error_that_no_colour_can_show(errors, options, tmp_path):
    mesh = Mesh.from_arrays(*sphere(4))
    if isinstance(errors, str):
        errors = torch.full((len(mesh.vertices),), float("nan") if errors == "nan" else -1.0)
    with pytest.raises(BadArgument):
        write_view_mesh(mesh, errors, tmp_path / "a.bin", **options)
    assert list(tmp_path.iterdir()) == []


def test_file_that_lies(tmp_path):
    write_view_mesh(Mesh.from_arrays(*sphere(6)), None, tmp_path / "a.bin")
    blob = (tmp_path / "a.bin").read_bytes()
    count = struct.unpack_from("<II", blob, 8)
    lies = [
        b"", blob[:20], b"SCVX" + blob[4:], blob[:4] + b"\x02" + blob[5:], blob[:-30], blob[:36] + b"junk",
        blob[:8] + struct.pack("<II", 2**31, count[1]) + blob[16:], blob[:8] + struct.pack("<II", 0, 0) + blob[16:],
        blob[:8] + struct.pack("<II", count[0] - 1, count[1]) + blob[16:],
        blob[:8] + struct.pack("<II", count[0], count[1] + 1) + blob[16:],
        blob[:36] + zlib.compress(struct.pack("<III", 2**32 - 1, 5, 5) + b"short"),
        blob[:36] + zlib.compress(b"\0" * 10_000_000),
    ]  # fmt: skip
    for lie in lies:
        with pytest.raises(BadFile):
            decode_view_mesh(lie)
    with pytest.raises(BadFile, match=r"gone\.bin"):
        read_view_mesh(tmp_path / "gone.bin")


def test_damage_gives_an_error_or_valid_indices():
    """Whatever the streams say, a face that is read points at a vertex."""
    vertices, faces = sphere(6)
    places = np.round(vertices * 1000).astype(np.int64)
    streams, residuals, _ = encode_faces(places, faces)
    generator, refused = np.random.default_rng(0), 0
    for _ in range(300):
        bad = [bytearray(stream) for stream in streams]
        which = generator.integers(3)
        bad[which][generator.integers(len(bad[which]))] = generator.integers(256)
        try:
            _, found = decode_faces([bytes(stream) for stream in bad], residuals, len(faces))
        except BadFile:
            refused += 1
        else:
            assert found.min() >= 0 and found.max() < len(vertices)
    assert refused > 50


def test_simplified_sphere_is_still_one():
    vertices, faces = sphere(60)
    values = vertices[:, 1].copy()
    simple = simplify(vertices, faces, values, 1000)
    assert 800 <= len(simple.faces) <= 1000 and simple.values is not None
    assert np.abs(np.linalg.norm(simple.vertices, axis=1) - 0.4).max() < 0.005
    assert np.abs(simple.values - simple.vertices[:, 1]).max() < 0.06
    a, b, c = (simple.vertices[simple.faces[:, k]] for k in range(3))
    normals = np.cross(b - a, c - a)
    assert ((normals * (a + b + c)).sum(1) > 0).all(), "a triangle was turned over"
    volume = (a * np.cross(b, c)).sum() / 6
    assert volume == pytest.approx(4 / 3 * np.pi * 0.4**3, rel=0.02)


@pytest.mark.parametrize("kind", ["gear", "thin_wall", "wire_frame"])
def test_simplification_that_tears_a_thin_part(kind):
    """Every point of the mesh keeps a triangle nearby: bars and double walls stay."""
    mesh = Mesh.from_arrays(*procedural_arrays(numpy_rng(1, purpose=kind), kind)).normalise()[0]
    vertices, faces = (array for array in mesh.numpy())
    for _ in range(2):  # four triangles from each
        middle, count = [(vertices[faces[:, k]] + vertices[faces[:, (k + 1) % 3]]) / 2 for k in range(3)], len(faces)
        at = [len(vertices) + k * count + np.arange(count) for k in range(3)]
        a, b, c = faces.T
        faces = np.concatenate([np.stack(f, 1) for f in ((a, at[0], at[2]), (at[0], b, at[1]), (at[2], at[1], c), at)])
        vertices = np.concatenate([vertices, *middle])
    fine, inverse = np.unique(np.round(vertices * 2**20).astype(np.int64), axis=0, return_inverse=True)
    faces = inverse.reshape(-1)[faces]
    simple = simplify((fine / 2**20).astype(np.float32), faces, None, len(faces) // 12)
    samples = mesh.sample(2000, torch.Generator().manual_seed(0))[0]
    kept = torch.from_numpy(simple.vertices), torch.from_numpy(simple.faces)
    distance = closest_point(samples, *kept).distance
    assert len(simple.faces) <= len(faces) // 12 and float(distance.max()) < 0.01


def test_open_sheet_keeps_its_rim():
    x, y = np.meshgrid(np.linspace(-0.4, 0.4, 41), np.linspace(-0.3, 0.3, 31), indexing="ij")
    index = np.arange(x.size).reshape(x.shape)
    a, b, c, d = index[:-1, :-1], index[1:, :-1], index[1:, 1:], index[:-1, 1:]
    faces = np.concatenate([np.stack([a, b, c], 2), np.stack([a, c, d], 2)]).reshape(-1, 3)
    vertices = np.stack([x, y, np.zeros_like(x)], 2).reshape(-1, 3).astype(np.float32)
    simple = simplify(vertices, faces, None, 60)
    p, q, r = (simple.vertices[simple.faces[:, k]] for k in range(3))
    assert len(simple.faces) <= 60
    assert np.cross(q - p, r - p)[:, 2].sum() / 2 == pytest.approx(0.48, rel=0.01)
    assert simple.vertices[:, :2].min(0) == pytest.approx([-0.4, -0.3], abs=0.01)


def test_triangles_that_share_nothing_are_left():
    corner = np.random.default_rng(0).random((50, 1, 3)).astype(np.float32)
    vertices = (corner + 0.01 * np.eye(3, dtype=np.float32)).reshape(-1, 3)
    simple = simplify(vertices, np.arange(150).reshape(50, 3), None, 10)
    assert 0 < len(simple.faces) <= 50 and np.isfinite(simple.vertices).all()


def test_few_triangles_stay_as_they_are():
    vertices, faces = sphere(5)
    unused = np.concatenate([vertices, np.full((2, 3), 9.0, np.float32)])
    simple = simplify(unused, faces, np.arange(len(unused), dtype=np.float32), 10_000)
    assert corners(simple.vertices, simple.faces) == corners(vertices, faces) and simple.values is not None
    assert len(simple.vertices) == len(vertices) and simple.values.tolist() == list(range(len(vertices)))
