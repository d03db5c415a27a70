"use strict";
// The viewer of rows. Reads the JSON of the page; puts every text in as text, never as HTML; keeps its state in the address.
const DATA = JSON.parse(document.getElementById("data").textContent);
const HEIGHT = 46;   // pixels of a line of the list, as in viewer.css
const MOST = 60;     // a column of more different values has no menu
const at = (id) => document.getElementById(id);
const state = { part: 0, q: "", method: "", variant: "", is: [], facts: {}, sort: "", row: "" };
let texts = DATA.texts, starts = null, lowered = null, shown = [], current = 0;

function make(tag, className, ...children) {
  const element = document.createElement(tag);
  if (className) element.className = className;
  element.append(...children);
  return element;
}
function link(text, href, className) {
  const element = make("a", className, text);
  element.href = href;
  return element;
}
const part = () => DATA.parts[state.part];
const code = (column, row) => (column.at[row] < 0 ? "" : column.of[column.at[row]]);
const rowName = (row) => `${code(part().rows.seed, row)}:${part().rows.id[row]}`;
function stamp(number) {
  if (number < 0) return "";
  if (texts.words) return `[redacted, ${texts.words[number]} words]`;
  return texts.joined.slice(begins()[number], begins()[number] + texts.lengths[number]);
}
function begins() {  // of each text in the joined one
  if (starts) return starts;
  starts = new Uint32Array(texts.lengths.length);
  let place = 1;
  texts.lengths.forEach((length, k) => { starts[k] = place; place += length + 1; });
  return starts;
}

// --- filters ---------------------------------------------------------------------------------------------------------------------
function models() {
  if (!state.method) return null;
  return new Set(part().models.flatMap((m, k) => (m.method === state.method && agrees(m.variant) ? [k] : [])));
}
function agrees(variant) {
  if (!state.variant) return true;
  const wanted = JSON.parse(state.variant);
  return Object.entries(wanted).every(([k, v]) => !(k in variant) || JSON.stringify(variant[k]) === JSON.stringify(v));
}
function hits() {
  const q = state.q.trim().toLowerCase();
  if (!q) return null;
  if (texts.words) return { q, found: new Uint8Array(texts.words.length) };
  lowered ??= lower(texts.joined);
  const found = new Uint8Array(texts.lengths.length), first = begins();
  let k = 0;
  for (let place = lowered.indexOf(q); place >= 0; place = k < first.length ? lowered.indexOf(q, first[k]) : -1) {
    while (k + 1 < first.length && first[k + 1] <= place) k++;
    found[k++] = 1;
  }
  return { q, found };
}
const bitmask = () => state.is.reduce((m, id) => m | (1 << part().filters.findIndex((f) => f.id === id)), 0);
function lower(text) {  // of the same length, letter by letter where need be
  const whole = text.toLowerCase();
  return whole.length === text.length ? whole : text.replace(/[^\0-\x7f]|[A-Z]+/g, (c) => (c.toLowerCase().length === c.length ? c.toLowerCase() : c));
}
function matching() {
  const p = part(), { start, model, text } = p.cells, bits = p.cells.is, wanted = models(), search = hits();
  const mask = bitmask();
  const facts = Object.entries(state.facts).filter(([c]) => p.rows[c]).map(([c, v]) => [p.rows[c].at, p.rows[c].of.includes(v) ? p.rows[c].of.indexOf(v) : -2]);
  const named = search && p.facts.map(([c]) => [p.rows[c].at, p.rows[c].of.map((v) => v.toLowerCase().includes(search.q))]);
  const rows = [];
  for (let row = 0; row < p.rows.id.length; row++) {
    if (facts.some(([column, value]) => column[row] !== value)) continue;
    let held = !wanted && !mask;
    let read = !search || search.found[p.rows.prompt[row]] || p.rows.id[row].startsWith(search.q) || named.some(([c, has]) => has[c[row]]);
    for (let cell = start[row]; cell < start[row + 1] && !(held && read); cell++) {
      if (!held) held = (!wanted || wanted.has(model[cell])) && (bits[cell] & mask) === mask;
      if (!read) read = text[cell] >= 0 && search.found[text[cell]];
    }
    if (held && read) rows.push(row);
  }
  return sorted(rows, wanted);
}
function sorted(rows, wanted) {
  const column = part().values.indexOf(state.sort);
  if (column < 0) return rows;
  const { start, model } = part().cells, values = part().cells.values[column];
  const key = new Float64Array(part().rows.id.length).fill(-Infinity);
  for (const row of rows)
    for (let cell = start[row]; cell < start[row + 1]; cell++)
      if ((!wanted || wanted.has(model[cell])) && values[cell] > key[row]) key[row] = values[cell];
  return rows.sort((a, b) => key[b] - key[a]);
}
function update(keep) {
  shown = matching();
  const wanted = shown.findIndex((row) => rowName(row) === state.row);
  current = Math.max(0, wanted);
  const all = part().rows.id.length;
  at("count").textContent = `${shown.length.toLocaleString("en")} of ${all.toLocaleString("en")} rows`;
  at("space").style.height = `${shown.length * HEIGHT}px`;
  if (!keep || wanted > 0) at("list").scrollTop = Math.max(0, (current - 3) * HEIGHT);
  controls();
  list();
  detail();
  remember();
}

