"use strict";
// The page works without this script; with it the grid can be sorted and filtered, and images compared.
// Text from the run goes into the page by textContent only.
(() => {
  const root = document.documentElement;
  const byId = (id) => document.getElementById(id);
  root.classList.add("js");

  // Theme ---------------------------------------------------------------------------------
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

  // Copying -------------------------------------------------------------------------------
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

  // Film strips ---------------------------------------------------------------------------
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

  const data = JSON.parse(byId("data").textContent);
  if (!data.rows.length) return;
  const { variants, metrics, pairs, rows } = data;
  const grid = byId("grid");
  const cards = new Map([...grid.querySelectorAll(".case")].map((card) => [Number(card.dataset.row), card]));
  let shown = rows.map((_, index) => index);

  // Numbers -------------------------------------------------------------------------------
  const write = (value, decimals, sign = false) => {
    if (value === null) return "–";
    const text = Math.abs(value).toFixed(decimals);
    if (Number(text) === 0) return text;
    return (value < 0 ? "\u2212" : sign ? "+" : "") + text;
  };
  const difference = (row, metric, candidate, reference) => {
    const [a, b] = [rows[row].scores[metric][candidate], rows[row].scores[metric][reference]];
    return a === null || b === null ? null : a - b;
  };
  const judgement = (value, metric, decimals) => {
    const better = metrics[metric].better;
    if (value === null || !better || Number(value.toFixed(decimals)) === 0) return "";
    return value * better > 0 ? "better" : "worse";
  };

  // Sorting and filtering -----------------------------------------------------------------
  // What only describes has no better side: it is sorted by its change, down and up.
  const orders = { best: ["Most improved first", "Largest increase first"], worst: ["Most worsened first", "Largest decrease first"] };
  const control = Object.fromEntries(
    ["metric", "pair", "order", "tag", "search", "failed", "pixels"].map((name) => [name, byId(name)])
  );
  const texts = new Map([...cards].map(([row, card]) =>
    [row, `${card.querySelector(".prompt").textContent} ${rows[row].prompt_id} ${rows[row].tags.join(" ")}`.toLowerCase()]));
  const chosen = () => ({ metric: Number(control.metric?.value ?? -1), pair: pairs[Number(control.pair?.value ?? -1)] });

  const matches = (row) => {
    const tag = control.tag?.value ?? "";
    const words = control.search.value.toLowerCase().split(/\s+/).filter(Boolean);
    return (!tag || rows[row].tags.includes(tag))
      && (!control.failed?.checked || rows[row].failed)
      && words.every((word) => texts.get(row).includes(word));
  };
  const sorted = (found) => {
    const { metric, pair } = chosen();
    const order = control.order?.value ?? "suite";
    if (order === "suite" || !pair || metric < 0) return found;
    const sign = metrics[metric].better || 1;
    const key = (row) => {
      const value = difference(row, metric, ...pair);
      if (value === null) return Infinity; // rows without a difference come last
      return { best: -value * sign, worst: value * sign, change: -Math.abs(value) }[order];
    };
    const keys = new Map(found.map((row) => [row, key(row)]));
    const compare = (a, b) => (keys.get(a) === keys.get(b) ? a - b : keys.get(a) < keys.get(b) ? -1 : 1);
    return [...found].sort(compare);
  };
  const nameOrders = () => {
    const describes = metrics[chosen().metric]?.better === 0;
    for (const option of control.order?.options ?? []) {
      option.textContent = orders[option.value]?.[Number(describes)] ?? option.textContent;
    }
  };
  const writeScores = (row, card) => {
    const { metric, pair } = chosen();
    if (metric < 0) return;
    const { decimals, name } = metrics[metric];
    for (const place of card.querySelectorAll("[data-score]")) {
      place.textContent = write(rows[row].scores[metric][Number(place.dataset.score)], decimals);
    }
    const line = card.querySelector(".difference");
    if (!line || !pair) return;
    const value = difference(row, metric, ...pair);
    const figure = document.createElement("span");
    figure.className = `num ${judgement(value, metric, decimals)}`;
    figure.textContent = write(value, decimals, true);
    line.replaceChildren(`${name}, ${variants[pair[0]]} \u2212 ${variants[pair[1]]}: `, figure);
  };
  const update = () => {
    nameOrders();
    shown = sorted(rows.map((_, index) => index).filter(matches));
    for (const [row, card] of cards) {
      card.hidden = true;
      writeScores(row, card);
    }
    for (const row of shown) {
      const card = cards.get(row);
      card.hidden = false;
      grid.append(card);
    }
    byId("none").hidden = shown.length > 0;
    byId("count").textContent = `${shown.length} of ${rows.length} rows`;
  };
  for (const field of Object.values(control)) {
    if (field && field !== control.pixels) field.addEventListener(field.type === "search" ? "input" : "change", update);
  }
  byId("reset").addEventListener("click", () => {
    for (const field of [control.order, control.tag]) if (field) field.selectedIndex = 0;
    control.search.value = "";
    if (control.failed) control.failed.checked = false;
    update();
  });
  grid.addEventListener("click", (event) => {
    const more = event.target.closest(".more");
    const shot = event.target.closest("[data-open]");
    if (more) {
      const open = more.closest(".case").querySelector(".prompt").classList.toggle("open");
      more.setAttribute("aria-expanded", String(open));
      more.textContent = open ? "Show less" : "Show the whole prompt";
    }
    if (shot) openViewer(Number(shot.closest(".case").dataset.row), Number(shot.dataset.open));
  });

  // A link to a row: the row is shown again where a filter hid it.
  const reveal = (row) => {
    if (cards.has(row) && !shown.includes(row)) byId("reset").click();
  };
  for (const link of document.querySelectorAll("[data-row-link]")) {
    link.addEventListener("click", () => reveal(Number(link.dataset.rowLink)));
  }
  // The browser has gone to the row of the address before the cards were put in order: go there again.
  const goToRow = () => {
    const row = Number(/^#row-(\d+)$/.exec(location.hash)?.[1] ?? NaN);
    const go = () => cards.get(row)?.scrollIntoView({ behavior: "instant" });
    reveal(row);
    go();
    requestAnimationFrame(() => requestAnimationFrame(go)); // by then the cards around it have their true heights
  };
  addEventListener("hashchange", goToRow);

  // Large view ----------------------------------------------------------------------------
  const viewer = byId("viewer");
  const stage = byId("stage");
  const slider = byId("slider");
  const sides = [byId("side-a"), byId("side-b")];
  let current = 0;

  control.pixels?.addEventListener("change", () => {
    grid.classList.toggle("pixels", control.pixels.checked);
    stage.classList.toggle("pixels", control.pixels.checked);
  });

  const slide = (value) => {
    slider.value = String(Math.min(100, Math.max(0, value)));
    stage.style.setProperty("--at", `${slider.value}%`);
    const [left, right] = sides.map((side) => variants[Number(side.value)]);
    slider.setAttribute("aria-valuetext", `${slider.value} % ${left}, ${100 - slider.value} % ${right}`);
  };
  // The picture of a cell, or the record of why there is none.
  const picture = (row, variant, side) => {
    const cell = cards.get(row).querySelector(`[data-variant="${variant}"]`);
    const source = cell.querySelector("img") ?? cell.querySelector(".record");
    const copy = source.cloneNode(true);
    copy.classList.add(side);
    return copy;
  };
  // Faces: a frame around each on the picture, and the crops side by side.
  const shapes = (name, attributes, ...children) => {
    const shape = document.createElementNS("http://www.w3.org/2000/svg", name);
    for (const [key, value] of Object.entries(attributes)) shape.setAttribute(key, value);
    shape.append(...children);
    return shape;
  };
  const facesOf = (row, variant) => data.faces[row]?.[variant] ?? null;
  const sizeOf = (image) => ["width", "height"].map((side) => Number(image.getAttribute(side)));
  const frames = (row, variant, side, image) => {
    const found = facesOf(row, variant);
    if (!byId("show-faces")?.checked || !found || image.tagName !== "IMG") return [];
    const boxes = found.boxes.flatMap(([left, top, right, bottom]) => [0, 1].map(() =>
      shapes("rect", { x: left, y: top, width: right - left, height: bottom - top })));
    return [shapes("svg", { viewBox: `0 0 ${sizeOf(image).join(" ")}`, class: `faces ${side}`, "aria-hidden": "true" }, ...boxes)];
  };
  const crops = (row, variant, image) => {
    const place = document.createElement("div");
    if (image.tagName !== "IMG") return place;
    const [width, height] = sizeOf(image);
    for (const [left, top, right, bottom] of (facesOf(row, variant)?.boxes ?? []).slice(0, 4)) {
      const whole = shapes("image", { href: image.src, width, height, preserveAspectRatio: "none" });
      const box = `${left} ${top} ${right - left} ${bottom - top}`;
      place.append(shapes("svg", { viewBox: box, role: "img", "aria-label": `A face of ${variants[variant]}` }, whole));
    }
    return place;
  };
  const writeFaces = (sides, pictures) => {
    if (!byId("view-faces")) return;
    const found = sides.map((variant) => facesOf(current, variant));
    const words = sides.map((variant, at) => {
      const one = found[at];
      return `${variants[variant]} ${one === null ? "not looked for" : one.reason ? `not looked for (${one.reason})` : one.count}`;
    });
    const asked = found.find((one) => one !== null)?.asked;
    byId("view-faces").textContent = asked === undefined
      ? "No face was looked for in these images."
      : `Faces found: ${words.join(", ")}. The prompt asks for ${asked}.`;
    byId("view-crops").replaceChildren(...sides.map((variant, at) => crops(current, variant, pictures[at])));
  };
  const scoreRow = (metric, a, b) => {
    const { name, decimals } = metrics[metric];
    const line = document.createElement("tr");
    const head = document.createElement("th");
    head.scope = "row";
    head.textContent = name;
    const change = difference(current, metric, b, a);
    const figures = [
      [write(rows[current].scores[metric][a], decimals), ""],
      [write(rows[current].scores[metric][b], decimals), ""],
      [a === b ? "–" : write(change, decimals, true), a === b ? "" : judgement(change, metric, decimals)],
    ].map(([text, style]) => {
      const place = document.createElement("td");
      place.className = `right num ${style}`;
      place.textContent = text;
      return place;
    });
    line.append(head, ...figures);
    return line;
  };
  const draw = () => {
    const row = rows[current];
    const [a, b] = sides.map((side) => Number(side.value));
    const place = shown.indexOf(current);
    byId("view-title").textContent = `${row.prompt_id} \u00b7 sample ${row.sample}`;
    byId("view-count").textContent = `${place + 1} of ${shown.length}`;
    byId("previous").disabled = place <= 0;
    byId("next").disabled = place >= shown.length - 1;
    byId("view-prompt").textContent = cards.get(current).querySelector(".prompt").textContent;
    const places = a === b ? [[a, "both"]] : [[a, "left"], [b, "right"]];
    const pictures = places.map(([variant, side]) => picture(current, variant, side));
    const marked = places.flatMap(([variant, side], at) => frames(current, variant, side, pictures[at]));
    const labels = [["a", a], ["b", b]].slice(0, a === b ? 1 : 2).map(([side, variant]) => {
      const label = document.createElement("span");
      label.className = `label ${side}`;
      label.textContent = variants[variant];
      return label;
    });
    const edge = document.createElement("span");
    edge.className = "edge";
    edge.hidden = a === b;
    stage.replaceChildren(...pictures, ...marked, edge, ...labels);
    writeFaces(places.map(([variant]) => variant), pictures);
    slider.disabled = a === b;
    byId("head-a").textContent = variants[a];
    byId("head-b").textContent = variants[b];
    byId("view-scores").replaceChildren(...metrics.map((_, metric) => scoreRow(metric, a, b)));
    slide(Number(slider.value));
  };
  const openViewer = (row, variant) => {
    const [candidate, reference] = chosen().pair ?? [variant, variant];
    current = row;
    sides[0].value = String(variant === reference ? reference : variant === candidate ? reference : 0);
    sides[1].value = String(variant === reference ? candidate : variant);
    slider.value = "50";
    viewer.showModal();
    draw();
    (slider.disabled ? byId("close") : slider).focus();
  };
  const step = (by) => {
    const next = shown[shown.indexOf(current) + by];
    if (next === undefined) return;
    current = next;
    draw();
  };
  byId("previous").addEventListener("click", () => step(-1));
  byId("next").addEventListener("click", () => step(1));
  byId("close").addEventListener("click", () => viewer.close());
  slider.addEventListener("input", () => slide(Number(slider.value)));
  for (const side of sides) side.addEventListener("change", draw);
  byId("show-faces")?.addEventListener("change", draw);
  byId("swap").addEventListener("click", () => {
    [sides[0].value, sides[1].value] = [sides[1].value, sides[0].value];
    draw();
  });
  viewer.addEventListener("close", () => {
    const card = cards.get(current);
    (card.querySelector(`[data-variant="${sides[1].value}"] [data-open]`) ?? card.querySelector("[data-open]"))?.focus();
  });
  viewer.addEventListener("keydown", (event) => {
    if (event.target.matches("select, .prompt") || event.altKey || event.ctrlKey || event.metaKey) return;
    const moves = {
      ArrowLeft: () => slide(Number(slider.value) - 4),
      ArrowRight: () => slide(Number(slider.value) + 4),
      ArrowUp: () => step(-1),
      ArrowDown: () => step(1),
    };
    if (!(event.key in moves)) return;
    event.preventDefault();
    moves[event.key]();
  });
  const drag = (event) => {
    const box = stage.getBoundingClientRect();
    if (!slider.disabled) slide(Math.round((100 * (event.clientX - box.left)) / box.width));
  };
  stage.addEventListener("pointerdown", (event) => {
    if (event.target.closest("a")) return;
    stage.setPointerCapture(event.pointerId);
    drag(event);
  });
  stage.addEventListener("pointermove", (event) => { if (stage.hasPointerCapture(event.pointerId)) drag(event); });

  update();
  goToRow();
})();
