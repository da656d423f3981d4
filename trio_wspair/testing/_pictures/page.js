"use strict";

const { names, rows, failure } = JSON.parse(document.getElementById("record").textContent);
const KINDS = {
  Messages: ["send", "receive"],
  Closes: ["close", "closed"],
  Accepts: ["accept"],
};
const FOLDED = 4000; // Characters of a payload that are shown at first.
const PRETTY = 1_000_000; // The most characters of JSON that is laid out.

const list = document.querySelector("ol");
const arrows = document.querySelector(".arrows");
const text = document.getElementById("text");
const count = document.getElementById("count");

function element(tag, properties = {}, ...children) {
  const made = Object.assign(document.createElement(tag), properties);
  made.append(...children);
  return made;
}

// -- rows ------------------------------------------------------------------------

function senderOf(row) {
  return row.way === "arrives" ? 1 - row.column : row.column;
}

function isLate(row) {
  return row.other !== null;
}

/** The row that has the message of a row. */
function messageRow(row) {
  return row.way === "arrives" && isLate(row) ? rows[row.other] : row;
}

function note(row) {
  if (row.way === "lost") return "not taken";
  if (row.way === "arrives" && isLate(row)) return `sent at ${row.taken}`;
  const slow = row.way === "crosses" && row.taken !== null && row.taken !== row.time;
  return slow ? `at ${row.taken}` : "";
}

/** Sender and receiver in words, for screen readers. */
function spoken(row) {
  const [here, there] = [names[row.column], names[1 - row.column]];
  if (row.way === "stays") return `${here}: `;
  if (row.way === "leaves") return `${here} to ${there}, on its way: `;
  return row.way === "arrives" ? `${here} from ${there}: ` : `${here} to ${there}: `;
}

function makeRow(row, index) {
  const lane = element("span", { className: "lane" },
    element("span", { className: "spoken", textContent: spoken(row) }),
    element("span", { className: "words", textContent: row.words }));
  if (note(row)) lane.append(element("span", { className: "note", textContent: note(row) }));
  const time = element("span", { className: "time" });
  const line = element("button", { type: "button", className: "line" }, time, lane);
  const details = element("div", { className: "details", id: `row-${index}`, hidden: true });
  line.setAttribute("aria-expanded", "false");
  line.setAttribute("aria-controls", details.id);
  const unclean = row.clean === false ? "unclean" : "";
  const className = `${row.way} ${row.what} of-${row.column} ${unclean}`;
  const item = element("li", { className }, line, details);
  line.addEventListener("click", () => toggle(index, details.hidden));
  const { text: message = "", hex = "" } = messageRow(row);
  const bytes = hex.replace(/../g, "$& ");
  const words = [message, bytes, row.reason, row.error, row.words].join("\n").toLowerCase();
  return { row, item, line, lane, time, details, words };
}

const parts = rows.map(makeRow);
list.append(...parts.map((part) => part.item));
if (failure !== null) showFailure();

// -- the failure -------------------------------------------------------------------

function remark(kind, sign, { column, words }) {
  const lane = element("span", { className: "lane" },
    element("span", { className: "mark", textContent: sign, ariaHidden: "true" }),
    element("span", { className: "spoken", textContent: `${names[column]}: ` }),
    element("span", { className: "words", textContent: words }));
  return element("li", { className: `remark ${kind} of-${column}` }, lane);
}

/** Mark the unexpected row, and show what has failed and what waits. */
function showFailure() {
  if (failure.row !== null) {
    const { item, lane } = parts[failure.row];
    item.classList.add("wrong");
    lane.prepend(element("span", { className: "spoken", textContent: "Not expected: " }));
  }
  const remarks = [
    ...failure.failed.map((step) => remark("failed", "✗", step)),
    ...failure.waits.map((step) => remark("waits", "…", step)),
  ];
  const next = parts[failure.before];
  for (const each of remarks) list.insertBefore(each, next ? next.item : null);
  const states = document.getElementById("states");
  states.hidden = failure.states.length === 0;
  names.forEach((name, column) => {
    const lines = failure.states.filter((state) => state.column === column);
    states.append(element("p", {}, ...lines.map(({ words }) => element("span", { textContent: words }))));
  });
}

function toggle(index, open) {
  const { row, line, details } = parts[index];
  details.replaceChildren(...(open ? describe(row) : []));
  details.hidden = !open;
  line.setAttribute("aria-expanded", String(open));
  draw();
}

// -- an open row ------------------------------------------------------------------

