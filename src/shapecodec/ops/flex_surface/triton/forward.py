"""Kernels of the extraction itself: count, list the cut voxels, place their dual vertices, write the quads."""

import triton
import triton.language as tl

from shapecodec.ops.flex_surface.triton.frames import (
    corner_values,
    edge_ends,
    group_totals,
    inside_case,
    ones,
    quad_row,
    tap_steps,
    vertex_row,
    wide_gap,
)


@triton.jit(do_not_specialize=["count"])
def count_voxels(
    sdf: tl.tensor, index: tl.tensor, neighbours: tl.tensor, switches: tl.tensor, loops: tl.tensor, codes: tl.tensor,
    emitted: tl.tensor, cuts: tl.tensor, count: tl.tensor, BLOCK: tl.constexpr,
) -> None:  # fmt: skip
    """Each voxel's code, its kept vertices with its quads above them, and whether it is cut with its cut edges above."""
    n = tl.program_id(0).to(tl.int64) * BLOCK + tl.arange(0, BLOCK)
    live = n < count
    case = inside_case(sdf, index, n, live)
    face = tl.load(switches + case).to(tl.int32)
    asks = live & (face >= 0)
    step = (2 * (face % 2) - 1) * tl.where(face < 2, 9, tl.where(face < 4, 3, 1))
    other = tl.load(neighbours + n * 27 + 13 + step, mask=asks, other=-1).to(tl.int64)
    asks = asks & (other >= 0)
    answer = tl.load(switches + inside_case(sdf, index, other, asks)).to(tl.int32)
    case = tl.where(asks & (answer == (face ^ 1)), 255 - case, case)
    e = tl.arange(0, 16)[None, :]
    low, high = edge_ends(e)
    cut = live[:, None] & (e < 12) & ((((case[:, None] >> low) ^ (case[:, None] >> high)) & 1) > 0)
    first, second = tap_steps(e // 4)
    across = (2 * ((e // 2) % 2) - 1) * first
    beside = (2 * (e % 2) - 1) * second
    centre = neighbours + n[:, None] * 27 + 13
    full = cut & (tl.load(centre + across, mask=cut, other=-1) >= 0)
    full = full & (tl.load(centre + beside, mask=full, other=-1) >= 0)
    full = full & (tl.load(centre + across + beside, mask=full, other=-1) >= 0)
    edges = tl.sum(full.to(tl.int32) << e, axis=1)
    kept = tl.zeros_like(case)
    for g in tl.static_range(4):
        own = tl.load(loops + case * 4 + g).to(tl.int32)
        kept += ((edges & own) > 0).to(tl.int32) << g
    owned = (edges & 1) + ((edges >> 3) & 2) + ((edges >> 6) & 4)
    found = tl.sum(cut.to(tl.int32), axis=1)
    tl.store(codes + n, (case + (kept << 8) + (owned << 12)).to(tl.int16), mask=live)
    tl.store(emitted + n, ones(kept).to(tl.int64) + (ones(owned).to(tl.int64) << 32), mask=live)
    tl.store(cuts + n, (found > 0).to(tl.int64) + (found.to(tl.int64) << 32), mask=live)


@triton.jit(do_not_specialize=["count"])
def list_cut(
    codes: tl.tensor, cut_ends: tl.tensor, rows: tl.tensor, slots: tl.tensor, count: tl.tensor, BLOCK: tl.constexpr
) -> None:
    """The cut voxels' rows, and each voxel's place among them or -1."""
    n = tl.program_id(0).to(tl.int64) * BLOCK + tl.arange(0, BLOCK)
    live = n < count
    case = tl.load(codes + n, mask=live, other=0).to(tl.int32) & 255
    cut = live & (case > 0) & (case < 255)
    slot = (tl.load(cut_ends + n, mask=live, other=0) & 0xFFFFFFFF) - 1
    tl.store(rows + slot, n.to(tl.int32), mask=cut)
    tl.store(slots + n, tl.where(cut, slot, -1).to(tl.int32), mask=live)


@triton.jit(do_not_specialize=["count", "resolution"])
def place_vertices(
    coords: tl.tensor, index: tl.tensor, sdf: tl.tensor, deformation: tl.tensor, alpha: tl.tensor, beta: tl.tensor,
    codes: tl.tensor, ends: tl.tensor, groups: tl.tensor, rows: tl.tensor, vertices: tl.tensor, deviations: tl.tensor,
    count: tl.tensor, resolution: tl.tensor, BLOCK: tl.constexpr,
) -> None:  # fmt: skip
    """The kept dual vertices of cut voxels, and for each program the sum of its deviations, in voxels."""
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
    share = a * a_weight / wide_gap(a * a_weight, b * b_weight)
    weight = tl.load(beta + n * 12 + e, mask=cut, other=0.0)
    total = tl.where(cut, group_totals(weight, group), 1.0)
    x = group_totals(weight * (ax + share * (bx - ax)), group) / total
    y = group_totals(weight * (ay + share * (by - ay)), group) / total
    z = group_totals(weight * (az + share * (bz - az)), group) / total
    plain = a / wide_gap(a, b)
    dx = x - ax - plain * (bx - ax)
    dy = y - ay - plain * (by - ay)
    dz = z - az - plain * (bz - az)
    distance = tl.where(cut, tl.sqrt(dx * dx + dy * dy + dz * dz), 0.0)
    edges = group_totals(cut.to(distance.dtype), group)
    mean = group_totals(distance, group) / tl.where(cut, edges, 1.0)
    tl.store(deviations + tl.program_id(0), tl.sum(tl.sum(tl.abs(distance - mean), axis=1), axis=0))
    end = tl.load(ends + n, mask=live, other=0)
    leads = cut & (packed >= 8) & (((code >> 8 >> (packed & 7)) & 1) > 0)
    at = vertices + vertex_row(code, end, packed & 7) * 3
    half = resolution.to(x.dtype) * 0.5
    tl.store(at, (tl.load(coords + n * 3, mask=live, other=0) - half + x) / resolution, mask=leads)
    tl.store(at + 1, (tl.load(coords + n * 3 + 1, mask=live, other=0) - half + y) / resolution, mask=leads)
    tl.store(at + 2, (tl.load(coords + n * 3 + 2, mask=live, other=0) - half + z) / resolution, mask=leads)


@triton.jit
def quad_voxels(
    neighbours: tl.tensor, rows: tl.tensor, codes: tl.tensor, k: tl.tensor, count: tl.tensor, axis: tl.tensor
) -> tuple[tl.tensor, tl.tensor, tl.tensor, tl.tensor, tl.tensor, tl.tensor]:
    """Of cut voxels k (BLOCK, 1) and axes (1, 4): code, whether there is a quad, and the voxels with bits 00, 01, 10, 11."""
    live = k < count
    n = tl.load(rows + k, mask=live, other=0).to(tl.int64)
    code = tl.load(codes + n, mask=live, other=0).to(tl.int32)
    owned = live & (((code >> 12 >> axis) & 1) > 0)
    first, second = tap_steps(axis)
    centre = neighbours + n * 27 + 13
    n01 = tl.load(centre - second, mask=owned, other=0).to(tl.int64)
    n10 = tl.load(centre - first, mask=owned, other=0).to(tl.int64)
    n11 = tl.load(centre - first - second, mask=owned, other=0).to(tl.int64)
    return code, owned, n + n01 * 0, n01, n10, n11


@triton.jit
def edge_vertex(
    codes: tl.tensor, ends: tl.tensor, groups: tl.tensor, n: tl.tensor, edge: tl.tensor, live: tl.tensor
) -> tl.tensor:
    """Row of the kept dual vertex that an edge of voxel n belongs to."""
    code = tl.load(codes + n, mask=live, other=0).to(tl.int32)
    group = tl.load(groups + (code & 255) * 16 + edge, mask=live, other=0).to(tl.int32) & 7
    return vertex_row(code, tl.load(ends + n, mask=live, other=0), group)


@triton.jit
def place(vertices: tl.tensor, row: tl.tensor, live: tl.tensor) -> tuple[tl.tensor, tl.tensor, tl.tensor]:
    """Coordinates of a vertex."""
    at = vertices + row * 3
    x = tl.load(at, mask=live, other=0.0)
    y = tl.load(at + 1, mask=live, other=0.0)
    return x, y, tl.load(at + 2, mask=live, other=0.0)


@triton.jit
def _triangle(faces: tl.tensor, row: tl.tensor, a: tl.tensor, b: tl.tensor, c: tl.tensor, live: tl.tensor) -> None:
    tl.store(faces + row * 3, a, mask=live)
    tl.store(faces + row * 3 + 1, b, mask=live)
    tl.store(faces + row * 3 + 2, c, mask=live)


@triton.jit(do_not_specialize=["count", "vertex_count"])
def write_quads(
    index: tl.tensor, neighbours: tl.tensor, sdf: tl.tensor, gamma: tl.tensor, codes: tl.tensor, ends: tl.tensor,
    groups: tl.tensor, rows: tl.tensor, vertices: tl.tensor, faces: tl.tensor, count: tl.tensor, vertex_count: tl.tensor,
    CENTRES: tl.constexpr, BLOCK: tl.constexpr,
) -> None:  # fmt: skip
    """The quads' triangles and, if wanted, their centres behind the dual vertices."""
    k = tl.program_id(0).to(tl.int64) * BLOCK + tl.arange(0, BLOCK)[:, None]
    axis = tl.arange(0, 4)[None, :]
    code, live, n00, n01, n10, n11 = quad_voxels(neighbours, rows, codes, k, count, axis)
    v00 = edge_vertex(codes, ends, groups, n00, axis * 4, live)
    v01 = edge_vertex(codes, ends, groups, n01, axis * 4 + 1, live)
    v10 = edge_vertex(codes, ends, groups, n10, axis * 4 + 2, live)
    v11 = edge_vertex(codes, ends, groups, n11, axis * 4 + 3, live)
    first = tl.load(gamma + n00, mask=live, other=1.0) * tl.load(gamma + n11, mask=live, other=1.0)
    second = tl.load(gamma + n01, mask=live, other=1.0) * tl.load(gamma + n10, mask=live, other=1.0)
    row = tl.load(index + n00 * 8, mask=live, other=0)
    rising = tl.load(sdf + row, mask=live, other=0.0) < 0
    turned = rising == (axis == 1)
    left = tl.where(turned, v01, v10)
    right = tl.where(turned, v10, v01)
    quad = quad_row(code, tl.load(ends + n00, mask=live, other=0), axis)
    if CENTRES:
        middle = quad + vertex_count
        x00, y00, z00 = place(vertices, v00, live)
        x01, y01, z01 = place(vertices, v01, live)
        x10, y10, z10 = place(vertices, v10, live)
        x11, y11, z11 = place(vertices, v11, live)
        share = first / (first + second)
        x, y, z = x01 + x10, y01 + y10, z01 + z10
        tl.store(vertices + middle * 3, (x + share * (x00 + x11 - x)) * 0.5, mask=live)
        tl.store(vertices + middle * 3 + 1, (y + share * (y00 + y11 - y)) * 0.5, mask=live)
        tl.store(vertices + middle * 3 + 2, (z + share * (z00 + z11 - z)) * 0.5, mask=live)
        _triangle(faces, quad * 4, v00, left, middle, live)
        _triangle(faces, quad * 4 + 1, left, v11, middle, live)
        _triangle(faces, quad * 4 + 2, v11, right, middle, live)
        _triangle(faces, quad * 4 + 3, right, v00, middle, live)
    else:
        along = first > second
        _triangle(
            faces, quad * 2, tl.where(along, v00, left), tl.where(along, left, v11), tl.where(along, v11, right), live
        )
        _triangle(
            faces,
            quad * 2 + 1,
            tl.where(along, v00, left),
            tl.where(along, v11, right),
            tl.where(along, right, v00),
            live,
        )