// --- address ---------------------------------------------------------------------------------------------------------------------
function remember() {
  const told = new URLSearchParams();
  told.set("part", part().id);
  for (const name of ["q", "method", "variant", "sort", "row"]) if (state[name]) told.set(name, state[name]);
  if (state.is.length) told.set("is", state.is.join(","));
  for (const [column, value] of Object.entries(state.facts)) told.set(column, value);
  try { history.replaceState(null, "", `#${told}`); } catch { /* a page inside another may not */ }
}
function recall() {
  const told = new URLSearchParams(location.hash.slice(1));
  state.part = Math.max(0, DATA.parts.findIndex((p) => p.id === told.get("part")));
  for (const name of ["q", "method", "variant", "sort", "row"]) state[name] = told.get(name) ?? "";
  try { JSON.parse(state.variant || "{}"); } catch { state.variant = ""; }
  if (!part().models.some((m) => m.method === state.method)) state.method = "";
  state.is = (told.get("is") ?? "").split(",").filter((id) => part().filters.some((f) => f.id === id));
  state.facts = {};
  for (const column of ["seed", ...part().facts.map(([c]) => c)]) if (told.get(column)) state.facts[column] = told.get(column);
}
function reset() {
  Object.assign(state, { q: "", method: "", variant: "", is: [], facts: {}, sort: "", row: "" });
  update();
}

// --- controls --------------------------------------------------------------------------------------------------------------------
function menu(label, options, chosen, change) {
  const select = make("select");
  for (const [value, text] of [["", label], ...options]) select.append(new Option(text, value, false, value === chosen));
  select.setAttribute("aria-label", label);
  select.onchange = () => { change(select.value); state.row = ""; update(); };
  if (chosen) select.className = "chosen";
  return select;
}
function controls() {
  const p = part();
  at("parts").replaceChildren(...DATA.parts.map((other, k) => {
    const button = make("button", k === state.part ? "chosen" : "", other.title);
    button.onclick = () => { state.part = k; reset(); };
    return button;
  }));
  if (at("search").value !== state.q) at("search").value = state.q;
  const value = (m) => JSON.stringify([m.method, m.variant]);
  const own = p.models.find((m) => m.method === state.method && (!state.variant || JSON.stringify(m.variant) === state.variant));
  const filters = menu("Add a filter", p.filters.filter((f) => !state.is.includes(f.id)).map((f) => [f.id, f.label]), "", (id) => { if (id) state.is.push(id); });
  const menus = [
    filters,
    menu("Any model", p.models.map((m) => [value(m), m.name]), own ? value(own) : "", (text) => {
      const [method, variant] = text ? JSON.parse(text) : ["", {}];
      state.method = method;
      state.variant = Object.keys(variant).length ? JSON.stringify(variant) : "";
    }),
  ];
  for (const [column, label] of [...p.facts, ["seed", "Seed"]]) {
    const values = p.rows[column]?.of ?? [];
    if (values.length < 2 || values.length > MOST) continue;
    const change = (v) => { if (v) state.facts[column] = v; else delete state.facts[column]; };
    menus.push(menu(label, values.map((v) => [v, v]), state.facts[column] ?? "", change));
  }
  menus.push(menu("In order", p.values.map((v) => [v, `by ${v}, highest first`]), state.sort, (v) => { state.sort = v; }));
  at("menus").replaceChildren(...menus);
  at("chips").replaceChildren(...state.is.map((id) => {
    const button = make("button", "chip", `${p.filters.find((f) => f.id === id).label} ×`);
    button.onclick = () => { state.is = state.is.filter((other) => other !== id); update(true); };
    return button;
  }));
}

