// A text as each side's model reads it: its tokens, what each is there for, and where the vector is made.

import { tokensOf } from "./api.js";
import { element, find, plural } from "./dom.js";

const POOLINGS = {
  last: "The vector is the last token's state.",
  mean: "The vector is the mean of the marked tokens' states.",
  weighted_mean: "The vector is the mean of the marked tokens' states, later ones weighing more.",
  concat: "The vector is the last token's state beside the mean of the marked ones.",
};

/** `sides`: [{name}]; the text is the one chosen in the list. */
export async function showTokens(sides, texts, signal) {
  const choice = find("#token-text");
  const chosen = Math.min(Math.max(0, choice.selectedIndex), texts.length - 1);
  choice.replaceChildren(...texts.map((text, place) => element("option", { value: place }, `${place + 1}. ${text}`)));
  choice.selectedIndex = chosen;
  choice.onchange = () => showTokens(sides, texts, new AbortController().signal);
  const answers = [];
  for (const { name } of sides) answers.push(await tokensOf(name, texts[chosen], signal));
  if (signal.aborted || choice.selectedIndex !== chosen) return;
  const isSame = answers.length === 2 && alike(answers[0]) === alike(answers[1]);
  const groups = isSame
    ? [[sides.map((side) => side.name).join(" and "), answers[0]]]
    : sides.map(({ name }, place) => [name, answers[place]]);
  find("#token-sides").replaceChildren(...groups.map(([name, answer]) => figure(name, answer, isSame)));
}

const alike = ({ prompt, pooling, texts }) => JSON.stringify([prompt, pooling, texts]);

function figure(name, { prompt, pooling, texts: [{ tokens, is_cut: isCut }] }, isSame) {
  const count = (role) => tokens.filter((token) => token.role === role).length;
  const counts = [
    `${count("text")} of the text`,
    `${count("prompt")} of the prompt`,
    plural(count("start"), "start token"),
    plural(count("end"), "end token"),
  ];
  const said = counts.filter((part) => !part.startsWith("0 ")).join(", ");
  return element(
    "figure",
    {},
    element(
      "figcaption",
      {},
      element("strong", {}, name),
      element("span", { class: "hint" }, isSame ? "cut it alike" : ""),
    ),
    element(
      "p",
      {},
      `${plural(tokens.length, "token")}: ${said}.${isCut ? " The text was longer than the model takes, and was cut." : ""} ${POOLINGS[pooling] ?? "What is pooled is the encoder's own affair."}`,
    ),
    element("ol", { class: "tokens", "aria-label": `Tokens by ${name}` }, ...tokens.map(chip)),
    element(
      "p",
      { class: "hint" },
      prompt === "{text}" ? "There is no prompt." : "Prompt: ",
      prompt === "{text}" ? "" : element("code", {}, prompt),
    ),
  );
}

function chip({ id, token, text, role, is_pooled: isPooled }) {
  const shownText = text.replaceAll(" ", "␣").replaceAll("\n", "⏎").replaceAll("\t", "⇥") || token;
  const kind = role === "start" ? "end" : role;
  const title = `${token}, id ${id}: ${{ start: "start token", end: "end token", prompt: "of the prompt", text: "of the text" }[role]}${isPooled ? ", pooled" : ""}`;
  return element(
    "li",
    { class: `token ${kind}${isPooled ? " pooled" : ""}`, title },
    shownText,
    element("small", {}, `${id}`),
  );
}
