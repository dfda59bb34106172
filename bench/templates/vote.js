"use strict";
// What a voter sees follows from the voter's id alone: the same browser finds the same order and sides again.
(() => {
  const byId = (id) => document.getElementById(id);
  const data = JSON.parse(byId("data").textContent);
  const saves = document.querySelector('meta[name="hotart-bench-saves"]').content;
  const memory = new Map();
  let keeps = true;
  let voter = null; // {id, name}
  let votes = []; // in the order in which they were cast
  let order = [];
  let at = 0; // place in the order
  let failed = new Set(); // ids of pairs of which a picture could not be shown
  let shownAt = 0;
  let ready = false;
  let unsaved = false; // since the last file or answer of the server

  // --- numbers that follow from text: FNV-1a, mulberry32 ---------------------------------------

  const fnv = (text) => {
    let hash = 0x811c9dc5;
    for (const byte of new TextEncoder().encode(text)) hash = Math.imul(hash ^ byte, 0x01000193) >>> 0;
    return hash;
  };
  const mixed = (number) => {
    let x = Math.imul(number ^ (number >>> 16), 0x85ebca6b);
    x = Math.imul(x ^ (x >>> 13), 0xc2b2ae35);
    return (x ^ (x >>> 16)) >>> 0;
  };
  const random = (text) => {
    let state = mixed(fnv(text));
    return () => {
      state = (state + 0x6d2b79f5) >>> 0;
      let x = Math.imul(state ^ (state >>> 15), state | 1);
      x ^= x + Math.imul(x ^ (x >>> 7), x | 61);
      return ((x ^ (x >>> 14)) >>> 0) / 2 ** 32;
    };
  };
  const shuffled = (list, draw) => {
    const copy = [...list];
    for (let end = copy.length - 1; end > 0; end -= 1) {
      const other = Math.floor(draw() * (end + 1));
      [copy[end], copy[other]] = [copy[other], copy[end]];
    }
    return copy;
  };
  const drawn = (id, text) => mixed(fnv(`${data.ballot} ${id} ${text}`));
  // One pair of each unit first; the others of a unit once every unit was shown.
  const orderOf = (id) => {
    const draw = random(`${data.ballot} ${id}`);
    const units = shuffled(data.rounds, draw).flatMap((round) => shuffled(round, draw));
    const most = Math.max(...units.map((unit) => unit.length));
    const found = [];
    for (let pass = 0; pass < most; pass += 1) {
      for (const unit of units) {
        if (pass < unit.length) found.push(unit[(drawn(id, `first ${unit[0].s}`) + pass) % unit.length]);
      }
    }
    return found;
  };
  const leftOf = (pair) => (drawn(voter.id, pair.s) & 1 ? "a" : "b");

  // --- what is kept in this browser ------------------------------------------------------------

  const keep = (name, value) => {
    memory.set(name, JSON.stringify(value));
    try {
      localStorage.setItem(name, JSON.stringify(value));
    } catch {
      keeps = false;
      byId("no-storage").hidden = false;
    }
  };
  const kept = (name, otherwise) => {
    let text = null;
    try {
      text = localStorage.getItem(name);
    } catch {
      keeps = false;
    }
    try {
      return JSON.parse(text ?? memory.get(name) ?? "null") ?? otherwise;
    } catch {
      return otherwise;
    }
  };
  const VOTERS = "hotart-bench voters";
  const votesName = (id) => `hotart-bench votes ${data.ballot} ${id}`;
  const newId = () => [...crypto.getRandomValues(new Uint8Array(12))].map((byte) => byte.toString(16).padStart(2, "0")).join("");

  // --- the file of votes -----------------------------------------------------------------------

  const lineOf = (one) => [one.pair, one.choice, one.left, one.why.join(","), one.ms, one.at].join("|");
  const documentOf = () => {
    const check = fnv([data.ballot, voter.id, voter.name, ...votes.map(lineOf)].join("\n"));
    const table = { schema: data.schema, kind: data.kind, ballot: data.ballot, voter: voter.id, name: voter.name, votes };
    return JSON.stringify({ ...table, check: check.toString(16).padStart(8, "0") }, null, 1);
  };
  const download = () => {
    const link = document.createElement("a");
    link.href = URL.createObjectURL(new Blob([documentOf()], { type: "application/json" }));
    const plain = voter.name.replace(/[^\p{L}\p{N}]+/gu, "-").replace(/^-+|-+$/g, "").slice(0, 40);
    link.download = `votes-${plain ? `${plain}-` : ""}${voter.id.slice(0, 8)}.json`;
    link.click();
    setTimeout(() => URL.revokeObjectURL(link.href), 10000);
    unsaved = false;
    byId("saved").textContent = `${votes.length} votes saved as ${link.download}.`;
  };
  let sending = Promise.resolve();
  const send = () => {
    if (!saves) return;
    const many = votes.length;
    const body = documentOf();
    sending = sending.then(async () => {
      try {
        const answer = await fetch(saves, { method: "POST", headers: { "Content-Type": "application/json" }, body });
        if (!answer.ok) throw new Error(await answer.text());
        unsaved = votes.length > many;
        byId("saved").textContent = `${many} votes are kept by the server.`;
      } catch (error) {
        byId("saved").textContent = `The server did not keep them (${error.message || "no answer"}): they are in this browser; save them as a file.`;
      }
    });
  };

  // --- voting ----------------------------------------------------------------------------------

  // What had the focus may be hidden now: it goes to what is shown instead.
  const show = (name) => {
    const other = byId(name).hidden;
    for (const section of ["start", "vote", "done"]) byId(section).hidden = section !== name;
    if (other && name !== "start") byId(name === "vote" ? "progress" : "thanks").focus();
  };
  const begin = (who) => {
    voter = who;
    votes = kept(votesName(voter.id), []);
    order = orderOf(voter.id);
    failed = new Set();
    at = -1;
    forward();
    next();
  };
  // To the next pair without a vote.
  const forward = () => {
    const cast = new Set(votes.map((one) => one.pair));
    do at += 1;
    while (at < order.length && cast.has(order[at].id));
  };
  const told = () => {
    const many = votes.length;
    const lost = failed.size ? `; ${failed.size} could not be shown` : "";
    return many === order.length ? `You voted on ${many} pairs, which are all.` : `You voted on ${many} of ${order.length} pairs${lost}.`;
  };
  const next = () => {
    byId("told").textContent = told();
    byId("send").hidden = Boolean(saves);
    if (at >= order.length) {
      ready = false;
      show("done");
      return;
    }
    show("vote");
    present(order[at]);
  };
  const present = async (pair) => {
    const left = leftOf(pair);
    ready = false;
    byId("pair").classList.add("waiting");
    byId("trouble").hidden = true;
    byId("progress").textContent = `Pair ${at + 1} of ${order.length}; stop whenever you like.`;
    byId("prompt").textContent = pair.p;
    byId("back").disabled = at === 0;
    const before = votes.find((one) => one.pair === pair.id);
    for (const box of document.querySelectorAll(".why input")) box.checked = Boolean(before?.why.includes(box.value));
    byId("left").src = `pictures/${pair[left]}`;
    byId("right").src = `pictures/${pair[left === "a" ? "b" : "a"]}`;
    try {
      await Promise.all([byId("left").decode(), byId("right").decode()]);
    } catch {
      if (order[at] !== pair) return;
      byId("trouble").textContent = "A picture of this pair cannot be shown. Its vote is left out.";
      byId("trouble").hidden = false;
      failed.add(pair.id);
      forward();
      const place = at;
      setTimeout(() => {
        if (at === place && !byId("vote").hidden) next();
      }, 1500);
      return;
    }
    if (order[at] !== pair) return;
    failed.delete(pair.id);
    byId("pair").classList.remove("waiting");
    shownAt = performance.now();
    ready = true;
    const following = order[at + 1];
    if (following) for (const name of [following.a, following.b]) new Image().src = `pictures/${name}`;
  };
  const choose = (side) => {
    if (!ready || byId("vote").hidden) return;
    const pair = order[at];
    const left = leftOf(pair);
    const choice = side === "left" ? left : side === "right" ? (left === "a" ? "b" : "a") : side;
    const why = [...document.querySelectorAll(".why input:checked")].map((box) => box.value);
    const vote = { pair: pair.id, choice, left, why, ms: Math.round(performance.now() - shownAt), at: new Date().toISOString() };
    votes = [...votes.filter((one) => one.pair !== pair.id), vote];
    unsaved = true;
    keep(votesName(voter.id), votes);
    send();
    forward();
    next();
  };
  const back = () => {
    let place = at - 1;
    while (place >= 0 && failed.has(order[place].id)) place -= 1;
    if (place < 0) return;
    at = place;
    next();
  };
  const enlarge = (side) => {
    byId("whole").src = byId(side).src;
    byId("whole").alt = byId(side).alt;
    byId("large").showModal();
  };

  // --- what the voter does ---------------------------------------------------------------------

  const start = () => {
    show("start");
    const voters = kept(VOTERS, []).filter((one) => kept(votesName(one.id), []).length > 0);
    byId("earlier").hidden = voters.length === 0;
    byId("voters").replaceChildren(
      ...voters.map((one) => {
        const item = document.createElement("li");
        const button = document.createElement("button");
        button.type = "button";
        button.textContent = `${one.name || "without a name"}: ${kept(votesName(one.id), []).length} votes`;
        button.addEventListener("click", () => begin(one));
        item.append(button);
        return item;
      }),
    );
    byId("where").textContent = saves
      ? "Your votes are kept by the server as you go."
      : "Your votes are kept in this browser as you go, and are sent nowhere: at the end you save them as a file.";
    byId("no-storage").hidden = keeps;
  };
  byId("begin").addEventListener("submit", (event) => {
    event.preventDefault();
    const who = { id: newId(), name: byId("name").value.replace(/\s+/g, " ").trim().slice(0, 100) };
    keep(VOTERS, [...kept(VOTERS, []), who]);
    begin(who);
  });
  for (const button of document.querySelectorAll(".choice")) button.addEventListener("click", () => choose(button.dataset.choice));
  for (const button of document.querySelectorAll(".save")) button.addEventListener("click", download);
  for (const button of document.querySelectorAll(".leave")) button.addEventListener("click", start);
  byId("back").addEventListener("click", back);
  for (const side of ["left", "right"]) byId(`show-${side}`).addEventListener("click", () => enlarge(side));
  const keys = { ArrowLeft: "left", ArrowRight: "right", t: "tie", T: "tie", b: "bad", B: "bad" };
  document.addEventListener("keydown", (event) => {
    if (byId("vote").hidden || byId("large").open || event.repeat || event.ctrlKey || event.metaKey || event.altKey) return;
    const boxes = document.querySelectorAll(".why input");
    if (event.key in keys) choose(keys[event.key]);
    else if (event.key === "Backspace") back();
    else if (/^[1-9]$/.test(event.key) && boxes[event.key - 1]) boxes[event.key - 1].checked = !boxes[event.key - 1].checked;
    else return;
    event.preventDefault();
  });
  addEventListener("beforeunload", (event) => {
    if (unsaved && !keeps) event.preventDefault();
  });
  try {
    localStorage.setItem("hotart-bench test", "1");
    localStorage.removeItem("hotart-bench test");
  } catch {
    keeps = false;
  }
  start();
})();