// --- list: only the lines in sight are in the page ---------------------------------------------------------------------------------
function list() {
  const box = at("list"), first = Math.max(0, Math.floor(box.scrollTop / HEIGHT) - 4);
  const last = Math.min(shown.length, first + Math.ceil((box.clientHeight || 800) / HEIGHT) + 8);
  const lines = [];
  for (let k = first; k < last; k++) lines.push(line(k));
  at("lines").style.transform = `translateY(${first * HEIGHT}px)`;
  at("lines").replaceChildren(...lines);
}
function line(k) {
  const row = shown[k], p = part();
  const dots = make("span", "dots");
  for (let cell = p.cells.start[row]; cell < p.cells.start[row + 1] && dots.childElementCount < 40; cell++) dots.append(make("i", colour(cell)));
  const under = make("small", "", dots, ` ${[...p.facts.slice(0, 3).map(([c]) => code(p.rows[c], row)), `seed ${code(p.rows.seed, row)}`].filter(Boolean).join(" · ")}`);
  const element = make("div", k === current ? "line current" : "line", make("b", "", stamp(p.rows.prompt[row]) || p.rows.id[row]), under);
  element.setAttribute("role", "option");
  element.setAttribute("aria-selected", k === current);
  element.onclick = () => select(k);
  return element;
}
function colour(cell) {
  const bits = part().cells.is[cell], [bad, good] = part().colours;
  return bad >= 0 && bits & (1 << bad) ? "bad" : good >= 0 && bits & (1 << good) ? "good" : "";
}
function select(k) {
  if (!shown.length) return;
  current = Math.min(Math.max(k, 0), shown.length - 1);
  state.row = rowName(shown[current]);
  const box = at("list"), top = current * HEIGHT;
  if (top < box.scrollTop) box.scrollTop = top;
  if (top + HEIGHT > box.scrollTop + box.clientHeight) box.scrollTop = top + HEIGHT - box.clientHeight;
  list();
  detail();
  remember();
}

