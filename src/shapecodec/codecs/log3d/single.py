"""One layer from the two of a snapped shell."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass

import torch
from torch import Tensor

from shapecodec.codecs.log3d.finish import border, kept_faces, outward, patch_holes, signed_volumes
from shapecodec.codecs.log3d.layers import choose_regions, weigh
from shapecodec.codecs.log3d.regions import Regions, Shell, cut_into_regions
from shapecodec.ops.components import components
from shapecodec.ops.layer_pairs import VertexCells, covered_vertices, opposite_vertices, vertex_cells

RESTORE_SIZE = (
    48  # vertices, about 6 x 6 voxels; smaller losses are blunt corners, and a patch there only opens the mesh
)
RESTORE_ROUNDS = 2  # edges by which a patch reaches into what is covered: then it meets the kept layer


@dataclass(frozen=True)
class Layer:
    """A surface with as few doubled parts as its coverage allows.

    Args:
        points: (V, 3) float32, voxels.
        faces: (F, 3) int64.
        components: connected components of the shell.
        dropped: components, or sides of open ones, that were dropped.
        double: share of the kept vertices that have a kept vertex on the other layer.
        lost: dropped vertices farther than a voxel from every kept one.
        patched: small holes that were closed.
    """

    points: Tensor
    faces: Tensor
    components: int
    dropped: int
    double: float
    lost: int
    patched: int


def single_layer(
    vertices: Tensor,
    faces: Tensor,
    points: Tensor,
    directions: Tensor,
    resolution: int,
    distance: Callable[[Tensor], Tensor],
    *,
    lost_weight: float,
    restore: bool,
) -> Layer:
    """Drops one of every two layers where the other shows the same place.

    Args:
        vertices: (V, 3) float32 unit cube, the shell as extracted (closed, normals towards the growing field).
        faces: (F, 3) integer.
        points: (V, 3) float32, the shell's vertices in voxels after snapping.
        directions: (V, 3) float32 unit, away from the surface.
        resolution: voxels an axis.
        distance: the field in voxels at (Q, 3) points in voxels.
        lost_weight: how much worse a lost vertex is than a doubled one.
        restore: keep what is lost nevertheless, as patches of the dropped layers.
    """
    cells = vertex_cells(points)
    shell = Shell(points, directions, faces, opposite_vertices(cells, directions))
    regions = cut_into_regions(shell)
    prefer = _faces_right(shell, regions).numpy()
    kept_region = torch.from_numpy(choose_regions(weigh(shell, regions, cells), lost_weight, prefer)).to(points.device)
    kept = kept_region[regions.region]
    double, lost = _coverage(shell, kept, cells)
    if restore:
        kept = kept | _spread(shell.faces, _large(shell.faces, lost), RESTORE_ROUNDS)
        double, lost = _coverage(shell, kept, cells)
    patching = patch_holes(points, border(faces, kept), distance)
    merged = torch.cat([kept_faces(shell, kept), patching.faces])
    all_points = torch.cat([points, patching.points])
    whole = kept_region & ~_mostly(regions.region, double, len(kept_region))
    solid = whole.clone()
    solid[regions.region[patching.rim[:, 0].to(points.device)]] = False
    region = torch.where(kept, regions.region, -1)
    turned = outward(vertices, resolution, directions, region, solid)
    of_face = regions.region[merged[:, 0]]
    open_face = (whole & ~solid)[of_face]
    turned |= signed_volumes(all_points, merged[open_face], of_face[open_face], len(whole)) < 0
    merged = torch.where(turned[of_face][:, None], merged.flip(1), merged)
    merged_points, merged = _compact(all_points, merged)
    return Layer(
        merged_points,
        merged,
        int(regions.component.max()) + 1,
        int((~kept_region).sum()),
        float(double.sum()) / max(int(kept.sum()), 1),
        int(lost.sum()),
        len(patching.points),
    )


def _faces_right(shell: Shell, regions: Regions) -> Tensor:
    """(R,) bool on the CPU: the region's rightmost vertex looks right, so of two layers it is the outer one."""
    region, x = regions.region, shell.points[:, 0]
    count = int(region.max()) + 1
    most = torch.full((count,), -torch.inf, device=x.device).scatter_reduce_(0, region, x, "amax")
    vertex = (x == most[region]).nonzero()[:, 0]
    first = torch.full((count,), len(x), device=x.device).scatter_reduce_(0, region[vertex], vertex, "amin")
    return (shell.directions[first, 0] > 0).cpu()


def _coverage(shell: Shell, kept: Tensor, cells: VertexCells) -> tuple[Tensor, Tensor]:
    """(V,) bool kept vertices with a kept opposite, and dropped vertices that no kept one covers."""
    other_kept = (shell.opposite >= 0) & kept[shell.opposite.clamp(min=0)]
    asked = ~kept & ~other_kept
    covered = covered_vertices(cells, torch.where(kept, 0, -1), asked)
    return kept & other_kept, asked & ~covered


def _large(faces: Tensor, flag: Tensor) -> Tensor:
    """(V,) bool: the flagged vertices that hang together in groups of RESTORE_SIZE or more."""
    if not bool(flag.any()):
        return flag
    inside = faces[flag[faces.long()].all(1)]
    group = components(len(flag), inside)
    return flag & (torch.bincount(group)[group] >= RESTORE_SIZE)


def _spread(faces: Tensor, flag: Tensor, rounds: int) -> Tensor:
    """(V,) bool: the flagged vertices and those within some edges of them."""
    for _ in range(rounds):
        touched = faces[flag[faces.long()].any(1)].long()
        flag = flag.clone()
        flag[touched.flatten()] = True
    return flag


def _mostly(region: Tensor, flag: Tensor, count: int) -> Tensor:
    """(R,) bool: more than half of the region's vertices have the flag."""
    return torch.bincount(region[flag], minlength=count) * 2 > torch.bincount(region, minlength=count)


def _compact(points: Tensor, faces: Tensor) -> tuple[Tensor, Tensor]:
    """Without the points that no face uses."""
    used = torch.zeros(len(points), dtype=torch.bool, device=points.device)
    used[faces.flatten()] = True
    return points[used], (torch.cumsum(used, 0) - 1)[faces]
