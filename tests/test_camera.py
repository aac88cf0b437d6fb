import pytest
import torch

from shapecodec.camera import Camera, look_at, orbit
from shapecodec.errors import BadArgument

PERSPECTIVE = Camera.perspective((0.0, 0.0, 3.0), (0.0, 0.0, 0.0), 40.0, (200, 100))
ORTHOGRAPHIC = Camera.orthographic((0.0, 0.0, 3.0), (0.0, 0.0, 0.0), 0.5, (200, 100))


@pytest.mark.parametrize("camera", [PERSPECTIVE, ORTHOGRAPHIC], ids=["perspective", "orthographic"])
def test_picture_mirrored_or_upside_down(camera):
    points = torch.tensor([[0.0, 0.0, 0.0], [0.2, 0.0, 0.0], [0.0, 0.2, 0.0], [0.0, 0.0, 0.5]])
    pixels, depth, w = camera.project(points)
    torch.testing.assert_close(pixels[0], torch.tensor([100.0, 50.0]))
    assert pixels[1, 0] > 100 and pixels[2, 1] < 50  # right is right, up is up
    assert depth[3] < depth[0] and bool((w > 0).all())  # nearer is less


def test_orthographic_scale_is_not_what_was_asked_for():
    pixels = ORTHOGRAPHIC.project(torch.tensor([[0.0, 0.5, 0.0], [1.0, -0.5, 1.0]]))[0]
    torch.testing.assert_close(pixels, torch.tensor([[100.0, 0.0], [200.0, 100.0]]))


def test_perspective_opens_by_another_angle():
    edge = 3 * torch.tan(torch.deg2rad(torch.tensor(20.0)))
    pixels = PERSPECTIVE.project(torch.stack([torch.zeros(()), edge, torch.zeros(())])[None])[0]
    torch.testing.assert_close(pixels, torch.tensor([[100.0, 0.0]]), atol=1e-4, rtol=0)


def test_shape_leaves_the_framed_image():
    points = torch.rand(500, 3, generator=torch.Generator().manual_seed(0)) - torch.tensor([0.2, 0.7, 0.5])
    camera = Camera.perspective(orbit(32, 16, 3.0), (0, 0, 0), 24.0, (300, 200)).framed(points, 0.1)
    pixels = camera.project(points)[0]
    low, high = pixels.amin(0), pixels.amax(0)
    assert bool((low >= torch.tensor([29.9, 19.9])).all()) and bool((high <= torch.tensor([270.1, 180.1])).all())
    fills = (high - low) / torch.tensor([240.0, 160.0])
    assert abs(float(fills.max()) - 1) < 1e-3


def test_view_is_no_rigid_motion():
    view = look_at((1.0, 2.0, 3.0), (0.3, 0.1, -0.2))
    torch.testing.assert_close(view[:3, :3] @ view[:3, :3].T, torch.eye(3, dtype=torch.float64))
    assert float(torch.linalg.det(view[:3, :3])) == pytest.approx(1.0)
    torch.testing.assert_close(
        view @ torch.tensor([1.0, 2.0, 3.0, 1.0]).double(), torch.tensor([0, 0, 0, 1.0]).double()
    )


def test_looking_along_up():
    with pytest.raises(BadArgument, match="do not span"):
        look_at((0.0, 1.0, 0.0), (0.0, 0.0, 0.0))
    with pytest.raises(BadArgument, match="field of view"):
        Camera.perspective((0, 0, 1), (0, 0, 0), 180.0, (8, 8))
