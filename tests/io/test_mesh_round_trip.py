"""What is written comes back, here and in an independent reader; other people's dialects are read."""

import json
import struct

import numpy as np
import pytest
import torch
import trimesh
from shapes import TETRA, gltf, parse, tetra, triangles, wavy_grid

from shapecodec.io.mesh_files import FORMATS, WRITE_FORMATS, read_mesh, write_mesh
from shapecodec.mesh import Mesh


@pytest.mark.parametrize("suffix", [".obj", ".ply", ".stl", ".glb"])
def test_exact_round_trip(tmp_path, suffix):
    mesh, path = wavy_grid(), tmp_path / f"a{suffix}"
    write_mesh(mesh, path)
    vertices, faces = parse(path)
    assert len(vertices) == len(mesh.vertices)
    np.testing.assert_array_equal(triangles(vertices, faces), triangles(*mesh.numpy()))
    other = trimesh.load(path, force="mesh", process=False)
    np.testing.assert_array_equal(triangles(other.vertices, other.faces), triangles(*mesh.numpy()))
    assert [file.name for file in tmp_path.iterdir()] == [path.name]


def test_draco_rounds_to_sixteen_bits(tmp_path):
    mesh = wavy_grid()
    write_mesh(mesh, tmp_path / "a.drc")
    vertices, faces = parse(tmp_path / "a.drc")
    assert len(faces) == len(mesh.faces)
    low, high = mesh.bounds()
    away = np.linalg.norm(vertices[:, None] - mesh.vertices.numpy(), axis=2, ord=np.inf)
    error = max(away.min(0).max(), away.min(1).max())
    assert error <= float((high - low).max()) / 131_070 * 1.01


@pytest.mark.parametrize("suffix", [".ply", ".glb"])
def test_vertex_colours(tmp_path, suffix):
    mesh, path = wavy_grid(), tmp_path / f"a{suffix}"
    colours = np.random.default_rng(0).integers(0, 256, (len(mesh.vertices), 3), np.uint8)
    write_mesh(mesh, path, colours=torch.from_numpy(colours))
    if suffix == ".ply":
        found = trimesh.load(path, process=False).visual.vertex_colors
    else:  # the last view of the file; trimesh reads no COLOR_0 where there is a material
        found = np.frombuffer(path.read_bytes()[-4 * len(colours) :], np.uint8).reshape(-1, 4)
        assert b'"COLOR_0":2' in path.read_bytes()
    np.testing.assert_array_equal(found[:, :3], colours)
    assert (found[:, 3] == 255).all()
    np.testing.assert_array_equal(triangles(*parse(path)), triangles(*mesh.numpy()))


@pytest.mark.parametrize("suffix", sorted(FORMATS))
def test_through_the_child(tmp_path, suffix):
    """One pass of the whole path for each format, in upper case, with spaces and other letters in the name."""
    path = tmp_path / f"ein Stühl{suffix.upper()}"
    if suffix in WRITE_FORMATS:
        write_mesh(tetra(), path)
    elif suffix == ".off":
        path.write_text("OFF 4 4 6\n0 0 0\n1 0 0\n0 1 0\n0 0 1\n3 0 2 1\n3 0 1 3\n3 1 2 3\n3 0 3 2\n")
    else:
        gltf(tmp_path / "a.gltf").rename(path)
    mesh = read_mesh(path)
    assert (len(mesh.vertices), len(mesh.faces)) == (4, 4)
    assert mesh.is_watertight()
    assert mesh.name == str(path)
    np.testing.assert_array_equal(triangles(*mesh.numpy()), triangles(*TETRA))


@pytest.mark.parametrize("suffix", [".obj", ".off", ".ply", ".stl", ".glb"])
def test_files_of_another_writer(tmp_path, suffix):
    other = trimesh.creation.icosphere(2)
    other.export(tmp_path / f"a{suffix}")
    vertices, faces = parse(tmp_path / f"a{suffix}")
    mesh = Mesh.from_arrays(vertices, faces)
    assert (len(vertices), len(faces), mesh.is_watertight()) == (162, 320, True)
    assert float((mesh.vertices.norm(dim=1) - 1).abs().max()) < 1e-6


