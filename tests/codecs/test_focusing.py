"""Focusing as a whole: what it promises of sizes, chunks, crops, carving inside the encoder, and open surfaces."""

from dataclasses import dataclass, replace

import pytest
import torch
from torch import Tensor

from shapecodec import Mesh
from shapecodec.camera import Camera, orbit
from shapecodec.codecs.focusing import FocusConfig, Focusing, FocusingConfig, PointVoxels, WeightsConfig, network
from shapecodec.codecs.focusing.config import OUTPUTS
from shapecodec.codecs.focusing.field import cut_voxels, join_fields, part_of, predicted_field
from shapecodec.codecs.focusing.inputs import latent_voxels, points_in
from shapecodec.codecs.focusing.supervise import loss_weights
from shapecodec.codecs.focusing.targets import Surface, signed_distance
from shapecodec.errors import BadArgument, BadLatents, BadMesh
from shapecodec.grid import SparseGrid
from shapecodec.ops.flex_surface import voxel_corners
from shapecodec.render.image_losses import ImageLossConfig
from shapecodec.rng import rng

SMALL = FocusingConfig(
    resolution=64,
    points=4000,
    point_channels=16,
    channels=24,
    heads=2,
    depth=2,
    up_channels=(16, 8),
    occupancy_ratio=1,
    chunk=40,
    focus=FocusConfig(size=48, depth_size=32, least=40, most=60, halo=2),
    weights=WeightsConfig(images=ImageLossConfig(lpips=0.0), tsdf_corners=500),
)


@dataclass(frozen=True)
class OneView:
    meshes: tuple[Mesh, ...]
    cameras: tuple[Camera, ...]
    resolution: int = 64


def ball(radius: float = 0.4, side: int = 12) -> Mesh:
    """A cube's grid blown up to a sphere, faces outward, welded."""
    line = torch.linspace(-1, 1, side + 1)
    plane = torch.cartesian_prod(line, line)
    sheets, faces = [], []
    corner = torch.arange(side * (side + 1)).view(side, side + 1)[:, :-1].flatten()
    quads = torch.stack([corner, corner + side + 1, corner + side + 2, corner + 1], 1)
    for axis in range(3):
        for end in (-1.0, 1.0):
            place = plane.new_full((len(plane), 3), end)
            place[:, [k for k in range(3) if k != axis]] = plane
            turned = (end > 0) == (axis != 1)
            faces.append((quads if turned else quads.flip(1)) + len(sheets) * len(plane))
            sheets.append(place)
    places, inverse = torch.unique(torch.cat(sheets), dim=0, return_inverse=True)
    square = inverse[torch.cat(faces)]
    return Mesh(
        radius * torch.nn.functional.normalize(places, dim=1), torch.cat([square[:, [0, 1, 2]], square[:, [0, 2, 3]]])
    )


def camera(turn: float = 30.0) -> Camera:
    return Camera.perspective(orbit(turn, 20.0, 2.0), (0.0, 0.0, 0.0), 40.0, (48, 48))


def awake(config: FocusingConfig = SMALL) -> Focusing:
    """A codec whose last layers do not start at zero, so that everything has a say."""
    torch.manual_seed(0)
    codec = Focusing(config).eval()
    for parameter in codec.parameters():
        if parameter.ndim >= 2:
            torch.nn.init.normal_(parameter, std=0.15)
    return codec


def exact_raw(mesh: Mesh, grid: SparseGrid, truncation: float) -> Tensor:
    """What a perfect network would say of the voxels of a grid."""
    corners = voxel_corners(grid)
    distance = signed_distance(corners.positions(), Surface.of(mesh)) * grid.resolution / truncation
    raw = torch.zeros(len(grid), OUTPUTS)
    raw[:, :8] = distance.clamp(-1, 1)[corners.index]
    return raw


def test_paper_size_has_other_parameters():
    with torch.device("meta"):
        codec = Focusing(FocusingConfig())
    counts = {name: sum(p.numel() for p in part.parameters()) for name, part in codec.named_children()}
    points = sum(p.numel() for p in codec.encoder.points.parameters())
    assert round(points / 1e6, 2) == 1.91
    assert round((counts["encoder"] - points + counts["bottleneck"]) / 1e6, 1) == 85.8
    assert round(counts["decoder"] / 1e6, 1) == 91.1
    assert round(sum(counts.values()) / 1e6, 1) == 178.8


@pytest.mark.parametrize("up_channels", [(8,), (16, 8), (16, 8, 8)])
def test_chunks_change_the_result(up_channels):
    codec = awake(replace(SMALL, up_channels=up_channels, resolution=16 << len(up_channels)))
    latents = codec.encode(codec.prepare(ball()))
    fields = []
    for chunk in (29, 10_000):
        codec.config = replace(codec.config, chunk=chunk)
        fields.append(codec.decode(latents))
    for field in fields[1:]:
        assert torch.equal(field.grid.coords, fields[0].grid.coords) and len(field.grid) > 100
        for name in ("sdf", "deformation", "alpha", "beta", "gamma"):
            torch.testing.assert_close(getattr(field, name), getattr(fields[0], name), rtol=1e-4, atol=1e-5)
    first, last = fields[0].to_mesh(), fields[-1].to_mesh()
    assert torch.equal(first.faces, last.faces)


