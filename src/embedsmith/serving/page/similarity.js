// The similarity matrix of each side as a heat map.

import { cosine } from "./api.js";
import { element, find, plural, precise, short, signed } from "./dom.js";

export const MOST_TEXTS = 40;
const MOST_SIDE_BY_SIDE = 10;
const FEW = 8; // fit side by side on a narrow page, too

let readOut = () => {}; // of the matrices shown: what is said of a cell
let shown = ""; // what is there already stays, and so does the focus in it

/** `sides`: [{name, vectors}], one or two; `texts`: at most `MOST_TEXTS`. */
export function showSimilarity(sides, texts) {
  const asked = JSON.stringify([sides.map(({ name }) => name), texts]);
  if (asked === shown) return;
  shown = asked;
  const matrices = sides.map(({ vectors }) => vectors.map((a) => vectors.map((b) => cosine(a, b))));
  const figures = find("#matrices");
  find("#similarity-lead").textContent = lead(sides, matrices);
  find("#similarity-readout").replaceChildren();
  if (texts.length < 2) {
    figures.replaceChildren();
    return;
  }
  figures.classList.toggle("stacked", texts.length > MOST_SIDE_BY_SIDE);
  figures.classList.toggle("many", texts.length > FEW);
  figures.style.setProperty("--n", texts.length);
  figures.replaceChildren(...sides.map((side, place) => figure(side, matrices[place], texts)));
  readOut = (row, column) => {
    mark(row, column);
    find("#similarity-readout").replaceChildren(...describe(sides, matrices, texts, row, column));
  };
  find("#stretch").onchange = () => paint(sides, matrices);
  paint(sides, matrices);
  readOut(...mostChanged(matrices));
}

/** What the numbers say in a sentence. */
function lead(sides, matrices) {
  if (matrices[0].length < 2) return "Two texts or more make a matrix: type some, or take an example.";
  const said = sides.map(({ name }, place) => `${precise(statistics(matrices[place]).mean, 2)} by ${name}`);
  return `The average cosine of two of these texts is ${said.join(" and ")}. What matters is how far those that mean the same stand out from it.`;
}

function statistics(matrix) {
  const values = matrix.flatMap((row, place) => row.slice(0, place));
  return {
    mean: values.reduce((sum, value) => sum + value, 0) / values.length,
    low: Math.min(...values),
    high: Math.max(...values),
  };
}

function figure({ name }, matrix, texts) {
  const { low, high } = statistics(matrix);
  const head = element(
    "tr",
    {},
    element("td", { class: "corner" }),
    ...texts.map((text, column) => element("th", { scope: "col", title: text }, `${column + 1}`)),
  );
  const rows = texts.map((text, row) =>
    element(
      "tr",
      {},
      element(
        "th",
        { scope: "row", title: text },
        element(
          "div",
          {},
          element("span", { class: "number" }, `${row + 1}`),
          element("span", { class: "label" }, text),
        ),
      ),
      ...matrix[row].map((value, column) => cell(value, row, column, texts)),
    ),
  );
  const range = element("span", { class: "hint" }, `${precise(low, 2)} to ${precise(high, 2)}`);
  return element(
    "figure",
    {},
    element("figcaption", {}, element("strong", {}, name), range),
    element(
      "div",
      { class: "scroll" },
      element(
        "table",
        { class: "matrix", role: "grid", "aria-label": `Similarity by ${name}` },
        element("thead", {}, head),
        element("tbody", {}, ...rows),
      ),
    ),
  );
}

function cell(value, row, column, texts) {
  const attributes = {
    "data-row": row,
    "data-column": column,
    "data-value": value,
    tabindex: row === 1 && column === 0 ? 0 : -1,
  };
  if (row === column) return element("td", { ...attributes, class: "self" }, "1");
  return element(
    "td",
    { ...attributes, title: `${row + 1} and ${column + 1}: ${precise(value)}\n${texts[row]}\n${texts[column]}` },
    short(value),
  );
}

