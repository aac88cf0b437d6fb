"use strict";
// One dialog and one WebGL context for all shapes, made when the first one is opened.
(function viewer() {
  const dialog = document.getElementById("viewer"), canvas = dialog.querySelector("canvas"), stage = dialog.querySelector(".stage");
  const form = dialog.querySelector("form"), status = dialog.querySelector(".status"), divider = dialog.querySelector(".divider");
  const home = { yaw: (32 * Math.PI) / 180, pitch: (16 * Math.PI) / 180, zoom: 1, pan: [0, 0] };
  let scene = null, camera = null, open = null, turn = 0, waiting = false;
  let points = null; // of the original that is shown
  const reset = () => {
    camera = { ...home, pan: [0, 0] };
    if (points) camera.zoom = scene.fit(camera, points, scene.aspect(form.elements.layout.value === "swipe"));
  };
  reset();

  const look = () => ({
    coloured: form.elements.colour.value === "error", cut: Number(form.elements.cut.value),
    swipe: form.elements.layout.value === "swipe" ? Number(form.elements.swipe.value) : null,
  });
  const draw = () => {
    if (waiting) return;
    waiting = true;
    requestAnimationFrame(() => {
      waiting = false;
      const now = look();
      stage.classList.toggle("swiping", now.swipe !== null);
      stage.classList.toggle("stacked", now.swipe === null && Boolean(scene?.stacked));
      dialog.classList.toggle("coloured", now.coloured);
      divider.style.left = now.swipe === null ? "50%" : `${100 * now.swipe}%`;
      if (scene && scene.centre) scene.draw(camera, now);
    });
  };

  const cards = () => find(".case .open").map((button) => button.dataset.shape); // in the order of the page
  const side = (name) => dialog.querySelector(`.side.${name} span`);

  async function show(index) {
    const shape = data.shapes[index], mine = ++turn;
    open = index;
    document.getElementById("viewer-name").textContent = shape.name;
    document.getElementById("viewer-about").textContent = shape.about;
    document.getElementById("viewer-numbers").replaceChildren(...data.metrics.map((metric, at) => {
      const box = document.createElement("div"), name = document.createElement("dt"), value = document.createElement("dd");
      name.textContent = metric.label;
      value.textContent = `${shape.texts[at]} ${metric.unit}`;
      box.append(name, value);
      return box;
    }));
    const order = cards(), place = order.indexOf(index);
    dialog.querySelector('[data-do="previous"]').disabled = place <= 0;
    dialog.querySelector('[data-do="next"]').disabled = place === order.length - 1;
    status.textContent = "Opening";
    try {
      scene ??= new Scene(canvas, data.stops);
      const [original, reconstruction] = await Promise.all(["original", "reconstruction"].map((name) => readView(`view-${index}-${name}`)));
      if (mine !== turn) return; // another shape was asked for meanwhile
      scene.show({ original, reconstruction });
      points = original.positions;
      reset();
      for (const [name, mesh] of Object.entries({ original, reconstruction })) {
        side(name).textContent = `${mesh.faces.toLocaleString("en")} triangles in this view`;
        side(name).parentElement.classList.toggle("plain", !mesh.errors);
      }
      const unit = reconstruction.unit && reconstruction.largest === 1 ? "voxel" : reconstruction.unit;
      dialog.querySelector(".ramp-legend .end").textContent = `${Number(reconstruction.largest.toPrecision(3))} ${unit} or more`;
      form.querySelector('[value="error"]').disabled = !(original.errors || reconstruction.errors);
      status.textContent = "";
    } catch (error) {
      status.textContent = `This shape cannot be shown: ${error.message}.`;
    }
    draw();
  }

  const step = (by) => {
    const order = cards(), next = order[order.indexOf(open) + by];
    if (next !== undefined) show(next);
  };
  const actions = {
    previous: () => step(-1), next: () => step(1), close: () => dialog.close(),
    reset: () => { reset(); form.elements.cut.value = 0; form.elements.swipe.value = 0.5; draw(); },
  };
  document.addEventListener("click", (event) => {
    const opener = event.target.closest(".case .open, .case .pictures.live");
    if (opener) {
      dialog.showModal();
      show(opener.closest(".case").dataset.shape);
      canvas.focus();
    }
    const action = event.target.closest("#viewer [data-do]");
    if (action) actions[action.dataset.do]();
  });
  dialog.addEventListener("close", () => {
    document.getElementById(`shape-${open}`)?.querySelector(".open")?.focus();
  });
  form.addEventListener("input", (event) => {
    if (event.target.name === "layout") reset(); // the panes have another shape
    draw();
  });
  form.addEventListener("submit", (event) => event.preventDefault());

  // One pointer turns, or pans with shift or another button; two pinch and pan. Near the divider it is dragged.
  const pointers = new Map();
  let dragging = false;
  const orbit = (dx, dy) => {
    camera.yaw -= dx * 0.008;
    camera.pitch = Math.min(Math.max(camera.pitch + dy * 0.008, -1.55), 1.55);
  };
  const pan = (dx, dy) => {
    const scale = 2.2 / camera.zoom / Math.min(canvas.clientWidth, canvas.clientHeight);
    camera.pan[0] += dx * scale;
    camera.pan[1] -= dy * scale;
  };
  const zoom = (factor) => { camera.zoom = Math.min(Math.max(camera.zoom * factor, 0.4), 40); };
  canvas.addEventListener("pointerdown", (event) => {
    canvas.setPointerCapture(event.pointerId);
    pointers.set(event.pointerId, [event.clientX, event.clientY]);
    const { swipe } = look();
    dragging = swipe !== null && pointers.size === 1 && Math.abs(event.offsetX - swipe * canvas.clientWidth) < 18;
  });
  canvas.addEventListener("pointermove", (event) => {
    const before = pointers.get(event.pointerId);
    if (!before) return;
    const [dx, dy] = [event.clientX - before[0], event.clientY - before[1]];
    if (dragging) {
      form.elements.swipe.value = event.offsetX / canvas.clientWidth;
    } else if (pointers.size === 2) {
      const other = Array.from(pointers).find(([id]) => id !== event.pointerId)[1];
      const span = (point) => Math.hypot(point[0] - other[0], point[1] - other[1]) || 1;
      zoom(span([event.clientX, event.clientY]) / span(before));
      pan(dx / 2, dy / 2);
    } else if (event.shiftKey || event.buttons & 6) pan(dx, dy);
    else orbit(dx, dy);
    pointers.set(event.pointerId, [event.clientX, event.clientY]);
    draw();
  });
  for (const kind of ["pointerup", "pointercancel"]) canvas.addEventListener(kind, (event) => pointers.delete(event.pointerId));
  canvas.addEventListener("contextmenu", (event) => event.preventDefault());
  canvas.addEventListener("dblclick", () => actions.reset());
  canvas.addEventListener("wheel", (event) => {
    event.preventDefault();
    zoom(Math.exp(-event.deltaY * (event.deltaMode ? 0.05 : 0.0015)));
    draw();
  }, { passive: false });
  const keys = {
    ArrowLeft: () => orbit(-12, 0), ArrowRight: () => orbit(12, 0), ArrowUp: () => orbit(0, -12), ArrowDown: () => orbit(0, 12),
    "+": () => zoom(1.15), "=": () => zoom(1.15), "-": () => zoom(1 / 1.15), 0: actions.reset,
  };
  canvas.addEventListener("keydown", (event) => {
    if (event.ctrlKey || event.metaKey || event.altKey || !keys[event.key]) return;
    event.preventDefault();
    keys[event.key]();
    draw();
  });
  dialog.addEventListener("keydown", (event) => {
    if (event.key === ",") step(-1);
    if (event.key === ".") step(1);
  });
  canvas.addEventListener("webglcontextlost", (event) => { event.preventDefault(); status.textContent = "The graphics card was lost."; });
  canvas.addEventListener("webglcontextrestored", () => { scene.build(); scene.panes = {}; show(open); });
  new ResizeObserver(draw).observe(canvas);

  const ramp = data.stops.map((stop) => `rgb(${stop.map((c) => Math.round(255 * c)).join(" ")})`).join(",");
  dialog.querySelector(".ramp").style.background = `linear-gradient(90deg,${ramp})`;
  for (const button of find(".case .open")) button.closest(".case").querySelector(".pictures").classList.add("live");
})();
