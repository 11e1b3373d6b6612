import { LARGEST, SMALLEST, sizesOf } from "./geometry.js";
import { times } from "./schedule.js";
import { valueOf } from "./values.js";

/**
 * What a node shows below its widgets.
 *
 * @typedef {object} View
 * @property {string} name
 * @property {string[]} inputs of the node that it depends on
 * @property {number} height in pixels; the style sheet says the same
 * @property {HTMLElement} element
 * @property {(node: object) => void} show brings the element up to date
 */

const SVG = "http://www.w3.org/2000/svg";
const MOST_POINTS = 60; // more would run into one another

/** @returns {View} a line: from the picture's size to the latents' */
export function sizesView() {
  const inputs = ["width", "height"];
  const element = document.createElement("div");
  element.className = "wuerstchen-view wuerstchen-sizes";
  const show = (node) => {
    const [width, height] = inputs.map((name) => valueOf(node, name));
    element.replaceChildren(...sizeWords(width, height).flatMap((word) => [inOneLine(word), " "]));
  };
  return { name: "sizes", inputs, height: 30, element, show };
}

/** @returns {string[]} the line in pieces, between which it may break; each is width × height */
export function sizeWords(width, height) {
  if (width === undefined || height === undefined) return ["The size comes through a wire."];
  const across = sizesOf(width);
  const down = sizesOf(height);
  if (!across || !down) return [`Each side may be ${SMALLEST} to ${LARGEST} px.`];
  return [
    `${width}×${height} →`,
    `canvas ${across.canvas}×${down.canvas} →`,
    `Stage C ${across.stageC}×${down.stageC} →`,
    `Stage B ${across.stageB}×${down.stageB}`,
  ];
}

/** @returns {View} a plot: the time, from 1 at the top to 0, against the step */
export function scheduleView(stage) {
  const inputs = ["steps", "scheduler", "denoise"];
  const element = document.createElement("figure");
  element.className = `wuerstchen-view wuerstchen-schedule ${stage}`;
  const plot = document.createElementNS(SVG, "svg");
  plot.setAttribute("viewBox", "0 0 1 1");
  plot.setAttribute("preserveAspectRatio", "none");
  plot.setAttribute("aria-hidden", "true"); // the caption says it
  const caption = document.createElement("figcaption");
  element.append(plot, caption);
  const show = (node) => {
    const [steps, scheduler, denoise] = inputs.map((name) => valueOf(node, name));
    const walk = times(scheduler, steps, denoise);
    plot.replaceChildren(...curves(walk ?? []));
    const known = ![steps, scheduler, denoise].includes(undefined);
    caption.textContent = known ? scheduleWords(walk) : "The schedule comes through a wire.";
  };
  return { name: "schedule", inputs, height: 72, element, show };
}

/** @param {number[] | null} walk */
export function scheduleWords(walk) {
  if (!walk) return "There is no such schedule.";
  if (walk.length === 0) return "no steps: the latent stays as it is";
  const steps = walk.length - 1;
  return `time ${Number(walk[0].toFixed(2))} → 0 in ${steps} ${steps === 1 ? "step" : "steps"}`;
}

/** @returns {SVGPathElement[]} in a square of side 1 */
function curves(walk) {
  const points = walk.map((time, step) => `${step / (walk.length - 1)} ${1 - time}`);
  const drawn = [path("guides", "M0 0H1M0 1H1")];
  if (points.length > 0) drawn.push(path("curve", `M${points.join("L")}`));
  if (points.length > 0 && points.length <= MOST_POINTS)
    drawn.push(path("points", points.map((point) => `M${point}h0`).join("")));
  return drawn;
}

function path(kind, d) {
  const element = document.createElementNS(SVG, "path");
  element.setAttribute("class", kind);
  element.setAttribute("d", d);
  return element;
}

function inOneLine(text) {
  const element = document.createElement("span");
  element.textContent = text;
  return element;
}