def test_pruning_keeps_what_its_heads_drop():
    codec = awake()
    latents = codec.encode(codec.prepare(ball()))
    whole, none_dropped, some = (codec.decode(latents, prune=limit) for limit in (None, -1e9, 0.0))
    assert torch.equal(none_dropped.grid.coords, whole.grid.coords) and torch.equal(none_dropped.sdf, whole.sdf)
    assert 0 < len(some.grid) < len(whole.grid)


def test_group_norms_see_chunks():
    codec = awake(replace(SMALL, norm="group", channels=96, up_channels=(32, 32), heads=2))
    latents = codec.encode(codec.prepare(ball(0.15)))
    one = codec.decode(latents)
    codec.config = replace(codec.config, chunk=29)
    assert torch.equal(codec.decode(latents).sdf, one.sdf)


def test_shape_beside_the_picture_stops_a_step():
    """A small shape in a corner of the cube, outside what the camera shows."""
    rod = ball(0.02)
    rod = Mesh(rod.vertices + torch.tensor([0.47, 0.0, -0.47]), rod.faces)
    away = Camera.perspective((2.0, 0.0, 2.0), (0.0, 0.0, 0.0), 20.0, (48, 48))
    codec = awake().train()
    for meshes in ((rod,), (ball(0.3), rod)):
        loss = codec.loss(OneView(meshes, (away,) * len(meshes)), 0, rng(0))
        loss.total.backward()
        assert torch.isfinite(loss.total) and float(loss.terms["mask"]) > 0


def test_points_at_once_change_the_features(monkeypatch):
    codec = awake()
    inputs = codec.prepare(ball())
    whole = codec.encode(inputs).levels[0].feats.detach()
    monkeypatch.setattr(network, "POINTS_AT_ONCE", 300)
    with torch.no_grad():
        torch.testing.assert_close(codec.encode(inputs).levels[0].feats, whole, rtol=1e-4, atol=1e-5)


def test_halo_of_all_blocks_changes_what_the_encoder_says():
    codec = awake()
    mesh, generator = ball(), rng(0, purpose="test")
    inputs = codec.prepare(mesh)
    whole = codec.posterior(inputs).mean
    from shapecodec.codecs.focusing.look import look

    focus = replace(SMALL.focus, halo=SMALL.depth)
    view = look(mesh, inputs.grid, camera(), focus, SMALL.depth, SMALL.window, generator)
    part = codec.posterior(codec.points(mesh, view.encoded, None, 64)).mean[view.kept]
    rows = inputs.grid.lookup(view.decoded.coords)
    assert len(view.encoded) < len(inputs.grid)
    torch.testing.assert_close(part, whole[rows], rtol=1e-4, atol=1e-5)


@pytest.mark.parametrize("mode", ["zoom", "carve", "all"])
def test_a_step_leaves_parts_untaught(mode):
    codec = awake(replace(SMALL, focus=replace(SMALL.focus, mode=mode, halo=1 if mode == "zoom" else None))).train()
    loss = codec.loss(OneView((ball(0.25),), (camera(),)), 0, rng(0))
    assert set(loss.terms) == {
        *("depth", "normal", "ssim", "mask", "tsdf", "occupancy", "consistency", "kl"),
        *("deviation", "parameters", "variation"),
    }
    loss.total.backward()
    assert all(bool(p.grad is not None and p.grad.isfinite().all() and p.grad.any()) for p in codec.parameters())


def test_steps_teach_nothing():
    weights = replace(SMALL.weights, tsdf=10.0, render_from=100)
    torch.manual_seed(1)
    codec = Focusing(replace(SMALL, weights=weights))
    optimizer = torch.optim.AdamW(codec.parameters(), lr=1e-2)
    batch = OneView((ball(),), (camera(),))
    losses = []
    for step in range(10):
        loss = codec.loss(batch, step, rng(0))
        optimizer.zero_grad()
        loss.total.backward()
        optimizer.step()
        losses.append(float(loss.terms["tsdf"]))
    assert losses[-1] < 0.75 * losses[0]


def test_step_depends_on_anything_but_seed_and_step():
    codec = awake()
    batch = OneView((ball(),), (camera(),))
    one, two, other = (codec.loss(batch, 0, rng(0, step)).total.detach() for step in (3, 3, 4))
    assert torch.equal(one, two) and not torch.equal(one, other)