// --- one row -----------------------------------------------------------------------------------------------------------------------
function marked(text) {
  const q = state.q.trim().toLowerCase(), pieces = [];
  let from = 0, k = q ? text.toLowerCase().indexOf(q) : -1;
  for (; k >= 0; k = text.toLowerCase().indexOf(q, from)) {
    pieces.push(text.slice(from, k), make("mark", "", text.slice(k, k + q.length)));
    from = k + q.length;
  }
  return [...pieces, text.slice(from)];
}
function goto(name) {
  Object.assign(state, { q: "", method: "", variant: "", is: [], facts: {}, row: name });
  update();
}
function relatives(seed, ids) {
  return ids.map((id) => {
    const name = `${seed}:${id}`, there = part().rows.id.some((other, row) => other === id && rowName(row) === name);
    if (!there) return make("span", "", `${id} `);
    const anchor = link(id, `#part=${part().id}&row=${name}`, "relative");
    anchor.onclick = (event) => { event.preventDefault(); goto(name); };
    return make("span", "", anchor, " ");
  });
}
function facts(row) {
  const p = part(), seed = code(p.rows.seed, row), id = p.rows.id[row], table = make("dl", "facts");
  const tell = (label, ...value) => table.append(make("div", "", make("dt", "", label), make("dd", "", ...value)));
  tell("Row", id);
  tell("Seed", seed);
  for (const [column, label] of p.facts) {
    const value = code(p.rows[column], row);
    if (value) tell(label, ...(column === "parents" ? relatives(seed, value.split(", ")) : [value]));
  }
  if (p.rows.parents) {
    const named = p.rows.parents.of.map((v) => v.split(", ").includes(id));
    const children = p.rows.id.filter((_, other) => named[p.rows.parents.at[other]] && code(p.rows.seed, other) === seed);
    if (children.length) tell("Attacks made of it", ...relatives(seed, children));
  }
  return table;
}
function card(cell, wanted, mask) {
  const p = part(), { model, tag, text, stage, values } = p.cells, name = p.models[model[cell]].name, bits = p.cells.is[cell];
  const head = make("h3", "", name, make("small", "", ` ${code(tag, cell)}`));
  const scores = make("dl");
  p.values.forEach((label, k) => { if (values[k][cell] !== null) scores.append(make("dt", "", label), make("dd", "", values[k][cell].toFixed(3))); });
  const held = make("p", "held", ...p.filters.filter((f, k) => bits & (1 << k)).map((f) => make("span", "tag", f.label)));
  const hit = (wanted || mask) && (!wanted || wanted.has(model[cell])) && (bits & mask) === mask;
  const element = make("article", `card ${colour(cell)}${hit ? " hit" : ""}`, head);
  if (text[cell] >= 0) element.append(make("blockquote", "", ...marked(stamp(text[cell]) || "[says nothing]")));
  element.append(held, scores);
  if (stage[cell] >= 0) element.append(make("p", "from", source(DATA.stages[stage[cell]])));
  return element;
}
function source(stage) {
  const label = `${stage.stage} ${stage.key}`;
  return stage.page ? link(label, stage.page) : label;
}
function detail() {
  const row = shown[current];
  if (row === undefined) return at("detail").replaceChildren(make("p", "quiet", "No row fits these filters. Press r to drop them."));
  const p = part(), cells = [], used = new Set(), wanted = models(), mask = bitmask();
  for (let cell = p.cells.start[row]; cell < p.cells.start[row + 1]; cell++) {
    cells.push(card(cell, wanted, mask));
    if (p.cells.stage[cell] >= 0) used.add(p.cells.stage[cell]);
  }
  const prompt = make("blockquote", "prompt", ...marked(stamp(p.rows.prompt[row])));
  const origin = make("table", "", make("thead", "", make("tr", "", ...["Stage, executed notebook", "In the store", "Command"].map((h) => make("th", "", h)))));
  const body = make("tbody");
  for (const stage of [...used].map((k) => DATA.stages[k]))
    body.append(make("tr", "", make("td", "", source(stage)), make("td", "", make("code", "", stage.place)), make("td", "", make("code", "", stage.command))));
  origin.append(body);
  at("detail").replaceChildren(prompt, facts(row), make("div", "cards", ...cells), make("h2", "", "Where it comes from"), make("div", "scroll", origin));
  at("detail").scrollTop = 0;
}

// --- unlocking: the texts of a file that is chosen stay in this page's memory until it is closed or loaded again -------------------
async function unlock(file) {
  let given = null;
  try { given = JSON.parse(await file.text()); } catch { /* told below */ }
  if (given?.fingerprint !== DATA.meta.fingerprint) {
    at("notice").textContent = `${file.name} does not hold the texts of this page. Make them again: ${DATA.meta.unlock}`;
    return;
  }
  [texts, starts, lowered] = [given.texts, null, null];
  document.body.classList.add("unlocked");
  at("notice").textContent = "Unlocked: this page shows unsafe text until it is closed or loaded again.";
  update(true);
}
function toggleHelp() { const help = at("help"); if (help.open) help.close(); else help.showModal(); }

const KEYS = {
  j: () => select(current + 1), k: () => select(current - 1), ArrowDown: () => select(current + 1), ArrowUp: () => select(current - 1),
  g: () => select(0), G: () => select(shown.length - 1), "/": () => at("search").focus(), r: reset, "?": toggleHelp,
  u: () => { if (DATA.meta.redacted) at("file").click(); },
};
document.addEventListener("keydown", (event) => {
  if (event.key === "Escape" && event.target === at("search")) at("search").blur();
  if (event.ctrlKey || event.metaKey || event.altKey || /INPUT|SELECT/.test(event.target.tagName)) return;
  const act = KEYS[event.key] ?? (DATA.parts[Number(event.key) - 1] ? () => { state.part = Number(event.key) - 1; reset(); } : null);
  if (act) { event.preventDefault(); act(); }
});
at("search").oninput = (event) => { state.q = event.target.value; state.row = ""; update(); };
at("list").addEventListener("scroll", list, { passive: true });
at("unlock").onclick = () => at("file").click();
at("file").onchange = (event) => { if (event.target.files.length) unlock(event.target.files[0]); };
at("ask").onclick = toggleHelp;
addEventListener("resize", list);
addEventListener("hashchange", () => { recall(); update(); });
if (DATA.parts.length) {
  recall();
  update();
} else at("count").textContent = "No row of this experiment is in the store any more.";
performance.mark("rows");