@pytest.mark.parametrize("encoding", ["ascii", "binary_big_endian"])
def test_ply_dialects(tmp_path, encoding):
    """Doubles, extra properties before and after, faces of mixed sizes, a foreign element with a list."""
    head = (
        f"ply\nformat {encoding} 1.0\ncomment a\nelement vertex 5\nproperty uchar red\nproperty double z\n"
        "property double x\nproperty double y\nelement face 2\nproperty uchar flag\n"
        "property list uchar uint vertex_index\n"
        "property list uchar float texcoord\nelement edge 1\nproperty int a\nend_header\n"
    )
    points = [(0, 0, 0), (1, 0, 0), (1, 1, 0), (0, 1, 0), (0, 0, 2)]
    if encoding == "ascii":
        body = "".join(f"9 {z} {x} {y}\n" for x, y, z in points) + "7 4 0 1 2 3 2 .5 .5\n7 3 0 1 4 0\n5\n"
        data = (head + body).encode()
    else:
        data = head.encode() + b"".join(struct.pack(">Bddd", 9, z, x, y) for x, y, z in points)
        data += struct.pack(">BB4IB2f", 7, 4, 0, 1, 2, 3, 2, 0.5, 0.5) + struct.pack(">BB3IB", 7, 3, 0, 1, 4, 0)
        data += struct.pack(">i", 5)
    path = tmp_path / "a.ply"
    path.write_bytes(data)
    vertices, faces = parse(path)
    np.testing.assert_array_equal(vertices, points)
    np.testing.assert_array_equal(faces, [[0, 1, 2], [0, 2, 3], [0, 1, 4]])


def test_obj_dialects(tmp_path):
    """Relative indices, slashes, polygons, continued lines, groups, colours, CRLF, no line end at the end."""
    path = tmp_path / "a.obj"
    path.write_bytes(
        b"mtllib a.mtl\r\no thing\r\nv 0 0 0 1 0 0\r\nv  1 0\t0\r\nvn 0 0 1\r\nvt 0 0\r\nv 1 1 0\r\nv 0 1 0 1.0\r\n"
        b"g side\r\nusemtl f 9 9 9\r\ns off\r\nf 1/1/1 2//1 \\\r\n 3 4/1\r\n# f 7 8 9\r\nf -1 -2 -4\r\nv 0 0 2\r\n"
        b"l 1 2\r\n  f 1 2 -1"
    )
    vertices, faces = parse(path)
    np.testing.assert_array_equal(vertices, [[0, 0, 0], [1, 0, 0], [1, 1, 0], [0, 1, 0], [0, 0, 2]])
    np.testing.assert_array_equal(faces, [[0, 1, 2], [0, 2, 3], [3, 2, 0], [0, 1, 4]])


def test_obj_pieces_agree_with_the_whole(tmp_path, monkeypatch):
    """Long files are read in pieces; relative indices reach back across them."""
    from shapecodec.io.parse import text

    mesh = wavy_grid()
    vertices, faces = mesh.numpy()
    lines = "".join(f"v {x:.9g} {y:.9g} {z:.9g}\n" for x, y, z in vertices.tolist())
    lines += "".join(f"f {a} {b} {c}\n" for a, b, c in (faces - len(vertices)).tolist())
    (tmp_path / "a.obj").write_text(lines)
    monkeypatch.setattr(text, "_CHUNK", 777)
    np.testing.assert_array_equal(triangles(*parse(tmp_path / "a.obj")), triangles(vertices, faces))


def test_off_dialects(tmp_path):
    path = tmp_path / "a.off"
    path.write_text(
        "COFF # colours\n# counts\n4 2 0\n0 0 0 255 0 0 1\n1 0 0 1 2 3 4\n\n1 1 0 1 2 3 4\n0 1 0 1 2 3 4\n"
        "4 0 1 2 3 9 9 9\n3 0 1 3\n"
    )
    vertices, faces = parse(path)
    np.testing.assert_array_equal(faces, [[0, 1, 2], [0, 2, 3], [0, 1, 3]])
    assert len(vertices) == 4


def test_ascii_stl_with_several_solids(tmp_path):
    facet = (
        "facet normal 0 0 0\n outer loop\n  VERTEX {} 0 0\n  vertex 1e0 0 0\n vertex 0 +1.5E-1 0\n endloop\nendfacet\n"
    )
    path = tmp_path / "a.stl"
    path.write_text(f"solid a\n{facet.format(0)}endsolid a\nsolid b\n{facet.format(-1)}endsolid b\n")
    vertices, faces = parse(path)
    assert (len(vertices), len(faces)) == (4, 2)


def test_binary_stl_that_begins_with_solid(tmp_path):
    write_mesh(tetra(), tmp_path / "a.stl")
    data = (tmp_path / "a.stl").read_bytes()
    (tmp_path / "a.stl").write_bytes(b"solid facet normal".ljust(80) + data[80:])
    assert len(parse(tmp_path / "a.stl")[1]) == 4


