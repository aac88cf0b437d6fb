"""Mask, depth and normal of every pixel in one launch, and one for their gradient to the mesh's vertices."""

from __future__ import annotations

from typing import Any

import torch
import triton
import triton.language as tl
from torch import Tensor
from torch.autograd.function import once_differentiable

from shapecodec.render.triton.outlines import pixel_centre, programs_for
from shapecodec.render.triton.shading import corner_rows, seen_from, weight_gradients, weights_of


@triton.jit
def _load(at: tl.tensor, live: tl.tensor) -> tuple[tl.tensor, tl.tensor, tl.tensor]:
    x = tl.load(at, mask=live, other=0.0)
    y = tl.load(at + 1, mask=live, other=0.0)
    return x, y, tl.load(at + 2, mask=live, other=0.0)


@triton.jit
def _add(at: tl.tensor, x: tl.tensor, y: tl.tensor, z: tl.tensor, live: tl.tensor) -> None:
    tl.atomic_add(at, x, mask=live, sem="relaxed")
    tl.atomic_add(at + 1, y, mask=live, sem="relaxed")
    tl.atomic_add(at + 2, z, mask=live, sem="relaxed")


@triton.jit(do_not_specialize=["vertices", "views"])
def project_vertices(
    places: tl.tensor, matrices: tl.tensor, clip: tl.tensor, vertices: tl.tensor, views: tl.tensor, BLOCK: tl.constexpr
) -> None:
    """Clip coordinates (B, V, 4) of places (V, 3)."""
    i = tl.program_id(0).to(tl.int64) * BLOCK + tl.arange(0, BLOCK)[:, None]
    row = tl.arange(0, 4)[None, :]
    live = i < vertices
    x, y, z = _load(places + i * 3, live)
    to = clip + i * 4 + row
    for view in range(views):
        at = matrices + view * 16 + row * 4
        value = tl.load(at) * x + tl.load(at + 1) * y + tl.load(at + 2) * z + tl.load(at + 3)
        tl.store(to, value, mask=live)
        to += vertices.to(tl.int64) * 4


@triton.jit(do_not_specialize=["vertices", "views"])
def project_gradients(
    grad: tl.tensor, matrices: tl.tensor, out: tl.tensor, vertices: tl.tensor, views: tl.tensor, BLOCK: tl.constexpr
) -> None:
    """Slopes (V, 3) of places, from those of clip coordinates (B, V, 4)."""
    i = tl.program_id(0).to(tl.int64) * BLOCK + tl.arange(0, BLOCK)[:, None]
    row = tl.arange(0, 4)[None, :]
    live = i < vertices
    x = tl.zeros([BLOCK, 1], dtype=grad.dtype.element_ty)
    y = x
    z = x
    of = grad + i * 4 + row
    for view in range(views):
        slope = tl.load(of, mask=live, other=0.0)
        of += vertices.to(tl.int64) * 4
        at = matrices + view * 16 + row * 4
        x += tl.sum(slope * tl.load(at), axis=1)[:, None]
        y += tl.sum(slope * tl.load(at + 1), axis=1)[:, None]
        z += tl.sum(slope * tl.load(at + 2), axis=1)[:, None]
    tl.store(out + i * 3, x, mask=live)
    tl.store(out + i * 3 + 1, y, mask=live)
    tl.store(out + i * 3 + 2, z, mask=live)


@triton.jit
def _raw_normal(
    normals: tl.tensor, a: tl.tensor, b: tl.tensor, c: tl.tensor, u: tl.tensor, v: tl.tensor, w: tl.tensor, ax: tl.tensor,
    ay: tl.tensor, az: tl.tensor, bx: tl.tensor, by: tl.tensor, bz: tl.tensor, cx: tl.tensor, cy: tl.tensor,
    cz: tl.tensor, live: tl.tensor, VERTEX: tl.constexpr,
) -> tuple[tl.tensor, tl.tensor, tl.tensor]:  # fmt: skip
    """Before it is made unit: the cross product of two sides b and c, or the mean of the corners' normals."""
    if VERTEX:
        nx, ny, nz = _load(normals + a * 3, live)
        mx, my, mz = _load(normals + b * 3, live)
        ox, oy, oz = _load(normals + c * 3, live)
        x, y, z = u * nx + v * mx + w * ox, u * ny + v * my + w * oy, u * nz + v * mz + w * oz
    else:
        bx, by, bz, cx, cy, cz = bx - ax, by - ay, bz - az, cx - ax, cy - ay, cz - az
        x, y, z = by * cz - bz * cy, bz * cx - bx * cz, bx * cy - by * cx
    return x, y, z


