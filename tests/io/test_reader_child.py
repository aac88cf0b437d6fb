"""A reader that crashes, hangs or eats memory ends alone, with an error that says so."""

import resource
import time

import numpy as np
import pytest
from shapes import tetra, wavy_grid

from shapecodec.errors import BadFile
from shapecodec.io import mesh_files
from shapecodec.io.mesh_files import read_mesh, write_mesh


@pytest.fixture
def path(tmp_path):
    write_mesh(tetra(), tmp_path / "a.ply")
    return tmp_path / "a.ply"


def replace_child(monkeypatch, tmp_path, code):
    script = tmp_path / "child.py"
    script.write_text(code)
    monkeypatch.setattr(mesh_files, "_CHILD", script)


def test_abort(path, tmp_path, monkeypatch):
    replace_child(monkeypatch, tmp_path, "import os\nos.abort()")
    with pytest.raises(BadFile, match=r"a\.ply: its reader crashed \(SIGABRT"):
        read_mesh(path)


def test_segmentation_fault(path, tmp_path, monkeypatch):
    replace_child(monkeypatch, tmp_path, "import ctypes\nctypes.string_at(0)")
    with pytest.raises(BadFile, match="its reader crashed"):
        read_mesh(path)


def test_silent_exit(path, tmp_path, monkeypatch):
    replace_child(monkeypatch, tmp_path, "raise SystemExit(0)")
    with pytest.raises(BadFile, match="exit code 0"):
        read_mesh(path)


def test_hang(path, tmp_path, monkeypatch):
    replace_child(monkeypatch, tmp_path, "import time\ntime.sleep(60)")
    begin = time.monotonic()
    with pytest.raises(BadFile, match=r"longer than 0\.3 s"):
        read_mesh(path, timeout_s=0.3)
    assert time.monotonic() - begin < 20


def test_library_that_cannot_allocate(path, tmp_path, monkeypatch):
    code = "import os, sys\nsys.stderr.write('terminate: std::bad_alloc')\nsys.stderr.flush()\nos.abort()"
    replace_child(monkeypatch, tmp_path, code)
    with pytest.raises(BadFile, match="more than 8 GiB of memory"):
        read_mesh(path)


def test_out_of_memory(tmp_path):
    path = tmp_path / "a.stl"
    with path.open("wb") as file:  # 300 MB of zeros that the disk does not hold
        file.write(b"".ljust(80) + (6_000_000).to_bytes(4, "little"))
        file.truncate(84 + 50 * 6_000_000)
    with pytest.raises(BadFile, match=r"more than 0\.25 GiB of memory"):
        read_mesh(path, memory_bytes=1 << 28)


def test_processor_time_is_limited(path, tmp_path, monkeypatch):
    """The limit that the child sets for itself, should the parent be gone."""
    code = (
        f"import runpy\nlimit = runpy.run_path({str(mesh_files._CHILD)!r}, run_name='other')['_limit']\n"
        "limit(8 << 30, 1)\nwhile True: pass"
    )
    replace_child(monkeypatch, tmp_path, code)
    with pytest.raises(BadFile, match="longer than 30 s"):
        read_mesh(path, timeout_s=30)
    assert resource.getrlimit(resource.RLIMIT_CPU)[0] != 1


def test_the_current_folder_is_not_imported_from(path, tmp_path, monkeypatch):
    (tmp_path / "numpy.py").write_text("raise SystemExit(7)")
    (tmp_path / "json.py").write_text("raise SystemExit(7)")
    monkeypatch.chdir(tmp_path)
    monkeypatch.syspath_prepend("")
    assert len(read_mesh(path).faces) == 4


def test_the_child_does_not_load_torch(path, tmp_path, monkeypatch):
    code = (
        "import runpy, sys\nfrom pathlib import Path\n"
        f"runpy.run_path({str(mesh_files._CHILD)!r}, run_name='__main__')\n"
        "loaded = [m for m in ('torch', 'trimesh', 'numba') if m in sys.modules]\nassert not loaded, loaded"
    )
    replace_child(monkeypatch, tmp_path, code)
    assert len(read_mesh(path).faces) == 4


def test_no_weld(tmp_path):
    write_mesh(wavy_grid(3), tmp_path / "a.stl")
    assert len(read_mesh(tmp_path / "a.stl", weld=False).vertices) == 24
    mesh = read_mesh(tmp_path / "a.stl")
    assert len(mesh.vertices) == 9
    assert mesh.faces.dtype.is_floating_point is False
    assert np.isfinite(mesh.vertices.numpy()).all()
