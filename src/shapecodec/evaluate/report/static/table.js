"use strict";
// What makes the page handy; without it everything is there, worst shapes first.
const data = JSON.parse(document.getElementById("data").textContent);
const find = (selector, root = document) => Array.from(root.querySelectorAll(selector));

(function theme() {
  const button = document.getElementById("theme"), root = document.documentElement;
  const order = ["auto", "light", "dark"], words = { auto: "Auto", light: "Light", dark: "Dark" };
  const show = () => {
    const now = root.dataset.theme || "auto";
    button.textContent = words[now];
    button.dataset.now = now;
    button.setAttribute("aria-label", `Theme: ${words[now]}. Press to change.`);
  };
  button.hidden = false;
  button.addEventListener("click", () => {
    const next = order[(order.indexOf(root.dataset.theme || "auto") + 1) % order.length];
    if (next === "auto") delete root.dataset.theme;
    else root.dataset.theme = next;
    try {
      if (next === "auto") localStorage.removeItem("shapecodec-theme");
      else localStorage.setItem("shapecodec-theme", next);
    } catch { /* it holds for this visit */ }
    show();
    document.dispatchEvent(new Event("themechange"));
  });
  show();
})();

(function sections() {
  const links = find("nav a"), seen = new Set();
  const watcher = new IntersectionObserver((entries) => {
    for (const entry of entries) seen[entry.isIntersecting ? "add" : "delete"](entry.target.id);
    const current = links.find((link) => seen.has(link.hash.slice(1)));
    for (const link of links) {
      if (link === current) link.setAttribute("aria-current", "true");
      else link.removeAttribute("aria-current");
    }
    if (current) {
      const box = current.parentElement;
      box.scrollTo({ left: current.offsetLeft - box.offsetLeft - 40 });
    }
  }, { rootMargin: "-72px 0px -55% 0px" });
  find("main > section").forEach((section) => watcher.observe(section));
})();

(function cards() {
  const box = document.getElementById("cases"), more = document.getElementById("more"), rank = document.getElementById("rank");
  if (!box) return;
  const step = Number(more.dataset.shown), all = find(".case", box);
  let shown = step;
  const show = () => {
    find(".case", box).forEach((card, index) => {
      card.hidden = index >= shown;
      card.querySelector(".rank").textContent = `${index + 1}`;
    });
    more.hidden = shown >= all.length;
    more.textContent = `Show ${Math.min(step, all.length - shown)} more of ${all.length}`;
  };
  const order = () => {
    const metric = data.metrics.findIndex((entry) => entry.column === rank.value);
    const badness = (card) => data.shapes[card.dataset.shape].badness[metric] ?? -Infinity;
    all.sort((a, b) => badness(b) - badness(a) || a.dataset.shape - b.dataset.shape);
    box.append(...all);
    for (const row of find("tr[data-column]", box)) row.classList.toggle("ranked", row.dataset.column === rank.value);
    show();
  };
  const reveal = () => {
    const card = location.hash.startsWith("#shape-") && document.getElementById(location.hash.slice(1));
    if (!card) return;
    shown = Math.max(shown, find(".case", box).indexOf(card) + 1);
    show();
    card.scrollIntoView();
  };
  more.addEventListener("click", () => {
    const first = find(".case", box)[shown];
    shown += step;
    show();
    first?.querySelector("button, a")?.focus({ preventScroll: true });
  });
  if (rank) {
    rank.closest("label").hidden = false;
    rank.addEventListener("change", order);
  }
  addEventListener("hashchange", reveal);
  if (rank) order();
  else show();
  reveal();
})();

(function table() {
  const table = document.querySelector(".shapes table"), body = table.tBodies[0], rows = Array.from(body.rows);
  const heads = Array.from(table.tHead.rows[0].cells), tools = document.getElementById("filters");
  const key = (row, column) => {
    const cell = row.cells[column], text = cell.dataset.sort ?? cell.textContent;
    if (!cell.classList.contains("number")) return text.toLowerCase();
    return text === "" ? null : Number(text);
  };
  const compare = (a, b) => (typeof a === "string" ? a.localeCompare(b, "en", { numeric: true }) : a - b);
  heads.forEach((head, column) => {
    head.querySelector("button").addEventListener("click", () => {
      const up = head.getAttribute("aria-sort") !== "ascending", keys = new Map(rows.map((row) => [row, key(row, column)]));
      for (const other of heads) other.removeAttribute("aria-sort");
      head.setAttribute("aria-sort", up ? "ascending" : "descending");
      rows.sort((a, b) => {
        const [one, two] = [keys.get(a), keys.get(b)];
        if (one === null || two === null) return (one === null) - (two === null); // what has no number stands last
        return up ? compare(one, two) : compare(two, one);
      });
      body.append(...rows);
    });
  });
  tools.hidden = false;
  tools.addEventListener("input", () => {
    const wanted = find("[data-filter]", tools).map((field) => [field.dataset.filter, field.value]).filter(([, value]) => value);
    let count = 0;
    for (const row of rows) {
      const fits = wanted.every(([name, value]) => (name === "name"
        ? row.dataset.name.toLowerCase().includes(value.toLowerCase())
        : row.dataset[name] === value.slice(1)));
      row.hidden = !fits;
      count += fits;
    }
    document.getElementById("counted").textContent = count === rows.length ? `${count} shapes` : `${count} of ${rows.length} shapes`;
  });
})();