@triton.jit(do_not_specialize=["vertices", "width", "height", "pixels"])
def draw_pixels(
    places: tl.tensor, clip: tl.tensor, normals: tl.tensor, faces: tl.tensor, face: tl.tensor, views: tl.tensor,
    out: tl.tensor, vertices: tl.tensor, width: tl.tensor, height: tl.tensor, pixels: tl.tensor, VERTEX: tl.constexpr,
    TURN: tl.constexpr, BLOCK: tl.constexpr,
) -> None:  # fmt: skip
    """Mask, depth and normal in the view frame (B, H, W, 5); 0 on the background."""
    i = tl.program_id(0).to(tl.int64) * BLOCK + tl.arange(0, BLOCK)
    f = tl.load(face + i, mask=i < pixels, other=-1).to(tl.int64)
    live = f >= 0
    a, b, c = corner_rows(faces, f, live)
    view = i // (width * height)
    x, y = pixel_centre(i, width, height, clip)
    px, py = seen_from(clip, view * vertices + a, x, y, live)
    qx, qy = seen_from(clip, view * vertices + b, x, y, live)
    rx, ry = seen_from(clip, view * vertices + c, x, y, live)
    u, v, w, total, _ = weights_of(px, py, qx, qy, rx, ry, live)
    ax, ay, az = _load(places + a * 3, live)
    bx, by, bz = _load(places + b * 3, live)
    cx, cy, cz = _load(places + c * 3, live)
    at = views + view * 16
    fx, fy, fz = _load(at + 8, live)
    dx, dy, dz = u * ax + v * bx + w * cx, u * ay + v * by + w * cy, u * az + v * bz + w * cz
    depth = -(fx * dx + fy * dy + fz * dz + tl.load(at + 11, mask=live, other=0.0))
    x, y, z = _raw_normal(normals, a, b, c, u, v, w, ax, ay, az, bx, by, bz, cx, cy, cz, live, VERTEX)
    length = tl.sqrt(x * x + y * y + z * z)
    scale = 1.0 / tl.where(length > 0, length, 1.0)
    if TURN:
        scale = tl.where(total > 0, scale, -scale)
    x, y, z = x * scale, y * scale, z * scale
    tl.store(out + i * 5, live.to(x.dtype), mask=i < pixels)
    tl.store(out + i * 5 + 1, tl.where(live, depth, 0.0), mask=i < pixels)
    for k in tl.static_range(3):
        mx, my, mz = _load(at + 4 * k, live)
        tl.store(out + i * 5 + 2 + k, tl.where(live, mx * x + my * y + mz * z, 0.0), mask=i < pixels)


