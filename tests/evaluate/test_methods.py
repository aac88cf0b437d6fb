"""Codecs and folders that are scored in another frame, at another size or on another mesh than the files hold."""

from pathlib import Path

import pytest
import torch
from boxes import FACES, box, box_folder
from torch import nn

from shapecodec.codecs.base import Codec, Loss
from shapecodec.errors import BadArgument, BadFile, BadMesh
from shapecodec.evaluate.methods import Clock, CodecMethod, FolderMethod, OpenCodec, between
from shapecodec.evaluate.run import evaluate
from shapecodec.evaluate.shape import Plan
from shapecodec.evaluate.subjects import Subject, find_subjects
from shapecodec.io.latent_file import save_latents
from shapecodec.io.mesh_files import read_mesh, write_mesh
from shapecodec.io.quantise import quantise_latents
from shapecodec.latents import Latents, Level
from shapecodec.mesh import Mesh, Similarity

CPU = torch.device("cpu")


class Points:
    """A field whose surface is eight corners of a box."""

    def __init__(self, corners: torch.Tensor) -> None:
        self.corners = corners

    def to_mesh(self, resolution=None) -> Mesh:
        return Mesh(self.corners, FACES)


class CornerCodec(Codec):
    """A box's corners as latents, in a frame of its own: half the size of the unit cube."""

    kind = "corners"
    config = None

    def __init__(self) -> None:
        super().__init__()
        self.weight = nn.Parameter(torch.zeros(1))
        self.name = "corners"

    def normalise(self, mesh: Mesh) -> tuple[Mesh, Similarity]:
        frame = mesh.normalise()[1]
        frame = Similarity((frame.centre[0] + 0.25, *frame.centre[1:]), frame.scale / 2)
        return mesh.transformed(frame), frame

    def prepare(self, mesh: Mesh, rng=None, *, resolution=None):
        return mesh

    def encode(self, inputs: Mesh, rng=None) -> Latents:
        return Latents((Level(inputs.vertices, torch.tensor([0, 8])),), 64, codec=self.kind)

    def decode(self, latents: Latents) -> Points:
        return Points(latents.levels[0].feats)

    def loss(self, batch, step, rng) -> Loss:
        raise NotImplementedError

    def estimate_memory(self, mesh: Mesh, resolution: int) -> int:
        return 0


class WithOracle(CornerCodec):
    def oracle(self, inputs: Mesh) -> Points:
        return Points(inputs.vertices)


class WithoutInside(CornerCodec):
    def oracle(self, inputs: Mesh) -> Points:
        raise BadMesh("no inside.")


def reconstruct(codec: Codec, mesh: Mesh, **settings):
    opened = OpenCodec(codec, None, settings.get("surface"), settings.get("bits", 32))
    clock = Clock(CPU)
    return opened(Subject("a", Path("a"), "a"), mesh, mesh.normalise()[1], clock), clock


@pytest.mark.parametrize("bits", [6, 8, 32])
def test_quality_of_other_latents_than_the_file_holds(bits, tmp_path):
    mesh = box(3, 2, 1, corner=500.0)
    codec = CornerCodec()
    made, clock = reconstruct(codec, mesh, bits=bits)
    own, frame = codec.normalise(mesh)
    latents = codec.encode(own)
    assert made.facts["bytes"] == save_latents(latents, tmp_path / "a.safetensors", bits=bits)
    stored = quantise_latents(latents, bits).levels[0].feats
    unit = Mesh(stored, FACES).transformed(between(frame, mesh.normalise()[1]))
    torch.testing.assert_close(made.mesh.vertices, unit.vertices, rtol=0, atol=0)
    error = float((made.mesh.vertices - mesh.normalise()[0].vertices).abs().max())
    assert error < 2e-4 if bits == 32 else 0.0 <= error < 0.95 / (2**bits - 1)
    assert set(clock.seconds) == {"prepare", "encode", "store", "decode", "extract", "oracle"}
    assert made.facts["tokens"] == 8 and made.oracle is None


def test_oracle_in_another_frame_than_the_reconstruction():
    mesh = box(3, 2, 1)
    made, _ = reconstruct(WithOracle(), mesh, bits=6)
    torch.testing.assert_close(made.oracle.vertices, mesh.normalise()[0].vertices, rtol=0, atol=1e-6)
    made, _ = reconstruct(WithoutInside(), mesh)
    assert made.oracle is None and made.facts["reason"] == "no oracle: no inside."


