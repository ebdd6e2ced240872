// The page: what is asked, by whom, and which view shows it.

import { embed } from "./api.js";
import { element, find, plural } from "./dom.js";
import { EXAMPLES } from "./examples.js";
import { MOST_POINTS, showMap } from "./map.js";
import { chooseSides, loadModels, models, sides } from "./models.js";
import { corpus, embedCorpus, readyTexts, setUpNeighbours, showNeighbours } from "./neighbours.js";
import { setUpKey } from "./key.js";
import { setUpKeys, setUpTabs } from "./keys.js";
import { linesOf } from "./reading.js";
import { readLink, tooLong, writeLink } from "./share.js";
import { limitNotice, MOST_TEXTS, showSimilarity } from "./similarity.js";
import { showTokens } from "./tokens.js";

const PAUSE = 400; // milliseconds without a key, until what was typed is computed
const VIEWS = ["similarity", "neighbours", "map", "tokens"];

let view = VIEWS[0];
let last = new AbortController(); // of what is being computed
let timer = 0;
let example = 0;

const texts = () => linesOf(find("#texts").value);

// ---- what is shown ---------------------------------------------------------------------------------------------------

/** Compute and show the view that is open. */
async function refresh() {
  clearTimeout(timer);
  last.abort();
  last = new AbortController();
  const { signal } = last;
  keepAddress();
  clearAlert(refresh);
  const own = texts();
  find("#count").textContent = plural(own.length, "text");
  if (!models.length) return;
  say("Computing …");
  find("#result").setAttribute("aria-busy", "true");
  try {
    await SHOW[view](own, signal);
  } catch (error) {
    if (signal.aborted || error.name === "AbortError") return;
    setAlert(error, refresh);
  } finally {
    if (!signal.aborted) {
      say("");
      find("#result").removeAttribute("aria-busy");
    }
  }
}

const SHOW = {
  async similarity(own, signal) {
    const given = own.slice(0, MOST_TEXTS);
    const embedded = await embedSides(given, signal);
    notice(limitNotice(own.length), ...embedded.notices);
    showSimilarity(embedded.sides, given);
  },
  async neighbours(own, signal) {
    notice();
    find("#query").placeholder = own[0] ?? "a text of your own";
    await showNeighbours(
      sides().map((name) => ({ name })),
      find("#query").value.trim() || own[0],
      signal,
    );
  },
  async map(own, signal) {
    const all = chosenSource() === "file" ? corpus.texts : own;
    const given = (all === own ? own : readyTexts()).slice(0, MOST_POINTS);
    const embedded = await embedSides(given, signal);
    notice(
      given.length < all.length
        ? `The map shows the first ${given.length.toLocaleString("en")} of ${plural(all.length, "text")}.`
        : "",
      ...embedded.notices,
    );
    showMap(embedded.sides, given);
  },
  async tokens(own, signal) {
    notice();
    await showTokens(
      sides().map((name) => ({ name })),
      own.length ? own : [""],
      signal,
    );
  },
};

/** The texts as every side sees them, and what must be said of it. */
async function embedSides(given, signal) {
  const found = [];
  const notices = [];
  for (const name of sides()) {
    const onBatch = (done, total) => say(`${name}: ${done} of ${plural(total, "text")}`);
    const { vectors, mostCut } = await embed(name, given, { signal, onBatch });
    const limit = models.find((model) => model.id === name).max_tokens;
    if (mostCut) notices.push(`${name} cuts texts at ${limit} tokens: up to ${mostCut} of these.`);
    found.push({ name, vectors });
  }
  signal.throwIfAborted();
  return { sides: found, notices };
}

const say = (text) => (find("#status").textContent = text);
const chosenSource = () => find('input[name="map-source"]:checked').value;

function notice(...parts) {
  const text = [...parts, ...standing].filter(Boolean).join(" ");
  find("#notice").textContent = text;
  find("#notice").hidden = !text;
}
let standing = []; // said in every view

let again = null; // what the alert's button does

/** Say what is wrong until `tryAgain` begins anew, or, where there is none, until something else is computed. */
function setAlert(error, tryAgain = null) {
  again = tryAgain;
  find("#alert p").textContent = error.message;
  find("#alert button").hidden = !again;
  find("#alert").hidden = false;
}

function clearAlert(begun) {
  if (again === begun || !again) find("#alert").hidden = true;
}

// ---- what is asked ---------------------------------------------------------------------------------------------------

function setView(name) {
  view = VIEWS.includes(name) ? name : VIEWS[0];
  for (const one of VIEWS) {
    const tab = find(`#tab-${one}`);
    tab.setAttribute("aria-selected", String(one === view));
    tab.tabIndex = one === view ? 0 : -1;
    find(`#${one}`).hidden = one !== view;
  }
}

