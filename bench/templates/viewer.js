// The large view: images side by side or two on one another, zoomed and moved in step.
const viewer = byId("viewer");
const stage = byId("stage");
const slider = byId("slider");
const sides = [byId("side-a"), byId("side-b")];
const MOST_SIDE_BY_SIDE = 8;
const MOST_ZOOM = 16; // screen pixels for a pixel of the file
const still = matchMedia("(prefers-reduced-motion: reduce)");

const view = {
  row: 0,
  mode: "slider",
  beside: [], // the variants that are side by side
  zoom: null, // screen pixels for a pixel of the file; null for the whole image
  x: 0.5, // what of the image is in the middle, as a share of its width
  y: 0.5,
  at: { slider: 50, blink: 40, onion: 50, difference: 40 }, // where the slider of each mode stands
  playing: false, // whether the images of blink change by themselves
};
const two = () => sides.map((side) => Number(side.value));
const onStage = () => (view.mode === "side" ? view.beside : [...new Set(two())]);

// Zoom: each image lies on a plane of one size and place, in every pane -------------------
const sizeOf = (row, variant) => cellOf(row, variant).size;
const largest = () => onStage()
  .map((variant) => sizeOf(view.row, variant))
  .reduce((found, size) => (size && (!found || size[0] > found[0]) ? size : found), null);
const geometry = () => {
  const pane = stage.querySelector(".pane");
  const size = largest();
  if (!pane || !size) return null;
  const [width, height] = [pane.clientWidth, pane.clientHeight];
  const fit = Math.min(width / size[0], height / size[1]);
  const scale = view.zoom === null ? fit : view.zoom / devicePixelRatio;
  return { width, height, size, fit: fit * devicePixelRatio, planeWidth: size[0] * scale, planeHeight: size[1] * scale };
};
const offset = (room, length, middle) =>
  length <= room ? (room - length) / 2 : Math.min(0, Math.max(room - length, room / 2 - middle * length));
const placePlanes = () => {
  stage.classList.toggle("zoomed", view.zoom !== null);
  const found = geometry();
  const output = byId("zoom");
  if (!found) {
    output.textContent = "";
    return;
  }
  const { width, height, planeWidth, planeHeight } = found;
  const [left, top] = [offset(width, planeWidth, view.x), offset(height, planeHeight, view.y)];
  if (view.zoom !== null) { // the middle that is shown, after the edges have held it
    view.x = (width / 2 - left) / planeWidth;
    view.y = (height / 2 - top) / planeHeight;
  }
  for (const [name, value] of [["w", planeWidth], ["h", planeHeight], ["x", left], ["y", top]]) {
    stage.style.setProperty(`--${name}`, `${value}px`);
  }
  const zoom = view.zoom ?? found.fit;
  stage.classList.toggle("magnified", zoom >= 3);
  output.textContent = `${Math.round(100 * zoom)} %`;
  byId("zoom-fit").setAttribute("aria-pressed", String(view.zoom === null));
  byId("zoom-one").setAttribute("aria-pressed", String(view.zoom === 1));
};
// Zooms so that what is at a point of a pane (in shares of it) stays there.
const zoomTo = (zoom, at = [0.5, 0.5]) => {
  const before = geometry();
  if (!before) return;
  const grown = zoom === null || zoom <= before.fit * 1.001 ? null : Math.min(MOST_ZOOM, zoom);
  const held = [
    (at[0] * before.width - offset(before.width, before.planeWidth, view.x)) / before.planeWidth,
    (at[1] * before.height - offset(before.height, before.planeHeight, view.y)) / before.planeHeight,
  ];
  view.zoom = grown === null && zoom === 1 ? 1 : grown; // a small file may be smaller at 1:1 than where it fits
  stage.classList.toggle("zoomed", view.zoom !== null);
  const after = geometry();
  view.x = held[0] + ((0.5 - at[0]) * after.width) / after.planeWidth;
  view.y = held[1] + ((0.5 - at[1]) * after.height) / after.planeHeight;
  placePlanes();
  keepAddress();
};
const zoomBy = (factor, at) => {
  const found = geometry();
  if (found) zoomTo((view.zoom ?? found.fit) * factor, at);
};
const move = (right, down) => {
  const found = geometry();
  if (!found || view.zoom === null) return;
  view.x -= right / found.planeWidth;
  view.y -= down / found.planeHeight;
  placePlanes();
  keepAddress();
};

