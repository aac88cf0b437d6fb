"""`write_report`: a run folder as one page that opens in any browser, without a network.

Everything is inside the file: style, script, pictures, view meshes. Its content security policy forbids it to fetch anything and
to run any script but its own, whatever names and reasons the data brings.
"""

from shapecodec.evaluate.report.page import write_report
from shapecodec.evaluate.report.view_mesh import ViewMesh, read_view_mesh, write_view_mesh

__all__ = ["ViewMesh", "read_view_mesh", "write_report", "write_view_mesh"]
