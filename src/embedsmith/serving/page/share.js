// What a link holds, behind its #, which browsers send to nobody: texts, sides, view and the text looked for.

const MOST_CHARACTERS = 30_000; // of texts: longer links are cut by what they are sent through
const FIELDS = ["left", "right", "view", "query"];

/** {texts, left, right, view, query}, each only if the link has it. */
export function readLink(hash) {
  const given = new URLSearchParams(hash.slice(1));
  const found = {};
  for (const name of [...FIELDS, "texts"]) {
    if (given.has(name)) found[name] = given.get(name).slice(0, MOST_CHARACTERS);
  }
  return found;
}

/** The part of the address that `readLink` reads again; null: the texts are too long for a link. */
export function writeLink(state) {
  if (state.texts.length > MOST_CHARACTERS) return null;
  const held = new URLSearchParams();
  for (const name of ["texts", ...FIELDS]) {
    if (state[name]) held.set(name, state[name]);
  }
  return `#${held}`;
}

export const tooLong = (texts) =>
  `The texts have ${texts.length.toLocaleString("en")} characters; a link holds ${MOST_CHARACTERS.toLocaleString("en")}.`;