@triton.jit(do_not_specialize=["vertices", "width", "height", "pixels"])
def pixel_gradients(
    places: tl.tensor, clip: tl.tensor, normals: tl.tensor, faces: tl.tensor, face: tl.tensor, views: tl.tensor,
    matrices: tl.tensor, grad: tl.tensor, grad_places: tl.tensor, grad_normals: tl.tensor, vertices: tl.tensor,
    width: tl.tensor, height: tl.tensor, pixels: tl.tensor, VERTEX: tl.constexpr, TURN: tl.constexpr,
    BLOCK: tl.constexpr,
) -> None:  # fmt: skip
    """Slopes of places and, with VERTEX, of the vertices' normals, added atomically; the way through clip is included."""
    i = tl.program_id(0).to(tl.int64) * BLOCK + tl.arange(0, BLOCK)
    f = tl.load(face + i, mask=i < pixels, other=-1).to(tl.int64)
    live = f >= 0
    a, b, c = corner_rows(faces, f, live)
    view = i // (width * height)
    ix, iy = pixel_centre(i, width, height, clip)
    px, py = seen_from(clip, view * vertices + a, ix, iy, live)
    qx, qy = seen_from(clip, view * vertices + b, ix, iy, live)
    rx, ry = seen_from(clip, view * vertices + c, ix, iy, live)
    u, v, w, total, scale = weights_of(px, py, qx, qy, rx, ry, live)
    ax, ay, az = _load(places + a * 3, live)
    bx, by, bz = _load(places + b * 3, live)
    cx, cy, cz = _load(places + c * 3, live)
    at = views + view * 16
    sx, sy, sz = _load(grad + i * 5 + 2, live)
    if TURN:
        sx, sy, sz = tl.where(total > 0, sx, -sx), tl.where(total > 0, sy, -sy), tl.where(total > 0, sz, -sz)
    mx, my, mz = _load(at, live)
    nx, ny, nz = _load(at + 4, live)
    fx, fy, fz = _load(at + 8, live)
    gx, gy, gz = mx * sx + nx * sy + fx * sz, my * sx + ny * sy + fy * sz, mz * sx + nz * sy + fz * sz
    x, y, z = _raw_normal(normals, a, b, c, u, v, w, ax, ay, az, bx, by, bz, cx, cy, cz, live, VERTEX)
    length = tl.sqrt(x * x + y * y + z * z)
    inverse = tl.where(length > 0, 1.0 / tl.where(length > 0, length, 1.0), 0.0)
    x, y, z = x * inverse, y * inverse, z * inverse
    along = gx * x + gy * y + gz * z
    gx, gy, gz = (gx - along * x) * inverse, (gy - along * y) * inverse, (gz - along * z) * inverse

    of_depth = tl.load(grad + i * 5 + 1, mask=live, other=0.0)
    shift = tl.load(at + 11, mask=live, other=0.0)
    gu = -of_depth * (fx * ax + fy * ay + fz * az + shift)
    gv = -of_depth * (fx * bx + fy * by + fz * bz + shift)
    gw = -of_depth * (fx * cx + fy * cy + fz * cz + shift)
    if VERTEX:
        x, y, z = _load(normals + a * 3, live)
        gu += gx * x + gy * y + gz * z
        x, y, z = _load(normals + b * 3, live)
        gv += gx * x + gy * y + gz * z
        x, y, z = _load(normals + c * 3, live)
        gw += gx * x + gy * y + gz * z
        _add(grad_normals + a * 3, u * gx, u * gy, u * gz, live)
        _add(grad_normals + b * 3, v * gx, v * gy, v * gz, live)
        _add(grad_normals + c * 3, w * gx, w * gy, w * gz, live)
    gpx, gpy, gqx, gqy, grx, gry = weight_gradients(px, py, qx, qy, rx, ry, u, v, w, scale, gu, gv, gw)

    # three rows of the matrix take slopes of x, y and w to places; depth adds the view's third
    at = matrices + view * 16
    xx, xy, xz = _load(at, live)
    yx, yy, yz = _load(at + 4, live)
    wx, wy, wz = _load(at + 12, live)
    hx, hy, hz = xx - ix * wx, xy - ix * wy, xz - ix * wz
    vx, vy, vz = yx - iy * wx, yy - iy * wy, yz - iy * wz
    dx, dy, dz = of_depth * fx, of_depth * fy, of_depth * fz
    bax, bay, baz = gpx * hx + gpy * vx - u * dx, gpx * hy + gpy * vy - u * dy, gpx * hz + gpy * vz - u * dz
    bbx, bby, bbz = gqx * hx + gqy * vx - v * dx, gqx * hy + gqy * vy - v * dy, gqx * hz + gqy * vz - v * dz
    bcx, bcy, bcz = grx * hx + gry * vx - w * dx, grx * hy + gry * vy - w * dy, grx * hz + gry * vz - w * dz
    if not VERTEX:
        bx, by, bz, cx, cy, cz = bx - ax, by - ay, bz - az, cx - ax, cy - ay, cz - az
        ex, ey, ez = cy * gz - cz * gy, cz * gx - cx * gz, cx * gy - cy * gx
        kx, ky, kz = gy * bz - gz * by, gz * bx - gx * bz, gx * by - gy * bx
        bax, bay, baz = bax - ex - kx, bay - ey - ky, baz - ez - kz
        bbx, bby, bbz = bbx + ex, bby + ey, bbz + ez
        bcx, bcy, bcz = bcx + kx, bcy + ky, bcz + kz
    _add(grad_places + a * 3, bax, bay, baz, live)
    _add(grad_places + b * 3, bbx, bby, bbz, live)
    _add(grad_places + c * 3, bcx, bcy, bcz, live)