function describe(row) {
  const facts = element("dl");
  const add = (name, value) => {
    if (value === "" || value === null || value === undefined) return;
    facts.append(element("dt", { textContent: name }), element("dd", {}, value));
  };
  const [here, there] = [names[row.column], names[1 - row.column]];
  const kind = { send: "Message", receive: "Message", close: "Close", closed: "Closed", accept: "Accept" };
  const arrives = row.way === "arrives";
  if (row.way === "stays") add(kind[row.what], here);
  else add(kind[row.what], arrives ? `${there} → ${here}` : `${here} → ${there}`);
  add("Code", row.code === null ? "" : String(row.code));
  add("Reason", row.reason);
  add("Clean", row.clean === null ? "" : row.clean ? "yes" : "no");
  add("Error", row.error);
  const at = (time, task) => `${time} s${task ? `, in ${task}` : ""}`;
  const own = at(row.time, row.task);
  const others = row.taken === null ? "" : at(row.taken, row.otherTask);
  if (row.way === "stays") add("At", own);
  else if (arrives) { add("Sent", others); add("Taken", own); }
  else { add("Sent", own); add("Taken", row.way === "lost" ? "never" : others); }
  if (isLate(row)) {
    const words = arrives ? "Go to the row where it was sent" : "Go to the row where it was taken";
    const go = element("button", { type: "button", className: "more", textContent: words });
    go.addEventListener("click", () => parts[row.other].line.focus());
    return [facts, ...payload(messageRow(row)), go];
  }
  return [facts, ...payload(row)];
}

/** The whole message, as text, as JSON or in hex. */
function payload(row) {
  const views = row.hex === undefined ? viewsOfText(row.text) : viewsOfBytes(row.hex);
  if (views.length === 0) return [];
  const pre = element("pre", { tabIndex: 0 });
  const more = element("button", { type: "button", className: "more" });
  const buttons = views.map(([name, render]) => {
    const button = element("button", { type: "button", textContent: name });
    button.addEventListener("click", () => show(button, name, render()));
    return button;
  });
  function show(button, name, whole) {
    for (const each of buttons) each.setAttribute("aria-pressed", String(each === button));
    pre.className = name === "Hex" ? "hex" : "";
    pre.setAttribute("aria-label", `Payload, ${name}`);
    pre.textContent = whole.slice(0, FOLDED);
    more.hidden = whole.length <= FOLDED;
    more.textContent = "Show the whole payload";
    more.onclick = () => { pre.textContent = whole; more.hidden = true; pre.focus(); draw(); };
    draw();
  }
  const [[name, render]] = views;
  show(buttons[0], name, render());
  const size = element("span", { className: "size", textContent: sizeOf(row) });
  return [element("div", { className: "views" }, ...buttons, size), pre, more];
}

function sizeOf(row) {
  const [size, unit] = row.hex === undefined ? [row.text.length, "character"] : [row.hex.length / 2, "byte"];
  return `${size.toLocaleString("en")} ${unit}${size === 1 ? "" : "s"}`;
}

function viewsOfText(content) {
  if (content === undefined) return [];
  const views = [["Text", () => content], ["Hex", () => dump(new TextEncoder().encode(content))]];
  return isJson(content) ? [["JSON", () => pretty(content)], ...views] : views;
}

function viewsOfBytes(hex) {
  const bytes = Uint8Array.from({ length: hex.length / 2 }, (_, i) => parseInt(hex.slice(2 * i, 2 * i + 2), 16));
  const views = [["Hex", () => dump(bytes)]];
  try {
    const content = new TextDecoder("utf-8", { fatal: true, ignoreBOM: true }).decode(bytes);
    return bytes.length ? [...views, ["Text", () => content]] : views;
  } catch {
    return views;
  }
}

function isJson(content) {
  if (content.length > PRETTY || !/^\s*[[{]/.test(content)) return false;
  try {
    JSON.parse(content);
    return true;
  } catch {
    return false;
  }
}

/** Lay JSON out without changing its values: parsing would round numbers. */
function pretty(json) {
  let depth = 0;
  let laid = "";
  const broken = () => `\n${"  ".repeat(depth)}`;
  const tokens = json.match(/"(?:[^"\\]+|\\.)*"|[{}[\],:]|[^\s"{}[\],:]+/g);
  tokens.forEach((token, i) => {
    if (token === "{" || token === "[") {
      depth += 1;
      laid += token + (/^[}\]]/.test(tokens[i + 1]) ? "" : broken());
    } else if (token === "}" || token === "]") {
      depth -= 1;
      laid += (/^[{[]$/.test(tokens[i - 1]) ? "" : broken()) + token;
    } else if (token === ",") laid += token + broken();
    else laid += token === ":" ? ": " : token;
  });
  return laid;
}

/** Sixteen bytes on each line: their offset, in hex, and as ASCII. */
function dump(bytes) {
  const lines = [];
  for (let start = 0; start < bytes.length; start += 16) {
    const piece = [...bytes.subarray(start, start + 16)];
    const hex = piece.map((byte) => byte.toString(16).padStart(2, "0")).join(" ");
    const shown = piece.map((byte) => (byte > 31 && byte < 127 ? String.fromCharCode(byte) : "·"));
    lines.push(`${start.toString(16).padStart(6, "0")}  ${hex.padEnd(47)}  ${shown.join("")}`);
  }
  return lines.join("\n");
}

// -- filters ------------------------------------------------------------------------