def test_surface_that_a_codec_does_not_have_is_ignored():
    with pytest.raises(BadArgument, match="one way of making a surface"):
        reconstruct(CornerCodec(), box(1, 1, 1), surface="snapped")


def test_frames_are_mixed_up():
    points = torch.rand(50, 3, generator=torch.Generator().manual_seed(0)) * 4
    one, two = Similarity((1.0, -2.0, 0.5), 0.3), Similarity((0.1, 7.0, -3.0), 1.9)
    torch.testing.assert_close(between(one, two).apply(one.apply(points)), two.apply(points), rtol=0, atol=1e-5)
    assert between(one, one) == Similarity()


def test_codec_that_is_not_there_is_found_out_in_a_worker():
    with pytest.raises(BadFile):
        CodecMethod("no-such-codec").describe()
    with pytest.raises(BadArgument, match="bits"):
        CodecMethod("log3d-tiny", bits=5).describe()
    with pytest.raises(BadFile, match="no such folder"):
        FolderMethod(Path("nowhere")).describe()
    about = CodecMethod("log3d-tiny", surface="snapped").describe()
    assert about["codec"] == "log3d-tiny" and about["resolution"] == 256 and len(about["codec_hash"]) > 8
    assert CodecMethod("log3d-tiny", resolution=64).describe()["resolution"] == 64


def rebuild(folder: Path, subject: Subject, **settings):
    mesh = read_mesh(subject.path)
    opened = FolderMethod(folder, **settings).open(CPU)
    return opened(subject, mesh, mesh.normalise()[1], Clock(CPU)), mesh


def test_reconstruction_of_another_shape_or_name(tmp_path):
    data = box_folder(tmp_path / "data" / "deep", "a", "b").parent
    subjects = find_subjects(data)
    elsewhere = tmp_path / "made"
    (elsewhere / "deep").mkdir(parents=True)
    write_mesh(read_mesh(subjects[0].path), elsewhere / "a.glb")
    write_mesh(read_mesh(subjects[1].path), elsewhere / "deep" / "b.stl")
    for subject in subjects:
        made, mesh = rebuild(elsewhere, subject)
        low, high = made.mesh.bounds()
        expected = mesh.normalise()[0].bounds()
        torch.testing.assert_close(torch.stack([low, high]), torch.stack(expected), rtol=0, atol=1e-5)
    assert made.facts["bytes"] == (elsewhere / "deep" / "b.stl").stat().st_size and made.oracle is None
    (elsewhere / "a.glb").unlink()
    with pytest.raises(BadFile, match="no reconstruction of this name"):
        rebuild(elsewhere, subjects[0])


def test_alignment_hides_or_invents_an_error(tmp_path):
    (subject,) = find_subjects(box_folder(tmp_path / "data", "a"))
    mesh = read_mesh(subject.path)
    (tmp_path / "made").mkdir()
    write_mesh(Mesh(mesh.vertices * 3 - 40, mesh.faces), tmp_path / "made" / "a.ply")
    aligned, _ = rebuild(tmp_path / "made", subject, align="box")
    trusted, _ = rebuild(tmp_path / "made", subject)
    unit = mesh.normalise()[0]
    assert torch.allclose(torch.stack(aligned.mesh.bounds()), torch.stack(unit.bounds()), atol=1e-5)
    assert not torch.allclose(torch.stack(trusted.mesh.bounds()), torch.stack(unit.bounds()), atol=0.1)


@pytest.mark.gpu
@pytest.mark.timeout(600)
def test_rows_of_a_gpu_differ_from_those_of_a_cpu(device, tmp_path):
    data = box_folder(tmp_path / "data", *"abc")
    tables = {}
    for name, workers in ((device, 2), ("cpu", 0)):
        method = CodecMethod("log3d-tiny", 64, "snapped")
        plan = Plan(method, data, protocols=("exact-v1", "normals-v1"), points=20_000, device=name)
        tables[name] = evaluate(plan, tmp_path / name, workers=workers).rows
    for one, two in zip(tables[device], tables["cpu"], strict=True):
        assert one["status"] == two["status"] == "ok", one.get("reason")
        assert one["tokens"] == two["tokens"] and one["peak_memory_bytes"] > 1e6
        for kind in ("", "oracle."):
            key = f"{kind}exact-v1.exact.completeness_voxels.mean"
            assert one[key] == pytest.approx(two[key], rel=0.1, abs=0.02), key
