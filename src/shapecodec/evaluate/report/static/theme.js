"use strict";
// Before the first paint, so that a page that was set dark does not flash white.
try {
  const stored = localStorage.getItem("shapecodec-theme");
  if (stored === "light" || stored === "dark") document.documentElement.dataset.theme = stored;
} catch { /* storage is closed to some local files; the system's choice holds */ }
document.documentElement.classList.add("script");