function setTexts(value) {
  find("#texts").value = value;
  numberLines();
}

/** A number beside each line that is a text. */
function numberLines() {
  let number = 0;
  const lines = find("#texts")
    .value.split("\n")
    .map((line) => (line.trim() ? `${(number += 1)}` : ""));
  find("#gutter").textContent = lines.join("\n");
  find("#gutter").scrollTop = find("#texts").scrollTop;
}

function nextExample(place = example + 1) {
  example = place % EXAMPLES.length;
  setTexts(EXAMPLES[example].texts.join("\n"));
  refresh();
}

const state = () => ({
  texts: find("#texts").value,
  left: models.length > 1 ? find("#left").value : "",
  right: models.length > 1 ? find("#right").value : "",
  view: view === VIEWS[0] ? "" : view,
  query: find("#query").value,
});

/** The address holds what is shown, so that going back, reloading and copying it by hand keep it. */
function keepAddress() {
  if (models.length) history.replaceState(null, "", writeLink(state()) ?? location.pathname);
}

/** Returns the sides that a link asks for. */
function readAddress() {
  const given = readLink(location.hash);
  setTexts(given.texts ?? EXAMPLES[0].texts.join("\n"));
  setView(given.view);
  find("#query").value = given.query ?? "";
  return given;
}

async function share() {
  const hash = writeLink(state());
  if (hash === null) {
    setAlert(new Error(tooLong(find("#texts").value)));
    return;
  }
  const link = new URL(hash, location.href).href;
  try {
    await navigator.clipboard.writeText(link);
    flash(find("#share"), "Copied");
  } catch {
    find("#link").value = link; // browsers lend the clipboard to safe addresses alone
    find("#link-dialog").showModal();
    find("#link").select();
  }
}

function flash(button, text) {
  const own = (button.dataset.own ??= button.textContent);
  button.textContent = text;
  say(text);
  setTimeout(() => (button.textContent = own), 1500);
}

/** What a link asks for is on the page before the server answers. */
async function start(asked) {
  try {
    await loadModels();
    standing = chooseSides(asked);
    await refresh();
  } catch (error) {
    setAlert(error, () => start(asked));
  }
}

// ---- events ----------------------------------------------------------------------------------------------------------

function later() {
  numberLines();
  clearTimeout(timer);
  timer = setTimeout(refresh, PAUSE);
}

find("#examples").append(
  ...EXAMPLES.map(({ name }, place) =>
    element("button", { type: "button", on: { click: () => nextExample(place) } }, name),
  ),
);
find("#texts").addEventListener("input", later);
find("#texts").addEventListener("scroll", () => (find("#gutter").scrollTop = find("#texts").scrollTop));
for (const side of ["#left", "#right"]) {
  find(side).addEventListener("change", () => {
    refresh();
    if (corpus.texts.length) embedCorpus();
  });
}
find("#swap").addEventListener("click", () => {
  [find("#left").value, find("#right").value] = [find("#right").value, find("#left").value];
  refresh();
});
find("#share").addEventListener("click", share);
find("#alert button").addEventListener("click", () => {
  find("#alert").hidden = true;
  again();
});
addEventListener("busy", ({ detail }) => say(`The server is busy; asking again in ${detail} s.`));
for (const one of document.querySelectorAll('input[name="map-source"]')) one.addEventListener("change", refresh);
addEventListener("hashchange", () => {
  standing = chooseSides(readAddress());
  refresh();
});
setUpNeighbours({
  sides,
  onChange() {
    const [own, file] = document.querySelectorAll('input[name="map-source"]');
    file.disabled = !corpus.texts.length;
    if (file.disabled) own.checked = true;
    find("#map-file").textContent = corpus.name
      ? `the file: ${corpus.name}`
      : "the file, once there is one under Neighbours";
    if (view === "neighbours" || (view === "map" && chosenSource() === "file")) later();
  },
  onStart: clearAlert,
  onError: setAlert,
});
setUpTabs((tab) => {
  setView(tab.getAttribute("aria-controls"));
  refresh();
});
setUpKeys(
  {
    1: () => find("#tab-similarity").click(),
    2: () => find("#tab-neighbours").click(),
    3: () => find("#tab-map").click(),
    4: () => find("#tab-tokens").click(),
    e: () => find("#texts").focus(),
    x: () => nextExample(),
    c: () => find("#share").click(),
    t: () => find("#theme").click(),
  },
  refresh,
);
setUpKey();
start(readAddress());
