"""Kernels of the extraction's gradient: every sum is gathered by its owner in a fixed order, so repeated runs agree."""

import triton
import triton.language as tl

from shapecodec.ops.flex_surface.triton.forward import edge_vertex, place, quad_voxels
from shapecodec.ops.flex_surface.triton.frames import (
    corner_values,
    edge_ends,
    group_totals,
    quad_row,
    share_gradient,
    tap_steps,
    vertex_row,
    wide_gap,
)


@triton.jit(do_not_specialize=["count", "vertex_count"])
def centre_gradients(
    neighbours: tl.tensor, gamma: tl.tensor, codes: tl.tensor, ends: tl.tensor, groups: tl.tensor, rows: tl.tensor,
    vertices: tl.tensor, grad: tl.tensor, out: tl.tensor, count: tl.tensor, vertex_count: tl.tensor, BLOCK: tl.constexpr,
) -> None:  # fmt: skip
    """For each quad (Q, 8): slope of its centre, share of diagonal 00-11, slopes of the two products of gamma."""
    k = tl.program_id(0).to(tl.int64) * BLOCK + tl.arange(0, BLOCK)[:, None]
    axis = tl.arange(0, 4)[None, :]
    code, live, n00, n01, n10, n11 = quad_voxels(neighbours, rows, codes, k, count, axis)
    x00, y00, z00 = place(vertices, edge_vertex(codes, ends, groups, n00, axis * 4, live), live)
    x01, y01, z01 = place(vertices, edge_vertex(codes, ends, groups, n01, axis * 4 + 1, live), live)
    x10, y10, z10 = place(vertices, edge_vertex(codes, ends, groups, n10, axis * 4 + 2, live), live)
    x11, y11, z11 = place(vertices, edge_vertex(codes, ends, groups, n11, axis * 4 + 3, live), live)
    first = tl.load(gamma + n00, mask=live, other=1.0) * tl.load(gamma + n11, mask=live, other=1.0)
    second = tl.load(gamma + n01, mask=live, other=1.0) * tl.load(gamma + n10, mask=live, other=1.0)
    quad = quad_row(code, tl.load(ends + n00, mask=live, other=0), axis)
    gx, gy, gz = place(grad, quad + vertex_count, live)
    slope = 0.5 * (gx * (x00 + x11 - x01 - x10) + gy * (y00 + y11 - y01 - y10) + gz * (z00 + z11 - z01 - z10))
    slope = slope / ((first + second) * (first + second))
    at = out + quad * 8
    tl.store(at, gx, mask=live)
    tl.store(at + 1, gy, mask=live)
    tl.store(at + 2, gz, mask=live)
    tl.store(at + 3, first / (first + second), mask=live)
    tl.store(at + 4, slope * second, mask=live)
    tl.store(at + 5, -slope * first, mask=live)


