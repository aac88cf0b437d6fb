import shutil

import pytest
from data_set import ASSETS, row, write_manifest


@pytest.fixture
def folder(tmp_path):
    """Two train meshes and one of val."""
    for split, name in (("train", "trex"), ("train", "barn"), ("val", "trex")):
        (tmp_path / split).mkdir(exist_ok=True)
        shutil.copy(ASSETS / f"{name}.drc", tmp_path / split)
    write_manifest(
        tmp_path, [row("train", "trex", "CC0-1.0"), row("train", "barn", "CC-BY-4.0"), row("val", "trex", "CC0-1.0")]
    )
    return tmp_path
