// The only way that anything gets onto the page: elements with text, never markup.

const SVG = "http://www.w3.org/2000/svg";

export const find = (selector) => document.querySelector(selector);

/** An element; `attributes` may hold `on`: {event: listener}. Children that are strings become text. */
export function element(tag, attributes = {}, ...children) {
  return fill(document.createElement(tag), attributes, children);
}

export function drawing(tag, attributes = {}, ...children) {
  return fill(document.createElementNS(SVG, tag), attributes, children);
}

function fill(node, { on = {}, ...attributes }, children) {
  for (const [name, value] of Object.entries(attributes)) {
    if (value === true) node.setAttribute(name, "");
    else if (value !== false && value !== null && value !== undefined) node.setAttribute(name, value);
  }
  for (const [event, listener] of Object.entries(on)) node.addEventListener(event, listener);
  node.append(...children);
  return node;
}

/** Two decimals without the leading 0, for cells: .83, −.05, 1. */
export function short(cosine) {
  const rounded = cosine.toFixed(2);
  if (rounded === "1.00") return "1";
  return rounded.replace("-0.00", "0.00").replace("0.", ".").replace("-", "−");
}

/** Four decimals, for sentences. */
export const precise = (cosine, digits = 4) => cosine.toFixed(digits).replace("-", "−");

export const signed = (difference) => `${difference < 0 ? "−" : "+"}${Math.abs(difference).toFixed(2)}`;

export const plural = (count, noun) => `${count.toLocaleString("en")} ${noun}${count === 1 ? "" : "s"}`;
