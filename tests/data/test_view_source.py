import json
from dataclasses import asdict

import pytest
import torch

from shapecodec.codecs.focusing.views import CameraConfig
from shapecodec.data.augment import Augment
from shapecodec.data.collection import MeshCollection
from shapecodec.data.manifest import Entry
from shapecodec.data.view_source import ViewSource, ViewSourceConfig, open_view_source, prepared_collection
from shapecodec.errors import BadArgument
from shapecodec.mesh import Mesh

CUBE = [
    *([0, 1, 3], [0, 3, 2], [4, 6, 7], [4, 7, 5], [0, 4, 5], [0, 5, 1]),
    *([2, 3, 7], [2, 7, 6], [0, 2, 6], [0, 6, 4], [1, 5, 7], [1, 7, 3]),
]


def volume(mesh: Mesh) -> float:
    a, b, c = mesh.vertices.double()[mesh.faces].unbind(1)
    return float((a * torch.linalg.cross(b, c)).sum() / 6)


def collection(*, broken: bool = False, copies: int = 3) -> MeshCollection:
    """Boxes of growing number of faces, the smallest first; broken: no common vertices, a third of the faces turned."""
    corners = torch.cartesian_prod(*[torch.tensor([-1.0, 1.0])] * 3) * torch.tensor([1.0, 0.6, 0.3])
    meshes = []
    for boxes in range(1, copies + 1):
        vertices = torch.cat([corners + torch.tensor([0.0, 0.0, 1.5 * k]) for k in range(boxes)])
        faces = torch.cat([torch.tensor(CUBE) + 8 * k for k in range(boxes)])
        if broken:
            vertices, faces = vertices[faces].reshape(-1, 3), torch.arange(3 * len(faces)).view(-1, 3)
            faces = torch.where(torch.arange(len(faces))[:, None] % 3 == 0, faces[:, [0, 2, 1]], faces)
            vertices = torch.cat([vertices, torch.full((1, 3), 50.0)])  # a vertex that no face uses
        meshes.append((vertices.numpy(), faces.numpy()))
    return MeshCollection.from_arrays(meshes, [Entry(str(k)) for k in range(copies)])


def config(**changes) -> ViewSourceConfig:
    return ViewSourceConfig(**{"procedural": 0, "shapes": 4, "size": 32} | changes)


def test_shards_see_other_shapes():
    source = ViewSource(collection(), None, config())
    whole = source.batch(5, 0, 1, "cpu")
    halves = [source.batch(5, rank, 2, "cpu") for rank in (0, 1)]
    again = ViewSource(collection(), None, config()).batch(5, 0, 1, "cpu")
    for other in ([*halves[0].meshes, *halves[1].meshes], again.meshes):
        assert all(torch.equal(a.vertices, b.vertices) for a, b in zip(whole.meshes, other, strict=True))
        assert all(torch.equal(a.faces, b.faces) for a, b in zip(whole.meshes, other, strict=True))
    for other in ([*halves[0].cameras, *halves[1].cameras], again.cameras):
        assert all(torch.equal(a.view, b.view) for a, b in zip(whole.cameras, other, strict=True))
    later = source.batch(6, 0, 1, "cpu")
    assert not torch.equal(later.cameras[0].view, whole.cameras[0].view)
    assert len({float(camera.view[2, 0]) for camera in whole.cameras}) == 4
    with pytest.raises(BadArgument, match="do not divide into 3 shards"):
        source.batch(0, 0, 3, "cpu")


def test_mirrored_shape_is_inside_out():
    source = ViewSource(collection(), None, config(shapes=40, augment=Augment(mirror=0.5, stretch=(0.5, 2.0))))
    batch = source.batch(0, 0, 1, "cpu")
    assert min(volume(mesh) for mesh in batch.meshes) > 0
    assert max(float(mesh.vertices.abs().max()) for mesh in batch.meshes) <= 0.5
    assert all(camera.width == camera.height == 32 for camera in batch.cameras)


def test_seams_and_turned_faces_reach_the_loss():
    prepared = prepared_collection(collection(broken=True))
    for index, expected in enumerate([1.0, 2.0, 3.0]):
        mesh = prepared.mesh(index)
        assert mesh.is_watertight() and len(mesh.vertices) == 8 * (index + 1)
        assert volume(mesh) == pytest.approx(expected * 8 * 0.18, rel=1e-5)


def test_simple_shapes_come_as_often_as_detailed_ones():
    source = ViewSource(collection(), None, config(shapes=300, augment=Augment(stretched=0.0)))
    counts = torch.bincount(torch.tensor([len(mesh.faces) // 12 for mesh in source.batch(0, 0, 1, "cpu").meshes]))
    expected = torch.tensor([1.0, 2.0, 3.0]).sqrt()
    assert torch.allclose(counts[1:] / 300, expected / expected.sum(), atol=0.08)
    both = ViewSource(collection(), collection(copies=1), config(shapes=300, real=0.25))
    counts = torch.bincount(torch.tensor([len(mesh.faces) // 12 for mesh in both.batch(0, 0, 1, "cpu").meshes]))
    assert float(counts[2:].sum()) / 300 == pytest.approx(0.25 * float(expected[1:].sum() / expected.sum()), abs=0.06)


def test_resumed_run_draws_from_other_settings():
    settings = config(
        resolutions=((256, 0.25), (512, 0.75)), cameras=CameraConfig(cut=0.3), augment=Augment(fill=(0.9, 0.9))
    )
    again = ViewSourceConfig.from_json(json.loads(json.dumps(asdict(settings))))
    assert again == settings
    source = ViewSource(collection(), None, again)
    sizes = [source.resolution(step) for step in range(200)]
    assert set(sizes) == {256, 512} and 30 < sizes.count(256) < 75
    assert source.batch(3, 0, 1, "cpu").resolution == sizes[3]
    for wrong in ({"shape": 3}, {"shapes": 0}, {"real": 2.0}, {"resolutions": [[512, 0.0]]}, {"augment": {"spin": 1}}):
        with pytest.raises(BadArgument):
            ViewSourceConfig.from_json(wrong)
    with pytest.raises(BadArgument, match="neither real"):
        ViewSource(None, None, settings)


def test_folder_of_meshes(folder):
    source = open_view_source(config(data=str(folder), procedural=1, shapes=6))
    batch = source.batch(0, 0, 1, "cpu")
    names = {mesh.name for mesh in batch.meshes}
    assert names & {"trex", "barn"} and len(batch.meshes) == 6
    assert all(float(mesh.vertices.abs().max()) <= 0.5 for mesh in batch.meshes)


@pytest.mark.gpu
def test_batch_waits_for_the_device(device):
    source = ViewSource(collection().to(device), collection().to(device), config())
    torch.cuda.set_sync_debug_mode("error")
    try:
        batch = source.batch(0, 0, 1, device)
    finally:
        torch.cuda.set_sync_debug_mode("default")
    assert all(mesh.vertices.is_cuda for mesh in batch.meshes)