function choice(fieldset, name) {
  const box = element("input", { type: "checkbox", checked: true });
  box.addEventListener("change", filter);
  document.getElementById(fieldset).append(element("label", {}, box, name));
  return box;
}

const halves = names.map((name) => choice("halves", name));
const kinds = Object.entries(KINDS).map(([name, of]) => [choice("kinds", name), of]);

function filter() {
  const wanted = text.value.toLowerCase();
  const chosen = kinds.flatMap(([box, of]) => (box.checked ? of : []));
  let before = "";
  let shown = 0;
  for (const { row, item, time, words } of parts) {
    const fits = halves[senderOf(row)].checked && chosen.includes(row.what) && words.includes(wanted);
    item.hidden = !fits;
    if (!fits) continue;
    time.textContent = row.time === before ? "" : row.time;
    before = row.time;
    shown += 1;
  }
  count.textContent = shown === rows.length ? `${shown} rows` : `${shown} of ${rows.length} rows`;
  draw();
}

text.addEventListener("input", filter);
document.querySelector("form").addEventListener("submit", (event) => event.preventDefault());

// -- arrows ------------------------------------------------------------------------

function shape(tag, className, attributes) {
  const made = document.createElementNS("http://www.w3.org/2000/svg", tag);
  made.setAttribute("class", className);
  for (const [name, value] of Object.entries(attributes)) made.setAttribute(name, value);
  return made;
}

function arrow([x1, y1], [x2, y2], css, headed = true) {
  const tip = headed ? (x2 > x1 ? 12 : -12) : 0;
  const base = y2 - ((y2 - y1) / (x2 - x1)) * tip;
  const line = shape("line", `arrow ${css}`, { x1, y1, x2: x2 - tip, y2: base });
  const points = `${x2},${y2} ${x2 - tip},${base - 6} ${x2 - tip},${base + 6}`;
  return headed ? [line, shape("polygon", `tip ${css}`, { points })] : [line];
}

function cross(x, y, css) {
  return shape("path", css, { d: `M${x - 6} ${y - 6}l12 12m0 -12l-12 12` });
}

function sign(row, x, y) {
  if (row.what === "accept") return [shape("circle", "sign", { cx: x, cy: y, r: 6 })];
  const css = row.clean ? "sign clean" : "sign unclean";
  const box = shape("rect", css, { x: x - 7, y: y - 7, width: 14, height: 14 });
  return row.clean ? [box] : [box, cross(x, y, css)];
}

/** The shapes of a row. The arrow of a message that came late belongs to its arrival. */
function drawn(row, places) {
  const { x, y } = places.get(row);
  const [here, there] = [x[row.column], x[1 - row.column]];
  const middle = (here + there) / 2;
  const thick = row.what === "close" || row.what === "closed" ? "thick" : "";
  const css = `by-${senderOf(row)} ${thick}`;
  const ended = row.what === "closed" ? sign(row, here, y) : [];
  if (row.way === "stays") return sign(row, here, y - 12);
  if (row.way === "crosses") return arrow([here, y], [there, y], css);
  if (row.way === "lost") {
    return [...arrow([here, y], [middle, y], css, false), cross(middle, y, "cross")];
  }
  if (!isLate(row)) return [...arrow([there, y], [here, y], css), ...ended];
  const end = places.get(rows[row.other]);
  if (row.way === "leaves") {
    return end ? [] : arrow([here, y], [middle, y], `${css} late`, false);
  }
  const start = end ? [there, end.y] : [middle, y];
  return [...arrow(start, [here, y], `${css} late`), ...ended];
}

function draw() {
  const origin = arrows.getBoundingClientRect();
  const places = new Map();
  for (const { row, item, line, lane } of parts) {
    if (item.hidden) continue;
    const { left, right } = lane.getBoundingClientRect();
    const y = line.getBoundingClientRect().bottom - origin.top - 9;
    places.set(row, { x: [left - origin.left + 12, right - origin.left - 12], y });
  }
  arrows.replaceChildren(...[...places.keys()].flatMap((row) => drawn(row, places)));
}

// -- keys ------------------------------------------------------------------------

document.addEventListener("keydown", (event) => {
  if (event.altKey || event.ctrlKey || event.metaKey) return;
  if (event.key === "/" && event.target !== text) {
    event.preventDefault();
    text.focus();
    return;
  }
  const item = event.target.closest("li");
  if (item === null) return;
  const shown = parts.filter((part) => !part.item.hidden);
  const at = shown.findIndex((part) => part.item === item);
  if (event.key === "Escape") {
    toggle(parts.indexOf(shown[at]), false);
    shown[at].line.focus();
  } else if (event.target === shown[at].line) {
    const goals = { ArrowDown: at + 1, ArrowUp: at - 1, Home: 0, End: shown.length - 1 };
    const goal = shown[goals[event.key]];
    if (goal === undefined) return;
    event.preventDefault();
    goal.line.focus();
  }
});

const heads = document.querySelectorAll(".head");
names.forEach((name, column) => { heads[column].textContent = name; });
new ResizeObserver(draw).observe(list);
filter();
