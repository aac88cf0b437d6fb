"""Each way in which a mesh file can be wrong has its own message; nothing wrong becomes a mesh."""

import os
import struct

import numpy as np
import pytest
from shapes import TETRA, gltf, parse, tetra, wavy_grid

from shapecodec.errors import BadArgument, BadFile, BadMesh
from shapecodec.io.mesh_files import read_mesh, write_mesh


def stl(count: int, facets: int, extra: bytes = b"") -> bytes:
    body = np.random.default_rng(0).random((facets, 12), np.float32)
    return b"".ljust(80) + struct.pack("<I", count) + b"".join(row.tobytes() + b"\0\0" for row in body) + extra


PLY = "ply\nformat ascii 1.0\nelement vertex {v}\nproperty float x\nproperty float y\nproperty float z\n"
PLY_FACES = "element face {f}\nproperty list uchar int vertex_indices\nend_header\n"
POINTS = "0 0 0\n1 0 0\n0 1 0\n"
SOLID = (
    "solid a\nfacet normal 0 0 1\nouter loop\nvertex 0 0 0\nvertex 1 0 0\nvertex 0 1 0\nendloop\nendfacet\nendsolid a\n"
)

BAD = {
    "obj without faces": ("a.obj", "v 0 0 0\nv 1 0 0\n", BadMesh, "no faces"),
    "obj without anything": ("a.obj", "# nothing\n", BadFile, "no vertex"),
    "obj index too high": ("a.obj", "v 0 0 0\nv 1 0 0\nv 0 1 0\nf 1 2 9\n", BadMesh, "index 8"),
    "obj index 0": ("a.obj", "v 0 0 0\nv 1 0 0\nv 0 1 0\nf 0 1 2\n", BadFile, "counts from 1"),
    "obj relative index before the first": ("a.obj", "v 0 0 0\nv 1 0 0\nv 0 1 0\nf -1 -2 -9\n", BadMesh, "index -6"),
    "obj with words for numbers": ("a.obj", "v 0 0 zero\n", BadFile, "'zero'"),
    "obj with short vertices": ("a.obj", "v 0 0\n", BadFile, "fewer than 3"),
    "obj with words for corners": ("a.obj", "v 0 0 0\nf a b c\n", BadFile, "'a'"),
    "obj with two corners": ("a.obj", "v 0 0 0\nv 1 0 0\nv 0 1 0\nf 1 2\n", BadFile, "2 corners"),
    "obj NaN": ("a.obj", "v 0 0 nan\nv 1 0 0\nv 0 1 0\nf 1 2 3\n", BadMesh, "NaN"),
    "obj infinite": ("a.obj", "v 0 0 inf\nv 1 0 0\nv 0 1 0\nf 1 2 3\n", BadMesh, "infinite"),
    "obj beyond float32": ("a.obj", "v 0 0 1e300\nv 1 0 0\nv 0 1 0\nf 1 2 3\n", BadMesh, "beyond float32"),
    "obj all degenerate": ("a.obj", "v 0 0 0\nv 1 0 0\nf 1 2 2\nf 1 1 2\n", BadMesh, "degenerate"),
    "obj degenerate once welded": ("a.obj", "v 0 0 0\nv 1 0 0\nv 1 0 0\nf 1 2 3\n", BadMesh, "degenerate"),
    "obj that is binary": ("a.obj", bytes(range(256)) * 4, BadFile, "no vertex"),
    "off without header": ("a.off", "hello\n", BadFile, "no OFF header"),
    "off with too few lines": ("a.off", "OFF\n3 5 0\n" + POINTS + "3 0 1 2\n", BadFile, "promises"),
    "off index too high": ("a.off", "OFF\n3 1 0\n" + POINTS + "3 0 1 3\n", BadMesh, "index 3"),
    "off index below zero": ("a.off", "OFF\n3 1 0\n" + POINTS + "3 0 1 -1\n", BadMesh, "index -1"),
    "off of four dimensions": ("a.off", "4OFF\n3 1 0\n" + POINTS + "3 0 1 2\n", BadFile, "three-dimensional"),
    "off binary": ("a.off", "OFF BINARY\n3 1 0\n", BadFile, "text OFF"),
    "ply without header": ("a.ply", "plx", BadFile, "PLY header"),
    "ply points": ("a.ply", PLY.format(v=3) + "end_header\n" + POINTS, BadMesh, "no faces"),
    "ply index too high": ("a.ply", (PLY + PLY_FACES).format(v=3, f=1) + POINTS + "3 0 1 7\n", BadMesh, "index 7"),
    "ply lines missing": ("a.ply", (PLY + PLY_FACES).format(v=3, f=9) + POINTS + "3 0 1 2\n", BadFile, "promises"),
    "ply negative count": ("a.ply", (PLY + PLY_FACES).format(v=-3, f=1), BadFile, "not understood"),
    "ply unknown type": ("a.ply", (PLY + PLY_FACES).replace("float x", "quad x").format(v=3, f=1), BadFile, "quad"),
    "stl shorter than a header": ("a.stl", b"\0" * 20, BadFile, "truncated"),
    "stl truncated": ("a.stl", stl(9, 9)[:-77], BadFile, "truncated"),
    "stl that promises too much": ("a.stl", stl(4_000_000_000, 9), BadFile, "its header lies"),
    "stl that promises too little": ("a.stl", stl(3, 9), BadFile, "its header lies"),
    "stl with a tail": ("a.stl", stl(9, 9, b"x" * 7), BadFile, "its header lies"),
    "stl without faces": ("a.stl", stl(0, 0), BadMesh, "no geometry"),
    "ascii stl truncated": ("a.stl", SOLID[:-30], BadFile, "truncated"),
    "ascii stl with a missing vertex": ("a.stl", SOLID.replace("vertex 1 0 0\n", ""), BadFile, "2 vertices"),
    "ascii stl with words": ("a.stl", SOLID.replace("1 0 0", "1 o 0"), BadFile, "not a number"),
    "drc that is not Draco": ("a.drc", b"hello world, hello", BadFile, "Draco mark"),
    "drc header only": ("a.drc", b"DRACO\2\2\1\1\0\0", BadFile, "cannot decode"),
    "glb of version 1": ("a.glb", struct.pack("<4sIIII", b"glTF", 1, 20, 0, 0), BadFile, "version 1"),
    "glb cut in its header": ("a.glb", b"glTF\2\0\0\0", BadFile, "truncated"),
    "gltf that is no JSON": ("a.gltf", "{", BadFile, "not valid"),
    "gltf that is a list": ("a.gltf", "[]", BadFile, "not valid"),
    "gltf nested without end": ("a.gltf", "[" * 100_000, BadFile, "nested too deeply"),
    "gltf without meshes": ("a.gltf", "{}", BadMesh, "no geometry"),
}