class Projected(torch.autograd.Function):
    """Clip coordinates (B, V, 4) of vertices (V, 3) by matrices (B, 4, 4), all contiguous and of one dtype."""

    @staticmethod
    def forward(ctx: Any, vertices: Tensor, matrices: Tensor) -> Tensor:
        """See `differentiable.to_clip`."""
        clip = vertices.new_empty((len(matrices), len(vertices), 4))
        programs, block = programs_for(len(vertices), vertices, 256)
        if clip.numel():
            project_vertices[(programs,)](vertices, matrices, clip, len(vertices), len(matrices), BLOCK=block)
        ctx.save_for_backward(matrices)
        return clip

    @staticmethod
    @once_differentiable
    def backward(ctx: Any, *grads: Tensor) -> tuple[Tensor | None, ...]:
        """The slope of vertices."""
        (matrices,) = ctx.saved_tensors
        grad = grads[0].contiguous()
        out = grad.new_empty((grad.shape[1], 3))
        programs, block = programs_for(len(out), out, 256)
        if len(out):
            project_gradients[(programs,)](grad, matrices, out, len(out), len(matrices), BLOCK=block)
        return out, None


class Drawn(torch.autograd.Function):
    """Mask, depth and normal (B, H, W, 5) before outlines are blended, with gradients to vertices and to their normals."""

    @staticmethod
    def forward(
        ctx: Any,
        vertices: Tensor,
        normals: Tensor | None,
        clip: Tensor,
        faces: Tensor,
        face: Tensor,
        matrices: Tensor,
        views: Tensor,
        towards_viewer: bool,
    ) -> Tensor:
        """All contiguous; clip is that of vertices, and its gradient is taken along."""
        out = vertices.new_empty((*face.shape, 5))
        ctx.shape = len(vertices), face.shape[2], face.shape[1], face.numel()
        ctx.options = {"VERTEX": normals is not None, "TURN": towards_viewer}
        programs, block = programs_for(face.numel(), vertices, 128)
        given = vertices if normals is None else normals
        draw_pixels[(programs,)](vertices, clip, given, faces, face, views, out, *ctx.shape, **ctx.options, BLOCK=block)
        ctx.save_for_backward(vertices, given, clip, faces, face, matrices, views)
        return out

    @staticmethod
    @once_differentiable
    def backward(ctx: Any, *grads: Tensor) -> tuple[Tensor | None, ...]:
        """Slopes of vertices and normals."""
        vertices, given, clip, faces, face, matrices, views = ctx.saved_tensors
        grad_vertices = torch.zeros_like(vertices)
        grad_normals = torch.zeros_like(given) if ctx.options["VERTEX"] else None
        programs, block = programs_for(face.numel(), vertices, 128)
        pixel_gradients[(programs,)](
            vertices, clip, given, faces, face, views, matrices, grads[0].contiguous(), grad_vertices,
            grad_vertices if grad_normals is None else grad_normals, *ctx.shape, **ctx.options, BLOCK=block,
        )  # fmt: skip
        return grad_vertices, grad_normals, None, None, None, None, None, None
