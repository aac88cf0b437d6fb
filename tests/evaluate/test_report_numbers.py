"""Columns with a wrong label, numbers with too many digits, values outside their axis."""

import pytest

from shapecodec.evaluate.report.catalogue import describe, find_metrics, key_metrics
from shapecodec.evaluate.report.charts import span, strip_axis
from shapecodec.evaluate.report.numbers import Scale, size_text
from shapecodec.evaluate.report.run import Score


@pytest.mark.parametrize(
    ("column", "label", "unit", "better"),
    [
        ("exact-v1.exact.accuracy_voxels.p95", "Reconstruction to input, p95", "voxels", "low"),
        ("exact-v1.exact.f_score.0.001.f", "F-score at 0.001, exact", "", "high"),
        ("log3d-v1.sampled.f_score.0.01.recall", "Recall at 0.01, sampled", "", "high"),
        ("log3d-v1.sampled.chamfer_l1.half_sum", "Chamfer distance, half sum", "lengths", "low"),
        ("lagem-v1.paper.f_0.02.value", "F-score at 0.02, as in the paper", "", "high"),
        ("exact-v1.area_ratio", "Area ratio", "", "one"),
        ("normals-v1.both.nmse", "Normal map error, where both are seen", "", "low"),
        ("exact-v1.never.heard_of", "Never, heard of", "", ""),
    ],
)
def test_column_with_a_wrong_label(column, label, unit, better):
    metric = describe(column)
    assert metric is not None and (metric.label, metric.unit, metric.better) == (label, unit, better)
    assert describe(f"floor.{column}") is None and describe(f"oracle.{column}") is None


def test_table_that_repeats_the_exact_numbers_under_each_paper():
    columns = [f"{name}.exact.accuracy_voxels.mean" for name in ("exact-v1", "lagem-v1")]
    metrics = find_metrics([*columns, "lagem-v1.paper.chamfer.value"])
    assert [metric.column for metric in key_metrics(metrics)] == [columns[0], "lagem-v1.paper.chamfer.value"]


def test_column_that_is_no_metric():
    assert (
        find_metrics(["name", "seconds.encode", "tokens", "exact-v1.standard_error.iou", "exact-v2.iou.value"])[0].label
        == "Volume IoU"
    )
    assert describe("seconds.encode") is None and describe("bytes") is None


@pytest.mark.parametrize(
    ("values", "value", "shown"),
    [
        ([0.1234], 0.1234, "0.123"),
        ([0.0042, 0.0043], 0.00425, "4.25 \N{MULTIPLICATION SIGN} 10⁻³"),
        ([3.4e-7], -3.44e-7, "\N{MINUS SIGN}344 \N{MULTIPLICATION SIGN} 10⁻⁹"),
        ([56.7], 1234.567, "1,234.6"),
        ([0.999], 1.0, "1.000"),
        ([0.0, None], 0.0, "0.000"),
        ([2.0], -0.0001, "0.00"),
        ([5e6], 5e6, "5.00 \N{MULTIPLICATION SIGN} 10⁶"),
    ],
)
def test_number_printed_with_too_many_or_too_few_digits(values, value, shown):
    scale = Scale.of(values)
    assert f"{scale.text(value)} {scale.factor()}".strip() == shown


def test_size_in_words():
    assert [size_text(n) for n in (0, 999, 1000, 12_345, 999_999, 1e9, None)] == [
        "0 B", "999 B", "1.00 kB", "12.3 kB", "1.00 MB", "1.00 GB", "\N{EN DASH}",
    ]  # fmt: skip


@pytest.mark.parametrize(
    "values", [[1.0], [0.0], [0.0, 5.0], [1e-3, 10.0], [0.5, 0.5], [-2.0, 3.0], [1e-9, 2e-9], [0.9, 1.0]]
)
@pytest.mark.parametrize("most", [None, 1.0])
def test_value_outside_its_axis(values, most):
    axis = span(values, 10.0, 110.0, most=most)
    places = [axis.place(value) for value in sorted(values)]
    assert places == sorted(places) and all(axis.low <= value <= axis.high for value in values)
    ticks = axis.ticks()
    assert 1 <= len(ticks) <= 9 and all(9.9 <= axis.place(tick) <= 110.1 for tick in ticks)
    assert all(axis.low - 1e-9 <= tick <= axis.high * 1.001 + 1e-9 for tick in ticks)
    strip = strip_axis([Score(value, floor=0.0) for value in values], most=most)
    assert strip is not None and all(3.9 <= strip.place(value) <= 96.1 for value in values)