def test_perfect_predictions_give_another_surface():
    """A closed mesh comes back closed, a hemisphere open, both within a part of a voxel."""
    whole = ball()
    low = whole.vertices[whole.faces].amax(1)[:, 1] < 0.1
    for mesh, closed in ((whole, True), (Mesh(whole.vertices, whole.faces[low]), False)):
        grid = latent_voxels(mesh, 64, 4).children().children()
        field = predicted_field(exact_raw(mesh, grid, 3.0), grid, 3.0).field
        again = join_fields([part_of(field, cut_voxels(field))], 64).to_mesh()
        assert again.is_watertight() == closed
        from shapecodec.ops.closest_point import closest_point

        back = closest_point(mesh.vertices[mesh.faces].mean(1), again.vertices, again.faces).distance
        assert float(back.max()) * 64 < 0.3
        middle = mesh.vertices[mesh.faces[:50]].mean(1)
        assert float(field.sample(middle).abs().max()) * 64 < 0.3


def test_oracle_is_another_shape():
    """The oracle is the exact field's surface; a batch has none, and a field with a sign only one layer."""
    codec, mesh = awake(), ball()
    inputs = codec.prepare(mesh)
    oracle, report = codec.oracle(inputs).to_surface(64, "single")
    assert oracle.is_watertight() and report.mode == "single" and report.voxels > 100
    assert float((oracle.vertices.norm(dim=1) - 0.4).abs().max()) * 64 < 0.5
    with pytest.raises(BadArgument, match="batch"):
        codec.oracle(PointVoxels.pack([inputs, inputs]))
    with pytest.raises(BadArgument, match="single layer"):
        codec.oracle(inputs).to_surface(64, "shell")
    with pytest.raises(BadArgument, match=r"128\^3"):
        codec.oracle(inputs).to_mesh(128)


def test_faces_that_disagree_are_encoded_as_they_are():
    mesh = ball()
    turned = mesh.faces.clone()
    turned[::5] = turned[::5].flip(1)
    prepared = awake().prepare(Mesh(mesh.vertices, turned)).mesh
    assert prepared is not None
    middle = prepared.vertices[prepared.faces].mean(1)
    assert bool(((prepared.face_normals() * middle).sum(1) > 0).all())


def test_points_go_to_a_voxel_that_does_not_hold_them():
    mesh = ball()
    grid = latent_voxels(mesh, 64, 4)
    half = SparseGrid(grid.coords[::2], torch.tensor([0, len(grid.coords[::2])]), 16)
    places, _ = mesh.sample(2000, rng(0))
    inputs = points_in(half, places, places, 64)
    assert 0 < len(inputs.points) < 2000 and int(inputs.offsets[-1]) == len(inputs.points)
    owner = torch.repeat_interleave(torch.arange(len(half)), inputs.offsets.diff())
    restored = (half.coords[owner] + (inputs.points[:, :3] + 1) / 2) / 16 - 0.5
    torch.testing.assert_close(restored, inputs.points[:, 3:], rtol=0, atol=1e-6)


def test_distance_stops_counting_at_another_step():
    weights = WeightsConfig(tsdf=2.0, tsdf_steps=100, tsdf_after=0.25)
    assert [loss_weights(weights, step)["tsdf"] for step in (0, 100, 105, 110, 10_000)] == [2.0, 2.0, 1.25, 0.5, 0.5]


def test_bad_input_is_taken():
    codec = awake()
    with pytest.raises(BadArgument, match="multiple of 4"):
        codec.prepare(ball(), resolution=66)
    with pytest.raises(BadMesh, match="no part of the surface"):
        codec.prepare(Mesh(ball().vertices + 3, ball().faces))
    latents = codec.encode(codec.prepare(ball()))
    with pytest.raises(BadLatents, match="'log3d'"):
        codec.decode(replace(latents, codec="log3d"))
    with pytest.raises(BadLatents, match="4 times coarser"):
        codec.decode(replace(latents, resolution=128))
    codec.config = replace(SMALL, weights=replace(SMALL.weights, occupancy=0.0))
    with pytest.raises(BadArgument, match="not trained"):
        codec.decode(latents, prune=0.0)
    for bad in ({"mode": "zoon"}, {"alpha": (0.3, 0.1)}, {"halo": -1}, {"size": 4}):
        with pytest.raises(BadArgument, match="FocusConfig"):
            FocusConfig(**bad)
    with pytest.raises(BadArgument, match="32 groups"):
        replace(SMALL, norm="group")


def test_folder_loses_settings(tmp_path):
    codec = awake()
    codec.save(tmp_path / "codec", name="tiny")
    again = Focusing.load(tmp_path / "codec")
    assert again.config == codec.config
    mesh = ball()
    one, two = (c.reconstruct(mesh) for c in (codec, again))
    assert torch.equal(one.vertices, two.vertices) and torch.equal(one.faces, two.faces)
