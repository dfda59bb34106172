// The page is whole without this script, but for rows without pictures; with it the rows can be sorted and filtered, and
// images compared. Text from the run goes into the page by textContent only. The parts (page, rows, ranges, viewer, address) are
// one script with one scope.
const root = document.documentElement;
const byId = (id) => document.getElementById(id);
root.classList.add("js");

// Theme -----------------------------------------------------------------------------------
const theme = byId("theme");
const dark = () => root.dataset.theme
  ? root.dataset.theme === "dark"
  : matchMedia("(prefers-color-scheme: dark)").matches;
const nameTheme = () => { theme.textContent = dark() ? "Light theme" : "Dark theme"; };
theme.addEventListener("click", () => {
  root.dataset.theme = dark() ? "light" : "dark";
  nameTheme();
});
matchMedia("(prefers-color-scheme: dark)").addEventListener("change", nameTheme);
nameTheme();

// Copying ---------------------------------------------------------------------------------
for (const button of document.querySelectorAll("[data-copy]")) {
  button.addEventListener("click", async () => {
    const label = button.textContent;
    try {
      await navigator.clipboard.writeText(button.dataset.copy);
      button.textContent = "copied";
      setTimeout(() => { button.textContent = label; }, 1200);
    } catch {
      button.textContent = button.dataset.copy; // no clipboard here: show the whole, to be selected by hand
    }
  });
}

// Film strips -----------------------------------------------------------------------------
for (const strip of document.querySelectorAll("[data-strip]")) {
  const scrub = strip.querySelector("[data-scrub]");
  const frames = [...strip.querySelectorAll("[data-frame]")];
  const show = () => {
    for (const frame of frames) {
      const now = frame.dataset.frame === scrub.value;
      frame.classList.toggle("now", now);
      if (now) strip.querySelector("[data-step]").textContent = frame.dataset.number;
    }
  };
  scrub.addEventListener("input", show);
  for (const frame of frames) {
    frame.addEventListener("click", () => { scrub.value = frame.dataset.frame; show(); });
  }
  show();
}

// Data ------------------------------------------------------------------------------------
// In one file they are inside it, in a folder data.js has put them here; pictures.script_data says what is where.
const data = window.hotartBench ?? JSON.parse(byId("data").textContent);
const { variants, metrics, pairs } = data;
const rowCount = data.rows.length;
const promptOf = (row) => {
  const [id, text, negative, probes, tags] = data.prompts[data.rows[row][0]];
  return { id, text, negative, probes, tags };
};
const nameOf = (row) => `${promptOf(row).id}, sample ${data.rows[row][1]}`;
const cellOf = (row, variant) => {
  const [picture, file, size, record, same] = data.cells[variant][row];
  const [status, reason, failed] = data.records[record] ?? ["", "", 0];
  return { picture: picture === 1 ? inPage.get(`${row} ${variant}`) : picture, file, size: data.sizes[size] ?? null, status, reason, failed, same };
};
const isFailed = (row) => variants.some((_, variant) => data.records[data.cells[variant][row][3]]?.[2]);
const scoreOf = (row, metric, variant) => data.scores[metric][variant][row];
const difference = (row, metric, candidate, reference) => {
  const [a, b] = [scoreOf(row, metric, candidate), scoreOf(row, metric, reference)];
  return a === null || b === null ? null : a - b;
};
// Pictures that are in the page are not in the data a second time: they are taken from its own rows.
const inPage = new Map();
for (const shot of document.querySelectorAll("#grid [data-open] img")) {
  const row = shot.closest(".case").dataset.row;
  inPage.set(`${row} ${shot.closest("[data-open]").dataset.open}`, shot.src);
}

// Elements and numbers --------------------------------------------------------------------
const make = (name, properties = {}, ...children) => {
  const element = Object.assign(document.createElement(name), properties);
  element.append(...children);
  return element;
};
const shape = (name, attributes, ...children) => {
  const element = document.createElementNS("http://www.w3.org/2000/svg", name);
  for (const [key, value] of Object.entries(attributes)) element.setAttribute(key, value);
  element.append(...children);
  return element;
};
const write = (value, decimals, sign = false) => {
  if (value === null) return "–";
  const text = Math.abs(value).toFixed(decimals);
  if (Number(text) === 0) return text;
  return (value < 0 ? "\u2212" : sign ? "+" : "") + text;
};
const judgement = (value, metric) => {
  const { better, decimals } = metrics[metric];
  if (value === null || !better || Number(value.toFixed(decimals)) === 0) return "";
  return value * better > 0 ? "better" : "worse";
};