// Faces: a frame around each on the image, and the crops side by side ----------------------
const facesOf = (row, variant) => data.faces[row]?.[variant] ?? null;
const frames = (row, variant, side) => {
  const found = facesOf(row, variant);
  const size = sizeOf(row, variant);
  if (!byId("show-faces")?.checked || !found || !size) return [];
  const boxes = found.boxes.flatMap(([left, top, right, bottom]) => [0, 1].map(() =>
    shape("rect", { x: left, y: top, width: right - left, height: bottom - top })));
  return [shape("svg", { viewBox: `0 0 ${size.join(" ")}`, class: `faces ${side}`, "aria-hidden": "true" }, ...boxes)];
};
const crops = (row, variant) => {
  const place = make("div");
  const cell = cellOf(row, variant);
  if (!cell.picture) return place;
  const [width, height] = cell.size;
  for (const [left, top, right, bottom] of (facesOf(row, variant)?.boxes ?? []).slice(0, 4)) {
    const whole = shape("image", { href: sourceOf(cell), width, height, preserveAspectRatio: "none" });
    const box = `${left} ${top} ${right - left} ${bottom - top}`;
    place.append(shape("svg", { viewBox: box, role: "img", "aria-label": `A face of ${variants[variant]}` }, whole));
  }
  return place;
};
const writeFaces = () => {
  if (!byId("view-faces")) return;
  const found = onStage().map((variant) => [variant, facesOf(view.row, variant)]);
  const words = found.map(([variant, one]) =>
    `${variants[variant]} ${one === null ? "not looked for" : one.reason ? `not looked for (${one.reason})` : one.count}`);
  const asked = found.find(([, one]) => one !== null)?.[1].asked;
  byId("view-faces").textContent = asked === undefined
    ? "No face was looked for in these images."
    : `Faces found: ${words.join(", ")}. The prompt asks for ${asked}.`;
  byId("view-crops").replaceChildren(...onStage().map((variant) => crops(view.row, variant)));
};

// The stage ---------------------------------------------------------------------------------
// In a folder the stored files lie beside the page; in one file there are only the copies inside it.
const sourceOf = (cell) => (window.hotartBench && cell.file ? cell.file : cell.picture);
const gone = new Set(); // stored files that could not be loaded
const plane = (row, variant, side) => {
  const cell = cellOf(row, variant);
  if (!cell.picture) return [recordOf(cell, variant)];
  const alt = `${variants[variant]}: image for ${promptOf(row).id}`;
  const copy = make("img", { src: cell.picture, alt, draggable: false });
  const layers = [copy];
  if (sourceOf(cell) !== cell.picture && !gone.has(cell.file)) {
    copy.alt = "";
    const whole = make("img", { src: cell.file, alt, draggable: false });
    whole.addEventListener("error", () => { gone.add(cell.file); whole.remove(); copy.alt = alt; writeNote(); });
    layers.push(whole);
  }
  return [make("div", { className: "plane" }, ...layers, ...frames(row, variant, side))];
};
const label = (variant, side) => make("span", { className: `label ${side}`, textContent: variants[variant] });
const drawSideBySide = () => {
  stage.replaceChildren(...view.beside.map((variant) =>
    make("div", { className: "pane" }, ...plane(view.row, variant, "left"), label(variant, "a"))));
  chooseColumns();
};
// As many columns as make the images largest.
const chooseColumns = () => {
  const box = byId("stage-box").getBoundingClientRect();
  const [wide, high] = largest() ?? [1, 1];
  const count = view.beside.length;
  const sizeIn = (columns) => Math.min(box.width / columns / wide, box.height / Math.ceil(count / columns) / high);
  let best = 1;
  for (let columns = 2; columns <= count; columns += 1) if (sizeIn(columns) > sizeIn(best) * 1.01) best = columns;
  stage.style.setProperty("--columns", best);
};
const drawTwo = () => {
  const [a, b] = two();
  const layer = (variant, side) => make("div", { className: `layer ${side}` }, ...plane(view.row, variant, side));
  const edge = make("span", { className: "edge", hidden: a === b });
  const layers = a === b ? [layer(a, "both")] : [layer(a, "left"), layer(b, "right")];
  const blend = make("div", { className: "blend" }, ...layers);
  if (view.mode === "difference" && a !== b) blend.style.filter = "url(#heat)";
  const labels = a === b ? [label(a, "a")] : [label(a, "a"), label(b, "b")];
  stage.replaceChildren(make("div", { className: "pane" }, blend, edge, ...labels));
};
const scoreRow = (metric) => {
  const { name, decimals } = metrics[metric];
  const cells = onStage().map((variant) => [write(scoreOf(view.row, metric, variant), decimals), ""]);
  if (view.mode !== "side") {
    const [a, b] = two();
    const change = difference(view.row, metric, b, a);
    if (a === b) cells.push(cells[0]);
    cells.push([a === b ? "–" : write(change, decimals, true), a === b ? "" : judgement(change, metric)]);
  }
  return make("tr", {}, make("th", { scope: "row", textContent: name }), ...cells.map(([text, style]) =>
    make("td", { className: `right num ${style}`, textContent: text })));
};
const writeTable = () => {
  const names = view.mode === "side" ? view.beside : two();
  const heads = ["metric", ...names.map((variant) => variants[variant]), ...(view.mode === "side" ? [] : ["right \u2212 left"])];
  byId("view-heads").replaceChildren(...heads.map((text, place) =>
    make("th", { scope: "col", className: place ? "right" : "", textContent: text })));
  byId("view-scores").replaceChildren(...metrics.map((_, metric) => scoreRow(metric)));
};
const writeNote = () => {
  const cells = onStage().map((variant) => [variants[variant], cellOf(view.row, variant)]);
  const same = cells.filter(([, cell]) => cell.same).map(([name]) => name);
  const sizes = new Set(cells.flatMap(([, cell]) => (cell.size ? [cell.size.join(" × ")] : [])));
  const copies = cells.filter(([, cell]) => cell.picture && (!window.hotartBench || gone.has(cell.file)));
  const notes = [];
  if (same.length) notes.push(`${same.join(", ")}: the same pixels as ${variants[0]}.`);
  if (sizes.size > 1) notes.push(`The files differ in size (${[...sizes].join(", ")} px); they are shown at one size.`);
  else if (sizes.size) notes.push(`${[...sizes][0]} px.`);
  if (copies.some(([, cell]) => gone.has(cell.file))) notes.push("A stored file is not where the page looks for it: its small copy is shown.");
  else if (copies.length && data.copies) notes.push(`This page holds copies of at most ${data.copies} px; hotart-bench report RUN --folder shows the stored files.`);
  byId("view-note").textContent = notes.join(" ");
};

