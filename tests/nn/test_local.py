"""LoG3D's local networks against a literal network of torch layers with the same weights."""

import torch
import torch.nn.functional as F

from shapecodec.nn.local import LocalDecoder, LocalEncoder, in_chunks


def literal_norm(x, norm):
    return F.group_norm(x, norm.groups, norm.weight, norm.bias)


def literal_layer(x, layer):
    x = F.conv3d(literal_norm(x, layer.norm1), layer.mix[:, :, None, None, None])
    x = F.relu(F.conv3d(x, layer.conv1.weight, layer.conv1.bias, padding=1))
    return F.relu(F.conv3d(literal_norm(x, layer.norm2), layer.conv2.weight, layer.conv2.bias, padding=1))


def literal_encoder(net, field):
    first = net.first
    x = field[:, None] * first.stem_weight[:, None, None, None] + first.stem_bias[:, None, None, None]
    x = literal_layer(x, first)
    for layer in net.layers:
        x = literal_layer(F.max_pool3d(x, 2), layer)
    return x.flatten(1)


def literal_decoder(net, tokens):
    x = tokens[:, :, None, None, None]
    for layer in net.layers:
        x = literal_norm(F.interpolate(x, scale_factor=2, mode="nearest"), layer.norm1)
        x = F.relu(F.conv3d(x, layer.conv1.weight, layer.conv1.bias, padding=1))
        x = F.relu(F.conv3d(literal_norm(x, layer.norm2), layer.conv2.weight, layer.conv2.bias, padding=1))
    out = (x * net.head_weight[:, None, None, None]).sum(1) + net.head_bias
    return out[:, 2:-2, 2:-2, 2:-2]


def perturbed(net):
    generator = torch.Generator().manual_seed(0)
    for parameter in net.parameters():
        if parameter.ndim < 2:  # biases and norms off their trivial starts
            parameter.data += 0.3 * torch.randn(parameter.shape, generator=generator)
    return net


def same_gradients(net, function, literal, rows):
    outs = []
    for run in (function, literal):
        net.zero_grad()
        out = run(rows)
        (out * torch.linspace(-1, 1, out.numel()).view(out.shape)).sum().backward()
        outs.append((out.detach(), {name: p.grad.clone() for name, p in net.named_parameters()}))
    torch.testing.assert_close(outs[0][0], outs[1][0], rtol=1e-4, atol=1e-4)
    for name, grad in outs[1][1].items():
        scale = grad.abs().max() + 1e-3
        # rounding flips a few ReLUs and pool choices, and norms over near-constant groups amplify it
        assert (outs[0][1][name] - grad).norm() / (grad.norm() + scale) < 3e-2, name


def test_folded_encoder_is_the_literal_network():
    torch.manual_seed(0)
    net = perturbed(LocalEncoder(4))
    same_gradients(net, net, lambda field: literal_encoder(net, field), torch.rand(3, 12, 12, 12))


def test_folded_first_layer_has_the_literal_gradients():
    torch.manual_seed(0)
    layer = perturbed(LocalEncoder(4)).first
    field, weights = torch.rand(3, 12, 12, 12), torch.linspace(-1, 1, 3 * 1728 * 4).view(3, 12, 12, 12, 4)
    x = field[:, None] * layer.stem_weight[:, None, None, None] + layer.stem_bias[:, None, None, None]
    x = F.conv3d(literal_norm(x, layer.norm1), layer.mix[:, :, None, None, None])
    x = F.relu(F.conv3d(x, layer.conv1.weight, layer.conv1.bias, padding=1))
    x = F.conv3d(literal_norm(x, layer.norm2), layer.conv2.weight, layer.conv2.bias, padding=1).movedim(1, -1)
    wanted = torch.autograd.grad((x * weights).sum(), list(layer.parameters()))
    got = torch.autograd.grad((layer(field) * weights).sum(), list(layer.parameters()))
    for a, b in zip(got, wanted, strict=True):
        assert (a - b).abs().max() / b.abs().max() < 1e-3


def test_decoder_is_the_literal_network():
    torch.manual_seed(0)
    net = perturbed(LocalDecoder(8))
    same_gradients(net, net, lambda tokens: literal_decoder(net, tokens), torch.randn(3, 64))


def test_chunks_change_nothing():
    torch.manual_seed(0)
    whole = LocalEncoder(4)
    pieces = LocalEncoder(4, chunk=2)
    pieces.load_state_dict(whole.state_dict())
    field = torch.rand(5, 12, 12, 12)
    grads = []
    for net in (whole, pieces):
        net(field).square().sum().backward()
        grads.append([p.grad for p in net.parameters()])
    torch.testing.assert_close(whole(field), pieces(field))
    for a, b in zip(*grads, strict=True):
        assert (a - b).norm() / (a.norm() + 1e-3) < 1e-3
    assert in_chunks(lambda rows: rows * 2, torch.zeros(0, 3), 2).shape == (0, 3)


def test_paper_sizes():
    """The local networks of facts read from the text: 4.75M and 1.76M parameters."""
    assert sum(p.numel() for p in LocalEncoder().parameters()) == 4_746_688
    assert sum(p.numel() for p in LocalDecoder().parameters()) == 1_764_497
