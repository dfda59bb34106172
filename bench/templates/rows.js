// The rows: sorted, filtered, and of many only those near the window in the page.
const grid = byId("grid");
const [above, below] = [byId("above"), byId("below")];
const ALL_IN_PAGE = 100; // up to so many rows are all in the page, where a browser's own search finds them
const PRINTED = 200; // rows of a print, which has no window to be near
grid.replaceChildren();

const control = Object.fromEntries(
  ["metric", "pair", "order", "tag", "search", "failed", "regressed", "pixels"].map((name) => [name, byId(name)])
);
const chosen = () => ({ metric: Number(control.metric?.value ?? -1), pair: pairs[Number(control.pair?.value ?? -1)] });
let shown = Array.from({ length: rowCount }, (_, row) => row);

// Filters ---------------------------------------------------------------------------------
const texts = data.prompts.map(([id, text, , , tags]) =>
  `${text} ${id} ${tags.map((tag) => data.tags[tag]).join(" ")}`.toLowerCase());
const filter = () => {
  const { metric, pair } = chosen();
  const tag = data.tags.indexOf(control.tag?.value ?? "");
  const words = control.search.value.toLowerCase().split(/\s+/).filter(Boolean);
  const fits = data.prompts.map(([, , , , tags], prompt) =>
    (tag < 0 || tags.includes(tag)) && words.every((word) => texts[prompt].includes(word)));
  const worse = (row) => judgement(difference(row, metric, ...pair), metric) === "worse";
  return (row) => fits[data.rows[row][0]]
    && (!control.failed?.checked || isFailed(row))
    && (!control.regressed?.checked || worse(row))
    && inRanges(row);
};
// What only describes has no better side: it is sorted by its change, down and up.
const orders = { best: ["Most improved first", "Largest increase first"], worst: ["Most worsened first", "Largest decrease first"] };
const sorted = (found) => {
  const { metric, pair } = chosen();
  const order = control.order?.value ?? "suite";
  if (order === "suite" || !pair || metric < 0) return found;
  const sign = metrics[metric].better || 1;
  const keys = new Map(found.map((row) => {
    const value = difference(row, metric, ...pair);
    if (value === null) return [row, Infinity]; // rows without a difference come last
    return [row, { best: -value * sign, worst: value * sign, change: -Math.abs(value) }[order]];
  }));
  return [...found].sort((a, b) => (keys.get(a) === keys.get(b) ? a - b : keys.get(a) < keys.get(b) ? -1 : 1));
};
const nameOrders = () => {
  const describes = metrics[chosen().metric]?.better === 0;
  for (const option of control.order?.options ?? []) {
    option.textContent = orders[option.value]?.[Number(describes)] ?? option.textContent;
  }
  if (control.regressed) control.regressed.disabled = describes;
};

// One row ---------------------------------------------------------------------------------
const pattern = byId("row").content.firstElementChild;
const built = new Map(); // row -> its element, of the rows that are in the page
const opened = new Set(); // rows whose long prompt is shown whole