// The slider under the stage ----------------------------------------------------------------
const gain = () => 2 ** (view.at.difference / 20); // 1 to 32
const seconds = () => 0.3 + view.at.blink / 50; // 0.3 to 2.3
const slide = (value) => {
  if (view.mode === "side") return;
  view.at[view.mode] = Math.min(100, Math.max(0, Math.round(value)));
  const at = view.at[view.mode];
  slider.value = String(at);
  const [left, right] = two().map((variant) => variants[variant]);
  const words = {
    slider: ["Divide between the two variants", `${at} % ${left}, ${100 - at} % ${right}`],
    onion: ["How much of the right image is seen", `${at} % ${right}`],
    blink: ["Seconds an image", `${seconds().toFixed(1)} s`],
    difference: ["How much the difference is magnified", `${gain().toFixed(1)} times`],
  }[view.mode];
  slider.setAttribute("aria-label", words[0]);
  slider.setAttribute("aria-valuetext", words[1]);
  slider.title = `${words[0]}: ${words[1]}`;
  stage.style.setProperty("--at", view.mode === "onion" || view.mode === "slider" ? `${at}%` : "50%");
  if (view.mode === "difference") {
    for (const channel of ["r", "g", "b"]) byId(`gain-${channel}`).setAttribute("slope", gain());
    byId("legend-most").textContent = `${(255 / gain()).toFixed(0)} levels or more`;
  }
  if (view.mode === "blink") play(view.playing);
  keepAddress();
};
let timer = 0;
const flip = () => stage.classList.toggle("flipped");
const play = (on) => {
  clearInterval(timer);
  view.playing = on;
  if (on && view.mode === "blink" && viewer.open) timer = setInterval(flip, 1000 * seconds());
  byId("pause").textContent = on ? "Pause" : "Play";
};
const setMode = (mode) => {
  if (mode !== "side" && variants.length < 2) return;
  view.mode = mode;
  view.playing = mode === "blink" && !still.matches;
  stage.classList.remove("flipped");
  draw();
};