/** Colours: of cosines from 0 to 1, or of each model's own range. */
function paint(sides, matrices) {
  const isStretched = find("#stretch").checked;
  find("#scale-low").textContent = isStretched ? "its lowest" : "0";
  find("#scale-high").textContent = isStretched ? "its highest" : "1";
  document.querySelectorAll("#matrices table").forEach((table, place) => {
    const { low, high } = isStretched ? statistics(matrices[place]) : { low: 0, high: 1 };
    for (const one of table.querySelectorAll("tbody td")) {
      const share = (Number(one.dataset.value) - low) / (high - low || 1);
      one.style.setProperty("--share", Math.min(1, Math.max(0, share)).toFixed(3));
    }
  });
}

function mark(row, column) {
  for (const one of document.querySelectorAll("#matrices .on")) one.classList.remove("on");
  for (const table of document.querySelectorAll("#matrices table")) {
    table.tBodies[0].rows[row].cells[column + 1].classList.add("on");
    table.tBodies[0].rows[row].cells[0].classList.add("on");
    table.tHead.rows[0].cells[column + 1].classList.add("on");
  }
}

function describe(sides, matrices, texts, row, column) {
  const values = matrices.map((matrix) => matrix[row][column]);
  const numbers = sides.map(({ name }, place) =>
    element("span", {}, `${name} `, element("strong", {}, precise(values[place]))),
  );
  if (values.length === 2) numbers.splice(1, 0, " → ");
  if (values.length === 2) numbers.push(element("span", { class: "change" }, ` (${signed(values[1] - values[0])})`));
  const text = (place) =>
    element(
      "p",
      {},
      element("span", { class: "number" }, `${place + 1}`),
      element("span", { class: "clip", title: texts[place] }, texts[place]),
    );
  return [text(row), ...(row === column ? [] : [text(column)]), element("p", { class: "numbers" }, ...numbers)];
}

/** The pair whose cosine differs most between the sides; with one side, the nearest pair. */
function mostChanged(matrices) {
  const change = ([row, column]) =>
    Math.abs(matrices.at(-1)[row][column] - (matrices.length > 1 ? matrices[0][row][column] : -1));
  const pairs = matrices[0].flatMap((_, row) => Array.from({ length: row }, (_unused, column) => [column, row]));
  return pairs.reduce((best, pair) => (change(pair) > change(best) ? pair : best));
}

for (const event of ["pointerover", "focusin"]) {
  find("#matrices").addEventListener(event, ({ target }) => {
    const cell = target.closest("td[data-row]");
    if (cell) readOut(Number(cell.dataset.row), Number(cell.dataset.column));
  });
}
find("#matrices").addEventListener("keydown", move);

const STEPS = { ArrowUp: [-1, 0], ArrowDown: [1, 0], ArrowLeft: [0, -1], ArrowRight: [0, 1] };

/** Arrow keys, Home and End move from cell to cell; each matrix is one stop of the Tab key. */
function move(event) {
  const from = event.target.closest("td[data-row]");
  if (!from || event.altKey || event.ctrlKey || event.metaKey) return;
  const last = from.parentElement.cells.length - 2;
  const [row, column] = [Number(from.dataset.row), Number(from.dataset.column)];
  const step = STEPS[event.key];
  const target = step ? [row + step[0], column + step[1]] : { Home: [row, 0], End: [row, last] }[event.key];
  const to = target && from.closest("tbody").rows[target[0]]?.cells[target[1] + 1];
  if (!target) return;
  event.preventDefault();
  if (!to || to.tagName !== "TD") return;
  from.tabIndex = -1;
  to.tabIndex = 0;
  to.focus();
}

export const limitNotice = (count) =>
  count > MOST_TEXTS ? `The matrix shows the first ${MOST_TEXTS} of ${plural(count, "text")}.` : "";
