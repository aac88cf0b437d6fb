from pathlib import Path

import numpy as np
import pytest
import torch
from data_set import ASSETS, row, write_manifest
from safetensors.numpy import save_file

import shapecodec
from shapecodec.data.collection import MeshCollection, build_pool, decode_draco, pack_folder
from shapecodec.data.manifest import Entry, check_licences, read_manifest
from shapecodec.errors import BadArgument, BadFile, BadMesh


def equal(one, two):
    return torch.equal(one.vertices, two.vertices) and torch.equal(one.faces, two.faces) and one.entries == two.entries


def test_folder_and_packed_file_hold_the_same(folder, tmp_path):
    collection = MeshCollection.from_folder(folder)
    assert len(collection) == 2 and collection.face_counts().tolist() == [1820, 2910]
    size = pack_folder(folder, tmp_path / "train.safetensors")
    assert size < 20_000
    assert equal(MeshCollection.load(tmp_path / "train.safetensors"), collection)


def test_processes_change_nothing():
    assert equal(build_pool(3, seed=1, workers=2), build_pool(3, seed=1))


def test_longer_pool_starts_with_the_shorter():
    short, long = build_pool(3, seed=1), build_pool(5, seed=1)
    for index in range(3):
        assert torch.equal(short.mesh(index).vertices, long.mesh(index).vertices)
    other = build_pool(3, seed=2)
    assert any(len(short.mesh(i).faces) != len(other.mesh(i).faces) for i in range(3))


def test_welding_closes_what_draco_split(folder):
    trex = MeshCollection.from_folder(folder).mesh(0)
    assert trex.is_watertight() and len(trex.vertices) == 912


def test_saved_pool_comes_back_to_16_bits(tmp_path):
    pool = build_pool(4, seed=0)
    pool.save(tmp_path / "pool.safetensors")
    back = MeshCollection.load(tmp_path / "pool.safetensors")
    assert back.entries == pool.entries
    for index in range(4):
        one, two = pool.mesh(index), back.mesh(index)
        assert float(one.face_areas().sum()) == pytest.approx(float(two.face_areas().sum()), rel=2e-3)
        for corner, other in zip(one.bounds(), two.bounds(), strict=True):
            assert torch.allclose(corner, other, atol=1e-4)


def test_joined_collections_keep_their_order(folder):
    real, pool = MeshCollection.from_folder(folder), build_pool(2, seed=0)
    whole = MeshCollection.joined([real, pool])
    assert torch.equal(whole.mesh(3).vertices, pool.mesh(1).vertices)
    assert torch.equal(whole.mesh(1).faces, real.mesh(1).faces)


def test_licences_and_attributions_are_told(folder):
    collection = MeshCollection.from_folder(folder)
    assert collection.licences() == {"CC0-1.0": 1, "CC-BY-4.0": 1}
    assert collection.attributions() == ["a/b: Quaternius [CC-BY-4.0]"]


@pytest.mark.parametrize(
    ("licence", "is_open"),
    [("CC0-1.0 (Poly Haven)", True), ("BSD-3-Clause", True), ("MIT-0", True), ("CC-BY-3.0", True), ("unknown", False),
     ("CC-BY-NC-4.0", False), ("CC-BY-SA-3.0", False), ("CC-BY-ND-4.0", False), ("GPL-3.0", False), ("", False)],
)  # fmt: skip
def test_closed_licence_is_refused(licence, is_open):
    entry = Entry("thing", licence=licence)
    assert entry.is_open == is_open
    if not is_open:
        with pytest.raises(BadFile, match="thing"):
            check_licences([entry], "somewhere")


def test_closed_licence_needs_to_be_asked_for(folder):
    write_manifest(folder, [row("train", "trex", "CC-BY-NC-4.0")])
    with pytest.raises(BadFile, match="no open licence"):
        MeshCollection.from_folder(folder)
    assert len(MeshCollection.from_folder(folder, any_licence=True)) == 1


def test_replaced_file_is_noticed(folder):
    (folder / "train" / "trex.drc").write_bytes((folder / "train" / "barn.drc").read_bytes())
    with pytest.raises(BadFile, match="checksum"):
        MeshCollection.from_folder(folder)


def test_missing_file_missing_column_missing_split(folder):
    (folder / "train" / "trex.drc").unlink()
    with pytest.raises(BadFile, match="no such file"):
        MeshCollection.from_folder(folder)
    with pytest.raises(BadArgument, match="train, val"):
        read_manifest(folder, "training")
    with pytest.raises(BadFile, match="split 'test'"):
        read_manifest(folder, "test")
    (folder / "manifest.csv").write_text("file,name\n")
    with pytest.raises(BadFile, match="licence"):
        read_manifest(folder)
    (folder / "manifest.csv").unlink()
    with pytest.raises(BadFile, match="no such file"):
        read_manifest(folder)


@pytest.mark.parametrize("path", ["/etc/passwd", "../outside.drc", "train/../../outside.drc"])
def test_manifest_cannot_point_outside(folder, path):
    write_manifest(folder, [row("train", "trex", "CC0-1.0") | {"file": path}])
    with pytest.raises(BadFile, match="outside"):
        read_manifest(folder)


@pytest.mark.parametrize("stream", [b"", b"not draco", (ASSETS / "trex.drc").read_bytes()[:500]])
def test_damaged_stream(stream):
    with pytest.raises(BadFile):
        decode_draco(stream, "thing.drc")


def test_wrong_packed_files(folder, tmp_path):
    path = tmp_path / "train.safetensors"
    with pytest.raises(BadFile, match="no such file"):
        MeshCollection.load(path)
    pack_folder(folder, path)
    path.write_bytes(path.read_bytes()[:-100])
    with pytest.raises(BadFile, match="not a readable"):
        MeshCollection.load(path)
    save_file({"weights": np.zeros(3, np.float32)}, path)
    with pytest.raises(BadFile, match="format"):
        MeshCollection.load(path)


def test_arrays_that_are_no_mesh_and_empty_collections():
    with pytest.raises(BadMesh, match="broken"):
        MeshCollection.from_arrays([(np.zeros((3, 3)), np.array([[0, 1, 9]]))], [Entry("broken")])
    with pytest.raises(BadArgument):
        MeshCollection.from_arrays([], [])
    with pytest.raises(BadArgument):
        build_pool(0, seed=0)


def test_bundled_meshes_say_their_licence():
    for folder in (ASSETS, Path(shapecodec.__file__).parent / "assets"):
        text = (folder / "LICENSES.md").read_text()
        meshes = list(folder.glob("*.drc"))
        assert meshes
        for mesh in meshes:
            assert f"`{mesh.name}`" in text
            decode_draco(mesh.read_bytes(), mesh.name)
    assert "CC-BY" in (Path(__file__).parents[2] / "LICENSES-DATA.md").read_text()
