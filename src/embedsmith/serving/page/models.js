// The models that the server has, and which two are looked at.

import { listModels } from "./api.js";
import { element, find } from "./dom.js";

export let models = []; // [{id, dimensions, max_tokens, parent}]

export async function loadModels() {
  models = await listModels();
}

/** The names of the two, or of the only one. */
export const sides = () => (models.length > 1 ? [find("#left").value, find("#right").value] : [models[0].id]);

/**
 * Take the sides of a link where they are served, else the model called base and another, else a model and what it was
 * tuned from, else the first two.
 *
 * Returns what must be said of it.
 */
export function chooseSides({ left, right }) {
  const names = models.map((model) => model.id);
  const asked = [left, right];
  const usual = usualSides(names);
  ["#left", "#right"].forEach((side, place) => {
    find(side).replaceChildren(...names.map((name) => element("option", { value: name }, name)));
    find(side).value = names.includes(asked[place]) ? asked[place] : usual[place];
  });
  for (const part of find(".sides").children) part.hidden = names.length === 1 && part.id !== "status";
  const said = asked
    .filter((name) => name && !names.includes(name))
    .map((name) => `The link shows ${name}, which is not served here.`);
  if (names.length === 1) {
    said.push(
      "One model is served. To see two side by side, start the server with both: " +
        "embedsmith serve tuned=runs/mine base=smollm2-135m",
    );
  }
  return said;
}

function usualSides(names) {
  if (names.includes("base") && names.length > 1) return ["base", names.find((name) => name !== "base")];
  const tuned = models.find((model) => names.includes(model.parent));
  if (tuned) return [tuned.parent, tuned.id];
  const [first, second = first] = names;
  return [second, first];
}
