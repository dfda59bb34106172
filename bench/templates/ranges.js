// Ranges of metrics, which histograms choose: of a variant's scores ("spo") or of a difference ("spo/base").
const ranges = new Map(); // "metric over" -> { metric, over, low, high }; an end that is null is open
const BINS = 24;

const valueOf = (row, metric, over) => {
  const [a, b] = over.split("/").map((name) => variants.indexOf(name));
  return b === undefined ? scoreOf(row, metric, a) : difference(row, metric, a, b);
};
const holdsIn = ({ metric, over, low, high }, row) => {
  const value = valueOf(row, metric, over);
  return value !== null && (low === null || value >= low) && (high === null || value <= high);
};
const inRanges = (row) => [...ranges.values()].every((range) => holdsIn(range, row));
const setRange = (metric, over, low, high) => {
  const key = `${metric} ${over}`;
  if (low === null && high === null) ranges.delete(key);
  else ranges.set(key, { metric, over, low, high });
};
const overName = (over) => over.replace("/", " \u2212 ");
const rangeWords = ({ metric, over, low, high }) => {
  const { name, decimals } = metrics[metric];
  const [from, to] = [low, high].map((end) => write(end, decimals));
  const words = low === null ? `up to ${to}` : high === null ? `from ${from}` : `${from} to ${to}`;
  return `${name}, ${overName(over)}: ${words}`;
};

// One histogram ---------------------------------------------------------------------------
const histogram = (metric, over) => {
  const { name, decimals } = metrics[metric];
  const values = data.rows.map((_, row) => valueOf(row, metric, over));
  const known = values.filter((value) => value !== null);
  if (!known.length) return null;
  let [least, most] = known.reduce(([low, high], value) => [Math.min(low, value), Math.max(high, value)], [Infinity, -Infinity]);
  if (least === most) [least, most] = [least - 0.5, most + 0.5];
  const binOf = (value) => Math.min(BINS - 1, Math.floor((BINS * (value - least)) / (most - least)));
  const edge = (bin) => least + (bin * (most - least)) / BINS;
  const counts = new Array(BINS).fill(0);
  for (const value of known) counts[binOf(value)] += 1;
  const highest = Math.max(...counts);
  const title = `${name}, ${overName(over)}`;
  const svg = shape("svg", { viewBox: `0 0 ${BINS * 10} 60`, preserveAspectRatio: "none", role: "img", "aria-label": `Histogram of ${title}, ${write(least, decimals)} to ${write(most, decimals)}` });
  const ends = ["from", "to"].map((word) => make("input", { type: "number", step: "any", ariaLabel: `${title}, ${word}`, autocomplete: "off" }));
  const [from, to] = ends;
  const show = () => {
    const mine = ranges.get(`${metric} ${over}`);
    const inside = new Array(BINS).fill(0);
    for (const row of shown) if (values[row] !== null) inside[binOf(values[row])] += 1;
    const bar = (count, bin, kind) => shape("rect", { x: bin * 10 + 0.5, width: 9, y: 60 - (58 * count) / highest, height: (58 * count) / highest, class: kind });
    const place = (value) => (240 * (value - least)) / (most - least);
    const [left, right] = mine ? [mine.low === null ? 0 : place(mine.low), mine.high === null ? 240 : place(mine.high)] : [0, 0];
    svg.replaceChildren(
      ...(mine ? [shape("rect", { x: left, width: Math.max(1, right - left), y: 0, height: 60, class: "chosen" })] : []),
      ...counts.map((count, bin) => bar(count, bin, "all")),
      ...inside.map((count, bin) => bar(count, bin, "inside")),
    );
    for (const [input, value] of [[from, mine?.low ?? null], [to, mine?.high ?? null]]) {
      if (input !== document.activeElement) input.value = value === null ? "" : String(value);
    }
  };
  const numberIn = (input) => (input.value === "" || !Number.isFinite(Number(input.value)) ? null : Number(input.value));
  for (const input of ends) {
    input.addEventListener("change", () => { setRange(metric, over, numberIn(from), numberIn(to)); update(); });
  }
  // A drag takes whole bars; its ends are rounded away from them, so that no row at an edge is lost.
  let start = null;
  const binAt = (event) => {
    const box = svg.getBoundingClientRect();
    return Math.min(BINS - 1, Math.max(0, Math.floor((BINS * (event.clientX - box.left)) / box.width)));
  };
  const drag = (event) => {
    const [low, high] = [start, binAt(event)].sort((a, b) => a - b);
    const scale = 10 ** (decimals + 1);
    setRange(metric, over, Math.floor(edge(low) * scale) / scale, Math.ceil(edge(high + 1) * scale) / scale);
    update();
  };
  svg.addEventListener("pointerdown", (event) => { svg.setPointerCapture(event.pointerId); start = binAt(event); drag(event); });
  svg.addEventListener("pointermove", (event) => { if (svg.hasPointerCapture(event.pointerId)) drag(event); });
  const labels = make("div", { className: "ends" }, from, make("span", { textContent: "to" }), to);
  const figure = make("figure", { className: "histogram" }, make("figcaption", { className: "small", textContent: overName(over) }), svg, labels);
  return { figure, show };
};

// All of the metric that is shown ---------------------------------------------------------
let drawn = { of: "", histograms: [] };
const drawHistograms = () => {
  if (!byId("ranges")?.open) return;
  const { metric, pair } = chosen();
  const of = `${metric} ${pair}`;
  if (drawn.of !== of) {
    const overs = [...(pair ? [pair.map((variant) => variants[variant]).join("/")] : []), ...variants];
    drawn = { of, histograms: overs.map((over) => histogram(metric, over)).filter(Boolean) };
    byId("histograms").replaceChildren(...drawn.histograms.map((one) => one.figure));
  }
  for (const one of drawn.histograms) one.show();
};
const drawRanges = () => {
  if (byId("ranges-metric")) byId("ranges-metric").textContent = metrics[chosen().metric].name;
  byId("chips").replaceChildren(...[...ranges].map(([key, range]) => {
    const button = make("button", { type: "button", className: "chip", textContent: `${rangeWords(range)} ×` });
    button.setAttribute("aria-label", `Take away the range ${rangeWords(range)}`);
    button.addEventListener("click", () => { ranges.delete(key); update(); });
    return button;
  }));
  drawHistograms();
};
byId("ranges")?.addEventListener("toggle", drawHistograms);
