"""Pictures of meshes on a CPU: `contact_sheet` for a report, `render` for a single view."""

from shapecodec.render.shade import render
from shapecodec.render.sheet import SheetStyle, contact_sheet

__all__ = ["SheetStyle", "contact_sheet", "render"]
