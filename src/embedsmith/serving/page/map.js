// The texts on the plane in which each side's vectors vary most.

import { cosine } from "./api.js";
import { drawing, element, find, plural, precise } from "./dom.js";
import { mirror, project } from "./pca.js";

export const MOST_POINTS = 2_000;
const MOST_NUMBERED = 40;
const REACH = 40; // of the drawing's 200 units, how far a pointer finds a point

let planes = []; // of what is shown: {svg, marks, places, vectors}
let texts = [];
let pointed = 0; // the text that is pointed at
let shown = ""; // what is there already stays, and so does the focus in it

/** `sides`: [{name, vectors}], one or two, of the same texts. */
export function showMap(sides, given) {
  const isOneScale = find("#one-scale").checked;
  const asked = JSON.stringify([sides.map(({ name }) => name), given, isOneScale]);
  if (asked === shown) return;
  shown = asked;
  texts = given;
  if (texts.length < 3) {
    planes = [];
    find("#maps").replaceChildren(element("p", { class: "empty" }, "Three texts or more make a map."));
    find("#map-readout").replaceChildren();
    return;
  }
  const projected = sides.map(({ vectors }) => project(vectors));
  if (projected.length === 2) projected[1].points = mirror(projected[1].points, projected[0].points);
  const reaches = projected.map(({ points }) => Math.max(...points.flat().map(Math.abs)) || 1);
  planes = sides.map(({ name, vectors }, place) => {
    const reach = isOneScale ? Math.max(...reaches) : reaches[place];
    const places = projected[place].points.map(([x, y]) => [(92 * x) / reach, (-92 * y) / reach]);
    return { name, vectors, places, share: projected[place].share };
  });
  find("#maps").replaceChildren(...planes.map(figure));
  find("#one-scale").onchange = () => showMap(sides, given);
  mark(Math.min(pointed, texts.length - 1));
}

function figure(plane) {
  const isNumbered = texts.length <= MOST_NUMBERED;
  plane.marks = plane.places.map(([x, y], index) =>
    isNumbered
      ? drawing(
          "g",
          { transform: `translate(${x.toFixed(2)} ${y.toFixed(2)})` },
          drawing("circle", { r: 5.5 }),
          drawing("text", { y: 2.1 }, `${index + 1}`),
        )
      : drawing("circle", { cx: x.toFixed(2), cy: y.toFixed(2), r: 1.6 }),
  );
  plane.line = drawing("line");
  plane.svg = drawing(
    "svg",
    {
      viewBox: "-104 -104 208 208",
      tabindex: 0,
      role: "application",
      "aria-roledescription": "map",
      "aria-label": `Map by ${plane.name}: ${plural(texts.length, "text")}. Arrow keys go from text to text.`,
    },
    plane.line,
    ...plane.marks,
  );
  plane.svg.addEventListener("pointermove", (event) => point(plane, event));
  plane.svg.addEventListener("pointerdown", (event) => point(plane, event));
  plane.svg.addEventListener("keydown", move);
  const caption = element(
    "figcaption",
    {},
    element("strong", {}, plane.name),
    element("span", { class: "hint" }, `${Math.round(100 * plane.share)} % of the spread`),
  );
  return element("figure", { class: "map" }, caption, plane.svg);
}

function point(plane, event) {
  const box = plane.svg.getBoundingClientRect();
  const at = [
    208 * ((event.clientX - box.left) / box.width) - 104,
    208 * ((event.clientY - box.top) / box.height) - 104,
  ];
  const distances = plane.places.map(([x, y]) => Math.hypot(x - at[0], y - at[1]));
  const nearest = distances.indexOf(Math.min(...distances));
  if (distances[nearest] <= REACH) mark(nearest);
}

function move(event) {
  const step = { ArrowRight: 1, ArrowDown: 1, ArrowLeft: -1, ArrowUp: -1 }[event.key];
  if (!step || event.altKey || event.ctrlKey || event.metaKey) return;
  event.preventDefault();
  mark((pointed + step + texts.length) % texts.length);
}

/** A text is shown on every map, with a line to the text that is nearest by cosine there. */
function mark(index) {
  pointed = index;
  const said = planes.map((plane) => {
    const nearest = nearestTo(index, plane.vectors);
    for (const one of plane.svg.querySelectorAll(".on, .near")) one.classList.remove("on", "near");
    plane.marks[index].classList.add("on");
    plane.marks[nearest].classList.add("near");
    plane.svg.append(plane.marks[nearest], plane.marks[index]); // in front of the others
    const [[x1, y1], [x2, y2]] = [plane.places[index], plane.places[nearest]];
    for (const [name, value] of Object.entries({ x1, y1, x2, y2 })) plane.line.setAttribute(name, value.toFixed(2));
    const value = precise(cosine(plane.vectors[index], plane.vectors[nearest]), 2);
    return element(
      "p",
      {},
      element("span", { class: "hint" }, `Nearest by ${plane.name}, ${value}: `),
      numbered(nearest),
    );
  });
  find("#map-readout").replaceChildren(element("p", {}, element("strong", {}, numbered(index))), ...said);
}

const numbered = (index) => `${index + 1}. ${texts[index]}`;

function nearestTo(index, vectors) {
  let best = -1;
  let most = -Infinity;
  vectors.forEach((vector, other) => {
    const value = other === index ? -Infinity : cosine(vectors[index], vector);
    if (value > most) [best, most] = [other, value];
  });
  return best;
}