@triton.jit
def _from_quads(
    neighbours: tl.tensor, gamma: tl.tensor, codes: tl.tensor, ends: tl.tensor, quads: tl.tensor, n: tl.tensor,
    e: tl.tensor, cut: tl.tensor,
) -> tuple[tl.tensor, tl.tensor, tl.tensor, tl.tensor]:  # fmt: skip
    """What the centre of the quad around each cut edge says of this voxel's dual vertex and gamma."""
    axis = e // 4
    u = (e // 2) % 2
    v = e % 2
    first, second = tap_steps(axis)
    centre = neighbours + n * 27 + 13
    owner = tl.load(centre + u * first + v * second, mask=cut, other=-1).to(tl.int64)
    full = cut & (owner >= 0)
    code = tl.load(codes + owner, mask=full, other=0).to(tl.int32)
    full = full & (((code >> 12 >> axis) & 1) > 0)
    at = quads + quad_row(code, tl.load(ends + owner, mask=full, other=0), axis) * 8
    share = tl.load(at + 3, mask=full, other=0.0)
    share = 0.5 * tl.where(u == v, share, 1 - share)
    opposite = tl.load(centre + (2 * u - 1) * first + (2 * v - 1) * second, mask=full, other=0).to(tl.int64)
    slope = tl.load(at + tl.where(u == v, 4, 5), mask=full, other=0.0)
    slope = slope * tl.load(gamma + opposite, mask=full, other=0.0)
    x = share * tl.load(at, mask=full, other=0.0)
    y = share * tl.load(at + 1, mask=full, other=0.0)
    z = share * tl.load(at + 2, mask=full, other=0.0)
    return x, y, z, slope


@triton.jit
def _at_corners(low: tl.tensor, high: tl.tensor, cut: tl.tensor) -> tl.tensor:
    """Slopes (BLOCK, 16) of the edges' low and high ends, added up at the voxels' corners (BLOCK, 8)."""
    s = tl.arange(0, 8)[None, :, None]
    first, second = edge_ends(tl.arange(0, 16)[None, None, :])
    low, high = tl.where(cut, low, 0.0), tl.where(cut, high, 0.0)
    at_low = tl.where(first == s, low[:, None, :], 0.0)
    return tl.sum(tl.where(second == s, high[:, None, :], at_low), axis=2)


@triton.jit(do_not_specialize=["count", "resolution", "edge_count"])
def voxel_gradients(
    index: tl.tensor, neighbours: tl.tensor, sdf: tl.tensor, deformation: tl.tensor, alpha: tl.tensor, beta: tl.tensor,
    gamma: tl.tensor, codes: tl.tensor, ends: tl.tensor, groups: tl.tensor, rows: tl.tensor, grad: tl.tensor,
    grad_deviation: tl.tensor, quads: tl.tensor, at_corners: tl.tensor, grad_alpha: tl.tensor, grad_beta: tl.tensor,
    grad_gamma: tl.tensor, count: tl.tensor, resolution: tl.tensor, edge_count: tl.tensor,
    CENTRES: tl.constexpr, BLOCK: tl.constexpr,
) -> None:  # fmt: skip
    """Gradients of the voxels' own weights, and of their corners' sdf and deformation as (S, 8, 4) to be added up."""
    k = tl.program_id(0).to(tl.int64) * BLOCK + tl.arange(0, BLOCK)[:, None]
    live = k < count
    n = tl.load(rows + k, mask=live, other=0).to(tl.int64)
    code = tl.load(codes + n, mask=live, other=0).to(tl.int32)
    e = tl.arange(0, 16)[None, :]
    packed = tl.load(groups + (code & 255) * 16 + e).to(tl.int32)
    cut = packed >= 0
    group = tl.where(cut, packed & 7, -1)
    low, high = edge_ends(e)
    a, a_weight, ax, ay, az = corner_values(index, sdf, deformation, alpha, n, low, cut)
    b, b_weight, bx, by, bz = corner_values(index, sdf, deformation, alpha, n, high, cut)
    ex, ey, ez = bx - ax, by - ay, bz - az
    share = a * a_weight / wide_gap(a * a_weight, b * b_weight)
    plain = a / wide_gap(a, b)
    weight = tl.load(beta + n * 12 + e, mask=cut, other=0.0)
    weight = weight / tl.where(cut, group_totals(weight, group), 1.0)
    total = tl.where(cut, group_totals(tl.load(beta + n * 12 + e, mask=cut, other=0.0), group), 1.0)
    ux, uy, uz = ax + share * ex, ay + share * ey, az + share * ez
    x = group_totals(weight * ux, group)
    y = group_totals(weight * uy, group)
    z = group_totals(weight * uz, group)

    # the deviation: slope of each distance, then along the way from the plain crossing to the vertex
    dx, dy, dz = x - ax - plain * ex, y - ay - plain * ey, z - az - plain * ez
    distance = tl.where(cut, tl.sqrt(dx * dx + dy * dy + dz * dz), 0.0)
    one = cut.to(distance.dtype)
    edges = tl.where(cut, group_totals(one, group), 1.0)
    mean = group_totals(distance, group) / edges
    sign = tl.where(distance > mean, one, tl.where(distance < mean, -one, 0.0))
    slope = (sign - group_totals(sign, group) / edges) * tl.load(grad_deviation) / edge_count / resolution
    slope = tl.where(distance > 0, slope / tl.where(distance > 0, distance, 1.0), 0.0)
    dx, dy, dz = dx * slope, dy * slope, dz * slope

    # the vertex: from the deviation, from the quads' centres and from itself
    gx, gy, gz = dx, dy, dz
    if CENTRES:
        qx, qy, qz, of_gamma = _from_quads(neighbours, gamma, codes, ends, quads, n, e, cut)
        gx, gy, gz = gx + qx / resolution, gy + qy / resolution, gz + qz / resolution
        tl.store(grad_gamma + n, tl.sum(of_gamma, axis=1)[:, None], mask=live)
    kept = cut & (((code >> 8 >> (packed & 7)) & 1) > 0)
    vx, vy, vz = place(grad, vertex_row(code, tl.load(ends + n, mask=live, other=0), packed & 7), kept)
    gx = group_totals(gx, group) + vx / resolution
    gy = group_totals(gy, group) + vy / resolution
    gz = group_totals(gz, group) + vz / resolution

    # its crossings, their shares, the values at the ends
    of_beta = (gx * (ux - x) + gy * (uy - y) + gz * (uz - z)) / total
    tl.store(grad_beta + n * 12 + e, of_beta, mask=cut)
    gx, gy, gz = gx * weight, gy * weight, gz * weight
    wa, wb = share_gradient(a * a_weight, b * b_weight, gx * ex + gy * ey + gz * ez)
    pa, pb = share_gradient(a, b, -(dx * ex + dy * ey + dz * ez))
    sdf_a, sdf_b = wa * a_weight + pa, wb * b_weight + pb
    alpha_a, alpha_b = wa * a, wb * b
    xa, xb = gx * (1 - share) - dx * (1 - plain), gx * share - dx * plain
    ya, yb = gy * (1 - share) - dy * (1 - plain), gy * share - dy * plain
    za, zb = gz * (1 - share) - dz * (1 - plain), gz * share - dz * plain
    s = tl.arange(0, 8)[None, :]
    out = at_corners + k * 32 + s * 4
    tl.store(out, _at_corners(sdf_a, sdf_b, cut), mask=live)
    tl.store(out + 1, _at_corners(xa, xb, cut), mask=live)
    tl.store(out + 2, _at_corners(ya, yb, cut), mask=live)
    tl.store(out + 3, _at_corners(za, zb, cut), mask=live)
    tl.store(grad_alpha + n * 8 + s, _at_corners(alpha_a, alpha_b, cut), mask=live)


@triton.jit(do_not_specialize=["count"])
def corner_gradients(
    incident: tl.tensor, slots: tl.tensor, at_corners: tl.tensor, grad_sdf: tl.tensor, grad_deformation: tl.tensor,
    count: tl.tensor, BLOCK: tl.constexpr,
) -> None:  # fmt: skip
    """Each corner adds up what the cut ones of its up to 8 voxels say of it."""
    c = tl.program_id(0).to(tl.int64) * BLOCK + tl.arange(0, BLOCK)[:, None]
    live = c < count
    s = tl.arange(0, 8)[None, :]
    voxel = tl.load(incident + c * 8 + s, mask=live, other=-1)
    slot = tl.load(slots + voxel, mask=voxel >= 0, other=-1).to(tl.int64)
    at = at_corners + slot * 32 + s * 4
    cut = slot >= 0
    tl.store(grad_sdf + c, tl.sum(tl.load(at, mask=cut, other=0.0), axis=1)[:, None], mask=live)
    tl.store(grad_deformation + c * 3, tl.sum(tl.load(at + 1, mask=cut, other=0.0), axis=1)[:, None], mask=live)
    tl.store(grad_deformation + c * 3 + 1, tl.sum(tl.load(at + 2, mask=cut, other=0.0), axis=1)[:, None], mask=live)
    tl.store(grad_deformation + c * 3 + 2, tl.sum(tl.load(at + 3, mask=cut, other=0.0), axis=1)[:, None], mask=live)