const recordOf = (cell, variant) => {
  const link = cell.file && !cell.failed ? [make("a", { href: cell.file, textContent: cell.file })] : [];
  const place = { className: cell.failed ? "record failed" : "record", tabIndex: 0, role: "group", ariaLabel: `${variants[variant]}: ${cell.status}` };
  return make("div", place, make("b", { textContent: cell.status }), cell.reason, ...link);
};
const shotOf = (row, variant, cell) => {
  const picture = make("img", { src: cell.picture, alt: `${variants[variant]}: image for ${promptOf(row).id}`, decoding: "async" });
  picture.width = cell.size[0];
  picture.height = cell.size[1];
  const button = make("button", { type: "button", className: "shot" }, picture);
  button.dataset.open = variant;
  button.setAttribute("aria-label", `Large view of ${variants[variant]}, ${nameOf(row)}`);
  return button;
};
const fill = (place, text) => {
  if (text) place.textContent = text;
  else place.remove();
};
const writePrompt = (row, card, prompt) => {
  const [place, more] = [card.querySelector(".prompt"), card.querySelector(".more")];
  place.textContent = prompt.text;
  place.id = `prompt-${row}`;
  const long = prompt.text.length > 260 || prompt.text.split("\n").length > 5;
  place.classList.toggle("long", long);
  if (!long) more.remove();
  more.setAttribute("aria-controls", place.id);
  fold(card, opened.has(row));
};
const fold = (card, open) => {
  card.querySelector(".prompt").classList.toggle("open", open);
  card.querySelector(".more")?.setAttribute("aria-expanded", String(open));
  const more = card.querySelector(".more");
  if (more) more.textContent = open ? "Show less" : "Show the whole prompt";
};
const build = (row) => {
  const card = document.importNode(pattern, true);
  const [, sample, seed] = data.rows[row];
  const prompt = promptOf(row);
  card.id = `row-${row}`;
  card.dataset.row = row;
  card.setAttribute("aria-label", nameOf(row));
  writePrompt(row, card, prompt);
  fill(card.querySelector(".negative"), prompt.negative && `Negative: ${prompt.negative}`);
  fill(card.querySelector(".probes"), prompt.probes && `Probes: ${prompt.probes}`);
  const link = card.querySelector(".link");
  Object.assign(link, { href: `#row-${row}`, textContent: prompt.id, title: "Link to this row" });
  card.querySelector(".facts-line").append(
    make("span", { textContent: `sample ${sample}` }),
    ...(seed === null ? [] : [make("span", { className: "num", textContent: `seed ${seed}` })]),
    ...prompt.tags.map((tag) => make("span", { className: "tag", dir: "auto", textContent: data.tags[tag] })),
  );
  for (const figure of card.querySelectorAll(".cell")) {
    const variant = Number(figure.dataset.variant);
    const cell = cellOf(row, variant);
    figure.prepend(cell.picture ? shotOf(row, variant, cell) : recordOf(cell, variant));
    if (cell.same) figure.append(make("p", { className: "small soft same", textContent: `same pixels as ${variants[0]}` }));
  }
  writeScores(row, card);
  return card;
};
const writeScores = (row, card) => {
  const { metric, pair } = chosen();
  const line = card.querySelector(".difference");
  if (metric < 0) return line?.remove();
  const { decimals, name } = metrics[metric];
  for (const place of card.querySelectorAll("[data-score]")) {
    place.textContent = write(scoreOf(row, metric, Number(place.dataset.score)), decimals);
  }
  if (!pair) return line?.remove();
  const value = difference(row, metric, ...pair);
  const figure = make("span", { className: `num ${judgement(value, metric)}`, textContent: write(value, decimals, true) });
  line.replaceChildren(`${name}, ${variants[pair[0]]} \u2212 ${variants[pair[1]]}: `, figure);
};