@pytest.mark.parametrize("case", BAD)
def test_each_bad_file_has_its_own_message(tmp_path, case):
    name, content, kind, message = BAD[case]
    path = tmp_path / name
    path.write_bytes(content if isinstance(content, bytes) else content.encode())
    with pytest.raises(kind, match=message):
        parse(path)


def test_binary_ply_that_lies_about_its_counts(tmp_path):
    write_mesh(wavy_grid(), tmp_path / "a.ply")
    data = (tmp_path / "a.ply").read_bytes()
    (tmp_path / "b.ply").write_bytes(data[:-5])
    with pytest.raises(BadFile, match="truncated"):
        parse(tmp_path / "b.ply")
    (tmp_path / "c.ply").write_bytes(data.replace(b"element vertex 576", b"element vertex 4000000000"))
    with pytest.raises(BadFile, match="its header lies"):
        parse(tmp_path / "c.ply")
    (tmp_path / "d.ply").write_bytes(data.replace(b"element face 1058", b"element face 4000000000"))
    with pytest.raises(BadFile, match="its header lies"):
        parse(tmp_path / "d.ply", max_faces=1 << 40)


@pytest.mark.parametrize("change", ["index", "negative", "count", "view", "stride", "node", "tree", "mode"])
def test_bad_glb(tmp_path, change):
    index = TETRA[1].astype(np.uint32)
    kind, message, entries = BadFile, "", {}
    if change == "index":
        index, kind, message = index.copy(), BadMesh, "index 70211"
        index[2, 1] = 70211
    elif change == "negative":
        index, kind, message = TETRA[1].astype(np.int16) - 1, BadMesh, "index -1"
    elif change == "count":
        entries["accessors"] = [
            {"bufferView": 0, "componentType": 5125, "count": 13, "type": "SCALAR"},
            {"bufferView": 1, "componentType": 5126, "count": 4, "type": "VEC3"},
        ]
        message = "truncated"
    elif change == "view":
        entries["bufferViews"] = [{"buffer": 0, "byteLength": 48}, {"buffer": 0, "byteOffset": 50, "byteLength": 48}]
        message = "truncated"
    elif change == "stride":
        entries["bufferViews"] = [
            {"buffer": 0, "byteLength": 48},
            {"buffer": 0, "byteOffset": 48, "byteLength": 48, "byteStride": 1 << 40},
        ]
        message = "truncated"
    elif change == "node":
        entries["nodes"] = [{"mesh": -1}]
        message = "not valid"
    elif change == "tree":
        entries["nodes"] = [{"children": [1, 1]}, {"mesh": 0, "children": [0]}]
        message = "not a tree"
    else:
        entries["meshes"] = [{"primitives": [{"attributes": {"POSITION": 1}, "indices": 0, "mode": 1}]}]
        kind, message = BadMesh, "no geometry"
    with pytest.raises(kind, match=message):
        parse(gltf(tmp_path / "a.glb", entries, index=index))


