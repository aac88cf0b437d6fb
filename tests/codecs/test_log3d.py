"""LoG3D from mesh to mesh at small sizes: shapes, sizes of the paper, batches, oracle, determinism."""

import dataclasses

import pytest
import torch
from safetensors.torch import load_file, save_file

from shapecodec.codecs.log3d import BlockInputs, Log3D, Log3DConfig
from shapecodec.errors import BadArgument, BadLatents, BadMesh
from shapecodec.latents import Latents, Level
from shapecodec.mesh import Mesh
from shapecodec.ops.closest_point import closest_point
from shapecodec.rng import rng

SMALL = Log3DConfig(resolution=32, width=4, depth=1, heads=2, convs_per_block=1)


def box(size=0.6, shift=0.0):
    corners = torch.cartesian_prod(*[torch.tensor([-0.5, 0.5])] * 3) * size + shift
    quads = [(0, 1, 3, 2), (4, 6, 7, 5), (0, 4, 5, 1), (2, 3, 7, 6), (0, 2, 6, 4), (1, 5, 7, 3)]
    faces = torch.tensor([t for a, b, c, d in quads for t in ((a, b, c), (a, c, d))])
    return Mesh(corners, faces, "box")


@pytest.fixture(scope="module")
def codec():
    torch.manual_seed(0)
    return Log3D(SMALL).eval()


def test_paper_size_lands_at_the_published_parameter_count():
    with torch.device("meta"):
        count = sum(p.numel() for p in Log3D(Log3DConfig()).parameters())
        literal = sum(p.numel() for p in Log3D(Log3DConfig(convs_per_block=1)).parameters())
    assert 75e6 < count < 79e6  # Table 1: 77M
    assert 47e6 < literal < 48e6  # the text read literally


def test_prepared_blocks_are_the_field_with_their_neighbours(codec):
    inputs = codec.prepare(box(), None, resolution=32)
    assert inputs.values.shape == (inputs.tokens, 12, 12, 12) and inputs.grid.resolution == 4
    centre = (inputs.grid.coords[:, None] * 8 + torch.tensor([[2, 5, 1]]) + 0.5) / 32 - 0.5
    wanted = closest_point(centre.reshape(-1, 3), *dataclasses.astuple(box())[:2]).distance.clamp(max=4 / 32) * 8
    torch.testing.assert_close(inputs.values[:, 2 + 2, 2 + 5, 2 + 1], wanted, atol=1e-5, rtol=0)


def test_oracle_rebuilds_the_box(codec):
    mesh = codec.oracle(codec.prepare(box(), None, resolution=64)).to_mesh()
    assert mesh.is_watertight()
    found = closest_point(mesh.vertices, box().vertices, box().faces).distance
    assert found.mean() < 0.1 / 64 and found.max() < 1.0 / 64


def test_latents_have_a_vector_a_block_and_decode_to_the_same_blocks(codec):
    inputs = codec.prepare(box(), None, resolution=32)
    latents = codec.encode(inputs)
    level = latents.levels[0]
    assert level.feats.shape == (inputs.tokens, 16) and level.resolution == 4 and latents.resolution == 32
    with torch.no_grad():
        field = codec.decode(latents)
    assert torch.equal(field.grid.coords, inputs.grid.coords)
    assert field.values.min() >= 0 and field.values.max() <= 1


def test_posterior_is_sampled_only_when_asked(codec):
    inputs = codec.prepare(box(), None, resolution=32)
    mean = codec.encode(inputs).levels[0].feats
    assert torch.equal(mean, codec.encode(inputs).levels[0].feats)
    drawn = codec.encode(inputs, rng(0)).levels[0].feats
    assert not torch.equal(mean, drawn)
    assert torch.equal(drawn, codec.encode(inputs, rng(0)).levels[0].feats)


def test_shapes_of_a_batch_do_not_mix(codec):
    items = [codec.prepare(box(0.6), None, resolution=32), codec.prepare(box(0.3, 0.1), None, resolution=32)]
    packed = codec.encode(BlockInputs.pack(items)).levels[0]
    alone = [codec.encode(item).levels[0].feats for item in items]
    torch.testing.assert_close(packed.feats, torch.cat(alone), rtol=1e-4, atol=1e-4)
    assert packed.offsets.tolist() == [0, items[0].tokens, sum(item.tokens for item in items)]


def test_crop_keeps_items_apart(codec):
    item = codec.prepare(box(), None, resolution=32)
    packed = BlockInputs.pack([item, item])
    part = packed.crop(torch.tensor([1, 3, item.tokens, item.tokens + 2]))
    assert part.grid.offsets.tolist() == [0, 2, 4]
    assert torch.equal(part.values[2:], item.values[[0, 2]])


def test_loss_falls_and_every_parameter_learns():
    torch.manual_seed(0)
    codec = Log3D(SMALL)
    batch = codec.prepare(box(), None, resolution=32)
    optimiser = torch.optim.AdamW(codec.parameters(), lr=3e-3)
    losses = []
    for step in range(25):
        loss = codec.loss(batch, step, rng(0, step))
        optimiser.zero_grad()
        loss.total.backward()
        optimiser.step()
        losses.append(float(loss.total.detach()))
        assert set(loss.terms) == {"huber", "kl", "near_vox", "far_vox"}
    assert losses[-1] < 0.6 * losses[0]
    dead = [name for name, p in codec.named_parameters() if p.grad is None or not p.grad.isfinite().all()]
    assert not dead


def test_near_weight_counts_voxels_near_the_surface_more():
    torch.manual_seed(0)
    codec = Log3D(SMALL)
    batch = codec.prepare(box(), None, resolution=32)
    plain = codec.loss(batch, 0, rng(0))
    codec.config = dataclasses.replace(SMALL, near_weight=4.0)
    weighted = codec.loss(batch, 0, rng(0))
    near_is_worse = plain.terms["near_vox"] > plain.terms["far_vox"]
    assert (weighted.total > plain.total) == bool(near_is_worse)


def test_saved_weights_give_the_same_latents(codec, tmp_path):
    save_file(codec.state_dict(), tmp_path / "w.safetensors")
    other = Log3D(SMALL).eval()
    other.load_state_dict(load_file(tmp_path / "w.safetensors"))
    inputs = codec.prepare(box(), None, resolution=32)
    assert torch.equal(codec.encode(inputs).levels[0].feats, other.encode(inputs).levels[0].feats)


def test_wrong_input_is_named(codec):
    with pytest.raises(BadArgument, match="multiple of 8"):
        codec.prepare(box(), None, resolution=30)
    with pytest.raises(BadMesh, match="unit cube"):
        codec.prepare(box(0.1, 3.0), None, resolution=32)
    with pytest.raises(BadLatents, match="16 channels"):
        codec.decode(Latents((Level(torch.zeros(2, 8), torch.tensor([0, 2])),), 32, codec="log3d"))
    with pytest.raises(BadArgument, match="power of two"):
        Log3DConfig(width=12)