// Which rows are in the page --------------------------------------------------------------
const heights = new Map(); // row -> pixels, once it was seen
let usual = null; // pixels that are taken for a row not seen yet; it stays, since all rows below would move with it
let printing = false;
const watch = new ResizeObserver((entries) => {
  for (const { target, borderBoxSize } of entries) {
    if (target.isConnected) heights.set(Number(target.dataset.row), borderBoxSize[0].blockSize);
  }
  requestPaint();
});
// The top of each shown row from the top of the first, and the whole height.
const tops = () => {
  const found = new Float64Array(shown.length + 1);
  shown.forEach((row, place) => { found[place + 1] = found[place] + (heights.get(row) ?? usual ?? 300); });
  return found;
};
const windowOf = (found) => {
  if (printing) return [0, Math.min(shown.length, PRINTED)];
  if (shown.length <= ALL_IN_PAGE) return [0, shown.length];
  const top = -above.getBoundingClientRect().top;
  const near = (pixels) => { // the place of the row at so many pixels
    let [low, high] = [0, shown.length];
    while (low < high) {
      const middle = (low + high) >> 1;
      if (found[middle + 1] <= pixels) low = middle + 1;
      else high = middle;
    }
    return low;
  };
  return [Math.max(0, near(top - innerHeight / 4) - 1), Math.min(shown.length, near(top + 1.25 * innerHeight) + 2)];
};
const paint = () => {
  if (usual === null && built.size) {
    let sum = 0;
    for (const card of built.values()) sum += card.getBoundingClientRect().height;
    usual = sum / built.size;
  }
  const found = tops();
  const [from, to] = windowOf(found);
  const wanted = shown.slice(from, to);
  const keep = new Set(wanted);
  for (const [row, card] of built) {
    if (keep.has(row)) continue;
    watch.unobserve(card);
    card.remove();
    for (const picture of card.querySelectorAll("img")) picture.removeAttribute("src"); // lets its pixels go at once
    built.delete(row);
  }
  let after = grid.firstElementChild;
  for (const row of wanted) {
    if (!built.has(row)) {
      built.set(row, build(row));
      watch.observe(built.get(row));
    }
    const card = built.get(row);
    if (card === after) after = after.nextElementSibling;
    else grid.insertBefore(card, after);
  }
  grid.classList.toggle("part", wanted.length < shown.length);
  above.style.height = `${found[from]}px`;
  below.style.height = printing ? "0" : `${found[shown.length] - found[to]}px`;
};
let asked = false;
const requestPaint = () => {
  if (asked) return;
  asked = true;
  requestAnimationFrame(() => { asked = false; paint(); });
};
addEventListener("scroll", () => { if (shown.length > ALL_IN_PAGE) requestPaint(); }, { passive: true });
let seenWidth = innerWidth;
addEventListener("resize", () => {
  if (innerWidth !== seenWidth) { // a phone's bars that come and go change the height alone
    heights.clear();
    [usual, seenWidth] = [null, innerWidth];
  }
  requestPaint();
});
addEventListener("beforeprint", () => {
  printing = true;
  byId("printed").hidden = shown.length === rowCount && rowCount <= PRINTED;
  byId("printed").textContent = `${Math.min(shown.length, PRINTED)} of ${rowCount} rows are printed.`;
  paint();
  for (const picture of grid.querySelectorAll("img")) picture.decoding = "sync";
});
addEventListener("afterprint", () => {
  printing = false;
  byId("printed").hidden = true;
  paint();
});

const update = () => {
  nameOrders();
  const fits = filter();
  shown = sorted(Array.from({ length: rowCount }, (_, row) => row).filter(fits));
  for (const [row, card] of built) writeScores(row, card);
  paint();
  byId("none").hidden = shown.length > 0 || rowCount === 0;
  byId("count").textContent = `${shown.length} of ${rowCount} rows`;
  drawRanges();
  keepAddress();
};
for (const field of Object.values(control)) {
  if (field && field !== control.pixels) field.addEventListener(field.type === "search" ? "input" : "change", update);
}
control.pixels?.addEventListener("change", () => {
  for (const place of [grid, byId("stage")]) place.classList.toggle("pixels", control.pixels.checked);
});
byId("reset").addEventListener("click", () => {
  for (const field of [control.order, control.tag]) if (field) field.selectedIndex = 0;
  control.search.value = "";
  for (const box of [control.failed, control.regressed]) if (box) box.checked = false;
  ranges.clear();
  update();
});
grid.addEventListener("click", (event) => {
  const card = event.target.closest(".case");
  const shot = event.target.closest("[data-open]");
  if (event.target.closest(".more")) {
    const row = Number(card.dataset.row);
    if (!opened.delete(row)) opened.add(row);
    fold(card, opened.has(row));
  }
  if (shot) openViewer(Number(card.dataset.row), Number(shot.dataset.open));
});

// A link to a row: the row is shown again where a filter hid it.
const goToRow = (row) => {
  if (!(row >= 0 && row < rowCount)) return;
  if (!shown.includes(row)) byId("reset").click();
  const place = shown.indexOf(row);
  const go = () => {
    if (!built.has(row)) scrollTo({ top: scrollY + above.getBoundingClientRect().top + tops()[place], behavior: "instant" });
    paint();
    built.get(row)?.scrollIntoView({ behavior: "instant" });
  };
  go();
  requestAnimationFrame(() => requestAnimationFrame(go)); // by then the cards around it have their true heights
};
for (const link of document.querySelectorAll("[data-row-link]")) {
  link.addEventListener("click", () => goToRow(Number(link.dataset.rowLink)));
}