def test_truncated_glb(tmp_path):
    path = gltf(tmp_path / "a.glb")
    path.write_bytes(path.read_bytes()[:-9])
    with pytest.raises(BadFile, match="truncated"):
        parse(path)


@pytest.mark.parametrize(
    "uri",
    [
        "../secret.bin", "%2e%2e/secret.bin", "sub/../../secret.bin", "..\\secret.bin", "/etc/passwd", "file:///etc/passwd",
        "file:secret.bin", "http://127.0.0.1:9/x.bin", "HTTPS://a/b", "C:\\x.bin", "\\\\host\\share", "link.bin",
    ],
)  # fmt: skip
def test_external_buffer_outside_the_folder(tmp_path, uri):
    (tmp_path / "secret.bin").write_bytes(b"\0" * 96)
    folder = tmp_path / "in"
    folder.mkdir()
    (folder / "link.bin").symlink_to(tmp_path / "secret.bin")
    path = gltf(folder / "a.gltf", {"buffers": [{"byteLength": 96, "uri": uri}]})
    with pytest.raises(BadFile, match="refused"):
        parse(path)


def test_external_buffer_that_is_missing(tmp_path):
    with pytest.raises(BadFile, match=r"gone\.bin' is missing"):
        parse(gltf(tmp_path / "a.gltf", {"buffers": [{"byteLength": 96, "uri": "gone.bin"}]}))


@pytest.mark.parametrize("suffix", ["obj", "ply", "stl", "glb", "drc"])
def test_more_faces_than_allowed(tmp_path, suffix):
    path = tmp_path / f"a.{suffix}"
    write_mesh(wavy_grid(), path)
    with pytest.raises(BadMesh, match=r"1,058 faces, more than the limit of 1,000"):
        parse(path, max_faces=1000)
    assert len(parse(path, max_faces=1058)[1]) == 1058


def test_instances_count_towards_the_limit(tmp_path):
    nodes = [{"children": list(range(1, 101))}, *({"mesh": 0} for _ in range(100))]
    with pytest.raises(BadMesh, match="400 faces"):
        parse(gltf(tmp_path / "a.glb", {"nodes": nodes}), max_faces=399)


def test_paths_that_are_no_files(tmp_path):
    with pytest.raises(BadFile, match="no such file"):
        read_mesh(tmp_path / "gone.obj")
    with pytest.raises(BadFile, match="is a folder"):
        read_mesh(tmp_path)
    (tmp_path / "a.obj").touch()
    with pytest.raises(BadFile, match="is empty"):
        read_mesh(tmp_path / "a.obj")
    (tmp_path / "a.xyz").write_text("0 0 0")
    with pytest.raises(BadFile, match=r"unknown mesh format '\.xyz'"):
        read_mesh(tmp_path / "a.xyz")
    os.mkfifo(tmp_path / "pipe.obj")
    with pytest.raises(BadFile, match="not a regular file"):
        read_mesh(tmp_path / "pipe.obj")
    with pytest.raises(BadArgument):
        read_mesh(tmp_path / "a.obj", max_faces=0)


def test_errors_name_the_file_and_reach_the_caller(tmp_path):
    path = tmp_path / "chair.obj"
    path.write_text("v 0 0 0\nv 1 0 0\nv 0 1 0\nf 1 2 9\n")
    with pytest.raises(BadMesh, match=r"chair\.obj: 1 of 1 faces point outside") as caught:
        read_mesh(path)
    assert caught.value.hint


@pytest.mark.parametrize(
    "text", ["v 0 0 0\nv 1e30 0 0\nv 0 1e30 0\nf 1 2 3\n", "v 0 0 0\nv 1e-30 0 0\nv 0 1e-30 0\nf 1 2 3\n"]
)
def test_extents_whose_areas_leave_float32(tmp_path, text):
    path = tmp_path / "a.obj"
    path.write_text(text)
    with pytest.raises(BadMesh, match="areas do not fit float32"):
        read_mesh(path)


@pytest.mark.parametrize("suffix", ["xyz", "off", ""])
def test_formats_that_cannot_be_written(tmp_path, suffix):
    with pytest.raises(BadFile, match="cannot write"):
        write_mesh(tetra(), tmp_path / f"a.{suffix}")


def test_failed_writes_leave_nothing(tmp_path):
    with pytest.raises(BadFile, match="does not exist"):
        write_mesh(tetra(), tmp_path / "gone" / "a.ply")
    with pytest.raises(BadArgument, match="colours must be"):
        write_mesh(tetra(), tmp_path / "a.ply", colours=np.zeros((3, 3), np.uint8))
    with pytest.raises(BadArgument, match="no vertex colours"):
        write_mesh(tetra(), tmp_path / "a.stl", colours=np.zeros((4, 3), np.uint8))
    (tmp_path / "b.ply").mkdir()
    with pytest.raises(BadFile, match="is a folder"):
        write_mesh(tetra(), tmp_path / "b.ply")
    assert [path.name for path in tmp_path.iterdir()] == ["b.ply"]