// All of it -----------------------------------------------------------------------------------
const draw = () => {
  const side = view.mode === "side";
  const place = shown.indexOf(view.row);
  const prompt = promptOf(view.row);
  byId("view-title").textContent = `${prompt.id} \u00b7 sample ${data.rows[view.row][1]}`;
  byId("view-count").textContent = `${place + 1} of ${shown.length}`;
  byId("previous").disabled = place <= 0;
  byId("next").disabled = place >= shown.length - 1;
  byId("view-prompt").textContent = prompt.text;
  stage.dataset.mode = view.mode;
  for (const button of viewer.querySelectorAll("button[data-mode]")) {
    button.setAttribute("aria-pressed", String(button.dataset.mode === view.mode));
    button.disabled = button.dataset.mode !== "side" && variants.length < 2;
  }
  for (const box of viewer.querySelectorAll("[data-shown]")) {
    box.checked = view.beside.includes(Number(box.dataset.shown));
    box.disabled = !box.checked && view.beside.length >= MOST_SIDE_BY_SIDE;
  }
  byId("choose-two").hidden = side;
  byId("choose-many").hidden = !side;
  byId("under").hidden = side;
  byId("legend").hidden = view.mode !== "difference";
  byId("pause").hidden = view.mode !== "blink";
  slider.disabled = two()[0] === two()[1];
  if (side) drawSideBySide();
  else drawTwo();
  placePlanes();
  writeFaces();
  writeTable();
  writeNote();
  slide(view.at[view.mode]);
  play(view.playing);
  readAhead(shown[place + 1]);
  keepAddress();
};
let coming = []; // the images of the next row, which are read before they are wanted
const readAhead = (row) => {
  const cells = row === undefined ? [] : onStage().map((variant) => cellOf(row, variant));
  coming = cells.filter((cell) => cell.picture).map((cell) => make("img", { src: sourceOf(cell) }));
};
const firstOf = (variant) => [...new Set([0, variant, ...variants.keys()])].slice(0, MOST_SIDE_BY_SIDE).sort((a, b) => a - b);
const openViewer = (row, variant) => {
  const [candidate, reference] = chosen().pair ?? [variant, variant];
  view.row = row;
  sides[0].value = String(variant === reference ? reference : variant === candidate ? reference : 0);
  sides[1].value = String(variant === reference ? candidate : variant);
  if (view.beside.length < 2 || !view.beside.includes(variant)) view.beside = firstOf(variant);
  view.at.slider = 50;
  if (variants.length < 2) view.mode = "side";
  show();
};
const show = () => {
  if (!viewer.open) viewer.showModal();
  draw();
  (view.mode === "side" || slider.disabled ? byId("close") : slider).focus();
};
const step = (by) => {
  const next = shown[shown.indexOf(view.row) + by];
  if (next === undefined) return;
  view.row = next;
  draw();
};
const turnRight = (by) => {
  sides[1].value = String((Number(sides[1].value) + by + variants.length) % variants.length);
  draw();
};
const swap = () => {
  [sides[0].value, sides[1].value] = [sides[1].value, sides[0].value];
  draw();
};
const toggle = (box) => { box?.click(); };

byId("previous").addEventListener("click", () => step(-1));
byId("next").addEventListener("click", () => step(1));
byId("close").addEventListener("click", () => viewer.close());
byId("swap").addEventListener("click", swap);
byId("pause").addEventListener("click", () => play(!view.playing));
byId("zoom-in").addEventListener("click", () => zoomBy(1.25));
byId("zoom-out").addEventListener("click", () => zoomBy(0.8));
byId("zoom-fit").addEventListener("click", () => zoomTo(null));
byId("zoom-one").addEventListener("click", () => zoomTo(1));
slider.addEventListener("input", () => slide(Number(slider.value)));
for (const side of sides) side.addEventListener("change", draw);
byId("show-faces")?.addEventListener("change", draw);
for (const button of viewer.querySelectorAll("button[data-mode]")) {
  button.addEventListener("click", () => setMode(button.dataset.mode));
}
for (const box of viewer.querySelectorAll("[data-shown]")) {
  box.addEventListener("change", () => {
    const variant = Number(box.dataset.shown);
    const found = box.checked ? [...view.beside, variant].sort((a, b) => a - b) : view.beside.filter((one) => one !== variant);
    if (found.length) view.beside = found;
    draw();
  });
}
new ResizeObserver(() => {
  if (!viewer.open) return;
  chooseColumns();
  placePlanes();
}).observe(byId("stage-box"));
viewer.addEventListener("close", () => {
  play(false);
  stage.replaceChildren(); // the files at full size are let go
  if (!built.has(view.row)) goToRow(view.row);
  const card = built.get(view.row);
  (card?.querySelector(`[data-variant="${sides[1].value}"] [data-open]`) ?? card?.querySelector("[data-open]"))?.focus();
  keepAddress();
});