def test_scene_transforms_and_mirrors(tmp_path):
    """Nodes by matrix and by parts, nested; a mirroring node must not turn the surface inside out."""
    half = 0.5**0.5
    nodes = [
        {"children": [1, 2], "translation": [10, 0, 0]},
        {"mesh": 0, "rotation": [0, 0, half, half], "scale": [2, 2, 2]},
        {"mesh": 0, "matrix": [-1, 0, 0, 0, 0, 1, 0, 0, 0, 0, 1, 0, 0, 5, 0, 1]},
        {"mesh": 0, "name": "not in the scene"},
    ]
    vertices, faces = parse(gltf(tmp_path / "a.glb", {"nodes": nodes}))
    points = TETRA[0]
    first = points[:, [1, 0, 2]] * [-2, 2, 2] + [10, 0, 0]
    second = points * [-1, 1, 1] + [10, 5, 0]
    np.testing.assert_allclose(vertices, np.concatenate([first, second]), atol=1e-6)
    corners = vertices[faces].astype(np.float64)
    volumes = np.einsum("fc,fc->f", corners[:, 0], np.cross(corners[:, 1], corners[:, 2])).reshape(2, 4).sum(1) / 6
    np.testing.assert_allclose(volumes, [8 / 6, 1 / 6], rtol=1e-6)


def test_gltf_agrees_with_another_reader(tmp_path):
    scene = trimesh.Scene()
    for number in range(3):
        turn = trimesh.transformations.random_rotation_matrix(np.random.default_rng(number).random(3))
        turn[:3, 3] = number
        scene.add_geometry(trimesh.creation.box((1, 2, 3 + number)), transform=turn)
    scene.export(tmp_path / "a.glb")
    ours, theirs = parse(tmp_path / "a.glb"), trimesh.load(tmp_path / "a.glb", force="mesh")
    assert len(ours[1]) == 36
    np.testing.assert_allclose(ours[0].min(0), theirs.bounds[0], atol=1e-5)
    np.testing.assert_allclose(np.ptp(ours[0], axis=0), theirs.extents, atol=1e-5)


def test_gltf_primitives(tmp_path):
    """Strips, fans, no indices, short indices, quantised and sparse positions, buffers in data: URIs."""
    strip = np.array([0, 1, 2, 3], np.uint8)
    for mode, expected in ((5, [[0, 1, 2], [1, 3, 2]]), (6, [[1, 2, 0], [2, 3, 0]])):
        meshes = [{"primitives": [{"attributes": {"POSITION": 1}, "indices": 0, "mode": mode}]}]
        _, faces = parse(gltf(tmp_path / "a.glb", {"meshes": meshes}, index=strip), weld=False)
        np.testing.assert_array_equal(faces, expected)
    plain = [{"primitives": [{"attributes": {"POSITION": 1}}]}]
    _, faces = parse(gltf(tmp_path / "b.glb", {"meshes": plain}), weld=False)
    np.testing.assert_array_equal(faces, [[0, 1, 2]])
    short = np.round(TETRA[0] * 32767).astype(np.int16)
    path = gltf(tmp_path / "c.gltf", points=short)
    document = json.loads(path.read_text())
    document["accessors"][1]["normalized"] = True
    path.write_text(json.dumps(document))
    np.testing.assert_array_equal(parse(path)[0], TETRA[0])
    document["accessors"][1] = {
        "componentType": 5126, "count": 4, "type": "VEC3",
        "sparse": {
            "count": 3, "indices": {"bufferView": 0, "componentType": 5121},
            "values": {"bufferView": 1, "byteOffset": 0},
        },
    }  # fmt: skip
    rows, index = np.array([1, 2, 3], np.uint8).tobytes() + b"\0", TETRA[1].astype(np.uint8)
    blob = rows + TETRA[0][1:].tobytes() + index.tobytes()
    document["accessors"][0] |= {"bufferView": 2, "componentType": 5121}
    document["bufferViews"] = [
        {"buffer": 0, "byteOffset": 0, "byteLength": 4},
        {"buffer": 0, "byteOffset": 4, "byteLength": 36},
        {"buffer": 0, "byteOffset": 40, "byteLength": 12},
    ]
    import base64

    document["buffers"][0]["uri"] = "data:application/octet-stream;base64," + base64.b64encode(blob).decode()
    path.write_text(json.dumps(document))
    vertices, faces = parse(path)
    np.testing.assert_array_equal(triangles(vertices, faces), triangles(*TETRA))


def test_draco_inside_glb(tmp_path):
    trimesh.Scene(trimesh.creation.icosphere(2)).export(tmp_path / "a.glb", extension_draco=True)
    assert b"KHR_draco_mesh_compression" in (tmp_path / "a.glb").read_bytes()
    vertices, faces = parse(tmp_path / "a.glb")
    assert (len(vertices), len(faces)) == (162, 320)


def test_unused_vertices_are_dropped(tmp_path):
    path = tmp_path / "a.obj"
    path.write_text("v 9e9 0 0\nv 0 0 0\nv 1 0 0\nv 0 1 0\nf 2 3 4\n")
    assert len(parse(path)[0]) == 3
