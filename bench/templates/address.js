// The address holds what is shown: rows, order, filters, ranges, and the large view. A link of it shows the same again.
let row = null; // the row of the address, #row-13
let loading = true;

const written = () => {
  const { metric, pair } = chosen();
  const found = new URLSearchParams();
  if (metric > 0) found.set("metric", metrics[metric].name);
  if (pair && pair !== pairs[0]) found.set("pair", pair.map((variant) => variants[variant]).join("/"));
  if (control.order && control.order.value !== "suite") found.set("order", control.order.value);
  if (control.tag?.value) found.set("tag", control.tag.value);
  if (control.search.value) found.set("q", control.search.value);
  if (control.failed?.checked) found.set("failed", "1");
  if (control.regressed?.checked) found.set("worse", "1");
  for (const { metric: of, over, low, high } of ranges.values()) {
    found.append("range", [metrics[of].name, over, low ?? "", high ?? ""].join(":"));
  }
  if (viewer.open) writeView(found);
  return found.toString();
};
const writeView = (found) => {
  found.set("open", String(view.row));
  found.set("view", view.mode);
  if (view.mode === "side") found.set("variants", view.beside.map((variant) => variants[variant]).join("/"));
  else {
    found.set("left", variants[two()[0]]);
    found.set("right", variants[two()[1]]);
    found.set("at", String(view.at[view.mode]));
  }
  if (view.zoom !== null) found.set("zoom", [view.zoom, view.x, view.y].map((value) => Number(value.toFixed(4))).join(","));
};

let waiting = 0;
const keepAddress = () => {
  if (loading) return;
  clearTimeout(waiting);
  waiting = setTimeout(() => {
    const text = [...(row === null ? [] : [`row-${row}`]), written()].filter(Boolean).join("&");
    if (text || /[=]|^#row-/.test(location.hash)) history.replaceState(null, "", text ? `#${text}` : location.href.split("#")[0]);
  }, 150); // browsers refuse addresses that change too often
};

const choose = (select, place) => { if (select && place >= 0) select.value = String(place); };
const pairNamed = (text) => pairs.findIndex((pair) => pair.map((variant) => variants[variant]).join("/") === text);
const readRange = (text) => {
  const parts = text.split(":");
  const [over, low, high] = parts.slice(-3);
  const metric = metrics.findIndex((one) => one.name === parts.slice(0, -3).join(":"));
  const known = over.split("/").every((name) => variants.includes(name));
  const end = (word) => (word === "" || !Number.isFinite(Number(word)) ? null : Number(word));
  if (metric >= 0 && known) setRange(metric, over, end(low), end(high));
};
const readRows = (found) => {
  choose(control.metric, metrics.findIndex((one) => one.name === (found.get("metric") ?? metrics[0]?.name)));
  choose(control.pair, pairNamed(found.get("pair")) < 0 ? 0 : pairNamed(found.get("pair")));
  const order = found.get("order") ?? "suite";
  if (control.order) control.order.value = ["best", "worst", "change"].includes(order) ? order : "suite";
  if (control.tag) control.tag.value = data.tags.includes(found.get("tag")) ? found.get("tag") : "";
  control.search.value = found.get("q") ?? "";
  if (control.failed) control.failed.checked = found.has("failed");
  if (control.regressed) control.regressed.checked = found.has("worse");
  ranges.clear();
  found.getAll("range").forEach(readRange);
};
const readView = (found) => {
  const number = Number(found.get("open"));
  if (!Number.isInteger(number) || number < 0 || number >= rowCount) return;
  view.row = number;
  view.mode = ["side", "slider", "blink", "onion", "difference"].includes(found.get("view")) ? found.get("view") : "slider";
  if (variants.length < 2) view.mode = "side";
  const placeOf = (name) => variants.indexOf(name);
  const beside = (found.get("variants") ?? "").split("/").map(placeOf).filter((place) => place >= 0);
  view.beside = beside.length ? [...new Set(beside)].slice(0, MOST_SIDE_BY_SIDE) : firstOf(0);
  choose(sides[0], Math.max(0, placeOf(found.get("left"))));
  choose(sides[1], placeOf(found.get("right")) < 0 ? variants.length - 1 : placeOf(found.get("right")));
  const at = Number(found.get("at") ?? NaN);
  if (at >= 0 && at <= 100 && view.mode !== "side") view.at[view.mode] = at;
  const [zoom, x, y] = (found.get("zoom") ?? "").split(",").map(Number);
  [view.zoom, view.x, view.y] = zoom > 0 && x >= 0 && y >= 0 ? [Math.min(MOST_ZOOM, zoom), x, y] : [null, 0.5, 0.5];
  if (!shown.includes(view.row)) byId("reset").click();
  show();
};
const readAddress = () => {
  const [, number, rest] = /^#?(?:row-(\d+))?&?(.*)$/s.exec(location.hash);
  row = number === undefined ? null : Number(number);
  const states = rest.includes("=");
  if (row === null && location.hash && !states) return; // a section of the page
  const found = new URLSearchParams(rest);
  if (states || loading) {
    readRows(found);
    update();
  }
  if (found.has("open")) readView(found);
  else if (viewer.open && states) viewer.close();
  if (row !== null) goToRow(row);
};
addEventListener("hashchange", readAddress);

update();
readAddress();
loading = false;