// Keys and pointers ---------------------------------------------------------------------------
const STEP = 60; // pixels that an arrow moves a zoomed image
const keys = {
  ArrowLeft: () => slide(view.at[view.mode] - 4),
  ArrowRight: () => slide(view.at[view.mode] + 4),
  ArrowUp: () => step(-1),
  ArrowDown: () => step(1),
  Home: () => slide(0),
  End: () => slide(100),
  g: () => setMode("side"),
  s: () => setMode("slider"),
  b: () => setMode("blink"),
  o: () => setMode("onion"),
  d: () => setMode("difference"),
  p: () => { if (view.mode === "blink") play(!view.playing); },
  x: swap,
  f: () => toggle(byId("show-faces")),
  "[": () => turnRight(-1),
  "]": () => turnRight(1),
  "+": () => zoomBy(1.25),
  "=": () => zoomBy(1.25),
  "-": () => zoomBy(0.8),
  "\u2212": () => zoomBy(0.8),
  0: () => zoomTo(null),
  1: () => zoomTo(1),
  "?": () => {
    byId("keys").open = !byId("keys").open;
    byId("keys").scrollIntoView({ block: "nearest" }); // below everything else where the view is narrow
  },
};
const moves = { ArrowLeft: [STEP, 0], ArrowRight: [-STEP, 0], ArrowUp: [0, STEP], ArrowDown: [0, -STEP] };
viewer.addEventListener("keydown", (event) => {
  if (event.target.matches("select, .prompt, .scroll") || event.altKey || event.ctrlKey || event.metaKey) return;
  const key = event.key.length === 1 ? event.key.toLowerCase() : event.key;
  const onButton = event.target.matches("button, summary, input[type=checkbox]");
  let act = event.shiftKey && moves[key] ? () => move(...moves[key]) : keys[key];
  if (key === " " && view.mode === "blink" && !onButton) act = () => { play(false); flip(); };
  if (!act) return;
  event.preventDefault();
  act();
});

const pointers = new Map(); // those that are down, and where
let dragsDivide = false;
const divideTo = (event) => {
  const box = stage.getBoundingClientRect();
  if (!slider.disabled) slide((100 * (event.clientX - box.left)) / box.width);
};
const paneAt = (x, y) => {
  const pane = [...stage.querySelectorAll(".pane")].find((one) => {
    const box = one.getBoundingClientRect();
    return x >= box.left && x <= box.right && y >= box.top && y <= box.bottom;
  }) ?? stage.querySelector(".pane");
  const box = pane.getBoundingClientRect();
  return [(x - box.left) / box.width, (y - box.top) / box.height];
};
stage.addEventListener("pointerdown", (event) => {
  if (event.target.closest("a") || event.button > 0) return;
  stage.setPointerCapture(event.pointerId);
  pointers.set(event.pointerId, [event.clientX, event.clientY]);
  const box = stage.getBoundingClientRect();
  const away = Math.abs(event.clientX - box.left - (view.at.slider * box.width) / 100);
  dragsDivide = view.mode === "slider" && pointers.size === 1 && (view.zoom === null || away < 24);
  if (dragsDivide) divideTo(event);
  if (view.mode === "blink" && view.zoom === null) { play(false); flip(); }
});
stage.addEventListener("pointermove", (event) => {
  const before = pointers.get(event.pointerId);
  if (!before) return;
  const now = [event.clientX, event.clientY];
  const other = [...pointers].find(([id]) => id !== event.pointerId)?.[1];
  pointers.set(event.pointerId, now);
  if (other) {
    const apart = ([x, y]) => Math.max(1, Math.hypot(x - other[0], y - other[1]));
    zoomBy(apart(now) / apart(before), paneAt((now[0] + other[0]) / 2, (now[1] + other[1]) / 2));
    move((now[0] - before[0]) / 2, (now[1] - before[1]) / 2);
  } else if (dragsDivide) divideTo(event);
  else move(now[0] - before[0], now[1] - before[1]);
});
for (const end of ["pointerup", "pointercancel"]) {
  stage.addEventListener(end, (event) => pointers.delete(event.pointerId));
}
stage.addEventListener("wheel", (event) => {
  if (event.target.closest(".record")) return;
  event.preventDefault();
  zoomBy(1.0015 ** -event.deltaY, paneAt(event.clientX, event.clientY));
}, { passive: false });
stage.addEventListener("dblclick", (event) => {
  if (view.mode !== "blink") zoomTo(view.zoom === null ? 1 : null, paneAt(event.clientX, event.clientY));
});
