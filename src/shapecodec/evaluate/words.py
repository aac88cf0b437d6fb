"""What each key of a result is, in the words that are printed with it."""

from __future__ import annotations

COMMON = {
    "frame": "The reference's box is centred and one length of it fixed, which each protocol names; the prediction is moved by "
    "the same similarity and never normalised by itself. Distances are in these units, or in voxels of the codec's grid.",
    "accuracy": "Exact distance from points sampled uniformly by area on the prediction to the reference's "
    "triangles. Inner layers of a double shell are sampled like any other surface.",
    "completeness": "Exact distance from points sampled uniformly by area on the reference to the prediction's "
    "triangles.",
    "max": "Largest distance over the sampled points: a lower bound of the one-sided Hausdorff distance.",
    "hausdorff": "Largest distance from any point of one surface to the other, both ways; it lies between `lower`, which a "
    "point attains, and `upper`, which bounds every triangle.",
    "exact_f_score": "Harmonic mean of the shares of sampled points whose exact distance to the other mesh is below "
    "the threshold. No sampling floor: identical meshes score 1.",
    "chamfer_l1": "Mean distance (not squared) from each sampled point to the nearest one of the other mesh; "
    "half_sum = (completeness + accuracy) / 2 as in LoG3D, supplement B.",
    "chamfer_l2": "The same with squared distances.",
    "f_score": "Harmonic mean of precision and recall: the shares of sampled points with a sampled point of the other "
    "mesh nearer than the threshold (LoG3D, supplement B).",
    "floor": "The reference against itself, sampled again with another seed: what a perfect prediction scores. In "
    "expectation, area A and n points: Chamfer L1 .5 sqrt(A/n), squared A/(pi n), F 1 - exp(-pi r^2 n/A) at radius r.",
    "normal_error": "Angle in degrees between the normal lines (unsigned, 0 to 90) at a sampled point and at its exact "
    "closest point on the other mesh; faces without area are left out. Signed (0 to 180): between the normals themselves, "
    "as the faces are wound.",
    "iou": "Share of uniform points of the box around both meshes that are inside both, among those inside either; inside "
    "is a winding number beyond one half, of either sign. Only where both meshes have an inside: closed and consistently wound, or "
    "with at most 2% of the points that they cover in doubt (winding number from 1/4 to 3/4). The same points ask both meshes, so "
    "there is no floor: a perfect prediction scores 1.",
    "standard_error": "Of the number at the same place in the result, from the samples alone: of means and shares by their "
    "variance, of quantiles by their neighbouring ranks. Sampled scores: times 1.5, because both sets are random.",
    "area_ratio": "Area of the prediction over that of the reference; near 2 for a double shell.",
    "watertight": "Every edge belongs to exactly two faces; faces that repeat a vertex are not counted.",
    "self_intersections": "Pairs of faces that cross, touch or overlap outside their common vertices and edges, and the "
    "faces of such pairs; exact after rounding vertices to 2^-30 of the mesh's longest side.",
    "volume": "Signed volume, only where the mesh is watertight.",
}
_OUTER = (
    "Only points that are seen from outside are sampled: in one at least of 100 orthographic pictures of 512 pixels a side, each "
    "mesh by itself. Exact distances and normals go from these points to the whole other mesh; Hausdorff distance, IoU, areas and "
    "topology are of whole meshes."
)
LOG3D_WORDS = {
    "surface": "The whole surface is sampled. LoG3D samples outer surfaces only: see log3d-outer-v1.",
    "paper": "LoG3D, supplement B: half the sum of mean distances, F at .001 and .01 in per cent. The scale of its tables' "
    "Chamfer distances is not stated there; here it is 1.",
}
LOG3D_OUTER_WORDS = {
    **LOG3D_WORDS,
    "surface": f"{_OUTER} LoG3D, supplement B, samples outer surfaces after TRELLIS, from views and with a number of points that "
    "neither publishes: compare with its tables by the floor, not by absolute values.",
}
FOCUSING_WORDS = {
    "surface": "The whole surface is sampled.",
    "paper": "Focusing, tables 2 and 4: 100,000 points, 'L2 norm of Chamfer Distance' times 1e5, F at .005. Read as the sum of "
    "both mean squared distances in the cube of side 1: so read, their Chamfer distances and F-scores are the floor of shapes "
    "of one and the same area, 2 to 3.5; as half a sum they contradict each other.",
}
FOCUSING_OUTER_WORDS = {
    **FOCUSING_WORDS,
    "surface": f"{_OUTER} Focusing, appendix A, scores methods that rebuild visible regions so, by TRELLIS's points, whose "
    "views are not published.",
}
LAGEM_WORDS = {
    "surface": "The whole surface is sampled.",
    "paper": "LaGeM, tables 4 and 5, by the evaluation of 3DShape2VecSet: sum of both mean distances (not squared) times 100, F "
    "at .02 in per cent. There the prediction has 100,000 points and the reference all stored ones; here both have 100,000. "
    "Frame: the unit sphere of section 4.1.",
}
