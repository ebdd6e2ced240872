// The nearest texts of a file to a text, by each side.

import { cosine, embed } from "./api.js";
import { element, find, plural, precise } from "./dom.js";
import { CORPUS } from "./examples.js";
import { columnsOf, distinct, longestColumn, MOST_TEXTS, readFile } from "./reading.js";

const NUM_SHOWN = 10;
const BATCH = 64;

/** The texts to look among, and how far each side has come with them: `rows[model]` are the vectors so far. */
export const corpus = { name: null, texts: [], rows: {} };

let table = null; // rows and columns of a file that is a table
let running = null; // AbortController of the embedding under way
let callbacks;

/** `said`: {sides(), onChange(), onStart(what), onError(error, tryAgain)}; sides() gives the models' names. */
export function setUpNeighbours(said) {
  callbacks = said;
  find("#file").addEventListener("change", () => find("#file").files[0] && take(find("#file").files[0]));
  find("#corpus").addEventListener("click", () => use("48 sentences", CORPUS, "an example"));
  find("#file-remove").addEventListener("click", remove);
  find("#column").addEventListener("change", useColumn);
  find("#has-header").addEventListener("change", () => listColumns(Number(find("#column").value)));
  find("#stop").addEventListener("click", () => (running ? running.abort() : embedCorpus()));
  find("#query").addEventListener("input", () => callbacks.onChange());
  const drop = find("#neighbours");
  for (const event of ["dragover", "drop"]) drop.addEventListener(event, (dragged) => dragged.preventDefault());
  drop.addEventListener("dragover", () => drop.classList.add("over"));
  for (const event of ["dragleave", "drop"]) drop.addEventListener(event, () => drop.classList.remove("over"));
  drop.addEventListener("drop", (dragged) => dragged.dataTransfer.files[0] && take(dragged.dataTransfer.files[0]));
}

async function take(file) {
  try {
    const content = await readFile(file);
    table = content.rows ? { name: content.name, rows: content.rows } : null;
    if (table) listColumns(longestColumn(table.rows));
    else use(content.name, content.lines);
  } catch (error) {
    callbacks.onError(error);
  } finally {
    find("#file").value = ""; // the same file may be chosen again
  }
}

function listColumns(chosen) {
  const names = columnsOf(table.rows, find("#has-header").checked);
  find("#column").replaceChildren(...names.map((name, column) => element("option", { value: column }, name)));
  find("#column").value = chosen;
  useColumn();
}

function useColumn() {
  const rows = find("#has-header").checked ? table.rows.slice(1) : table.rows;
  use(
    table.name,
    rows.map((row) => row[Number(find("#column").value)] ?? ""),
  );
}

function use(name, given, kind = "") {
  if (kind) table = null;
  const { texts, numRepeated, numFurther } = distinct(given);
  Object.assign(corpus, { name, texts, rows: {} });
  const remarks = [kind, plural(texts.length, "text")];
  if (numRepeated) remarks.push(`${numRepeated.toLocaleString("en")} repeated`);
  if (numFurther)
    remarks.push(`${plural(numFurther, "further one")} left out: ${MOST_TEXTS.toLocaleString("en")} are taken`);
  find("#file-name").textContent = name;
  find("#file-count").textContent = remarks.filter(Boolean).join(", ");
  find("#file-state").hidden = false;
  find("#drop").hidden = true;
  for (const choice of ["#column-choice", "#header-choice"]) find(choice).hidden = !table;
  embedCorpus();
}

function remove() {
  table = null;
  Object.assign(corpus, { name: null, texts: [], rows: {} });
  embedCorpus(); // nothing, in the place of what is under way
  find("#file-state").hidden = true;
  find("#drop").hidden = false;
}

/** The texts that every side has embedded so far. */
export const readyTexts = () =>
  corpus.texts.slice(0, Math.min(...callbacks.sides().map((model) => corpus.rows[model]?.length ?? 0)));

/** Embed what is not embedded yet, a batch by each side in turn, so that both lists grow together. */
export async function embedCorpus() {
  running?.abort();
  const own = new AbortController();
  running = own;
  const { signal } = own;
  const [bar, said, stop] = find("#progress").children;
  const models = [...new Set(callbacks.sides())];
  callbacks.onStart(embedCorpus);
  find("#progress").hidden = !corpus.texts.length;
  stop.textContent = "Stop";
  try {
    for (let start = 0; start < corpus.texts.length; start += BATCH) {
      bar.value = start / corpus.texts.length;
      said.textContent = `${start.toLocaleString("en")} of ${plural(corpus.texts.length, "text")}`;
      for (const model of models) {
        const rows = (corpus.rows[model] ??= []);
        if (rows.length > start) continue;
        const { vectors } = await embed(model, corpus.texts.slice(start, start + BATCH), { signal });
        if (!signal.aborted) rows.push(...vectors);
      }
      if (signal.aborted) break;
      callbacks.onChange();
    }
  } catch (error) {
    if (error.name !== "AbortError") callbacks.onError(error, embedCorpus);
  } finally {
    if (running === own) {
      running = null;
      find("#progress").hidden = readyTexts().length === corpus.texts.length;
      stop.textContent = "Go on";
      callbacks.onChange();
    }
  }
}

/** `sides`: [{name}]; `query`: what to look for. */
export async function showNeighbours(sides, query, signal) {
  const lists = find("#lists");
  if (!corpus.texts.length) {
    lists.replaceChildren(
      element("p", { class: "empty" }, "Choose a file, or take the example, to look for the nearest texts in it."),
    );
    return;
  }
  if (!query) {
    lists.replaceChildren(
      element("p", { class: "empty" }, "Type a text above: the file's texts are ranked by how near they are to it."),
    );
    return;
  }
  const rankings = [];
  for (const { name } of sides) {
    const [vector] = (await embed(name, [query], { kind: "query", signal })).vectors;
    rankings.push(rank(vector, corpus.rows[name] ?? []));
  }
  signal.throwIfAborted();
  lists.replaceChildren(
    ...sides.map(({ name }, place) => list(name, rankings[place], sides[1 - place]?.name, rankings[1 - place])),
  );
}

function rank(query, rows) {
  const cosines = rows.map((row) => cosine(query, row));
  const order = cosines.map((_, index) => index).sort((a, b) => cosines[b] - cosines[a]);
  const places = new Map(order.map((index, place) => [index, place]));
  return { cosines, order, places };
}

function ordinal(number) {
  const ending = { one: "st", two: "nd", few: "rd" }[new Intl.PluralRules("en", { type: "ordinal" }).select(number)];
  return `${number.toLocaleString("en")}${ending ?? "th"}`;
}

function list(name, ranking, otherName, other) {
  const items = ranking.order.slice(0, NUM_SHOWN).map((index) => {
    const bar = element("i", { "aria-hidden": "true" });
    bar.style.setProperty("--share", Math.max(0, ranking.cosines[index]).toFixed(3));
    const elsewhere = other?.places.get(index);
    const isNew = elsewhere >= NUM_SHOWN;
    return element(
      "li",
      isNew ? { class: "new" } : {},
      element("span", { class: "found", title: corpus.texts[index] }, corpus.texts[index]),
      element(
        "span",
        { class: "meter" },
        bar,
        precise(ranking.cosines[index], 3),
        elsewhere === undefined
          ? ""
          : element("span", { title: `Its place by ${otherName}` }, `${ordinal(elsewhere + 1)} on the other side`),
      ),
    );
  });
  const count =
    ranking.order.length < corpus.texts.length
      ? `of the first ${ranking.order.length.toLocaleString("en")}`
      : `of ${corpus.texts.length.toLocaleString("en")}`;
  return element(
    "figure",
    {},
    element("figcaption", {}, element("strong", {}, name), element("span", { class: "hint" }, count)),
    element("ol", {}, ...items),
  );
}
