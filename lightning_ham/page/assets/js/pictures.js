// Pictures on canvases: the map of leaf against step, and the numbers of a leaf.

import { canvas, colour } from "./dom.js";
import { pathProbability, reach } from "./tree.js";

const TALLEST = 420;
const ROW = 18;

/** Return the height of a row of the map, in pixels. */
export function mapRow(length) {
  return Math.min(ROW, TALLEST / Math.max(length, 1));
}

/** Draw where each step went, from the first at the top; leaves have the columns that they have in the tree. */
export function drawMap(element, run, current) {
  const width = element.parentElement.clientWidth;
  const row = mapRow(run.length);
  const column = width / run.capacity;
  const context = canvas(element, width, Math.max(row * run.length, 1));
  const [accent, wrong, line, soft] = ["--accent", "--wrong", "--line", "--soft"].map(colour);
  if (row >= 10) {
    context.fillStyle = line;
    for (let i = 1; i < run.length; i++) context.fillRect(0, i * row - 0.5, width, 1);
  }
  context.fillStyle = soft;
  context.fillRect(0, current * row, width, Math.max(row, 2));
  const [dotWidth, dotHeight] = [Math.max(Math.min(column - 2, 40), 2.5), Math.max(row - 4, 1.6)];
  run.steps.forEach((step, i) => {
    const isWrong = step.output && run.isWrong(step.timestep);
    for (const [leaf, share] of likelyLeaves(step, run.capacity)) {
      const isHere = leaf === step.leaf;
      context.globalAlpha = isHere ? Math.max(share, 0.3) : share;
      context.fillStyle = isHere && isWrong ? wrong : accent;
      const [x, y] = [(leaf + 0.5) * column - dotWidth / 2, (i + 0.5) * row - dotHeight / 2];
      context.beginPath();
      context.roundRect(x, y, dotWidth, dotHeight, Math.min(4, dotWidth / 3, dotHeight / 3));
      context.fill();
      if (isHere && isWrong && row >= 10) cross(context, x + dotWidth / 2, y + dotHeight / 2);
    }
  });
  context.globalAlpha = 1;
  element.setAttribute(
    "aria-label",
    `Map of ${run.steps.length} steps over ${run.capacity} leaves; step ${current + 1} is at leaf ${(run.steps[current]?.leaf ?? 0) + 1}.`,
  );
}

/** Leaves where a sampled descent would end, with their probabilities; in a large tree only where this one ended. */
function likelyLeaves(step, numLeaves) {
  const probability = reach(step);
  if (!probability) return [[step.leaf, pathProbability(step)]];
  const shares = [...probability.subarray(numLeaves)].map((share, leaf) => [leaf, share]);
  return shares.filter(([leaf, share]) => share >= 0.01 || leaf === step.leaf);
}

function cross(context, x, y) {
  context.globalAlpha = 1;
  context.strokeStyle = colour("--surface");
  context.lineWidth = 2;
  context.beginPath();
  context.moveTo(x - 3, y - 3);
  context.lineTo(x + 3, y + 3);
  context.moveTo(x + 3, y - 3);
  context.lineTo(x - 3, y + 3);
  context.stroke();
}

/** Draw numbers as a row of squares: one colour below 0, another above, fainter towards 0; `scale` is full strength. */
export function drawNumbers(element, numbers, scale) {
  const width = element.parentElement.clientWidth;
  const context = canvas(element, width, 18);
  const [low, high, line] = ["--low", "--high", "--line"].map(colour);
  const square = width / numbers.length;
  numbers.forEach((number, i) => {
    const box = [i * square, 0, Math.max(square - 1.5, 1), 18];
    context.globalAlpha = 0.45;
    context.fillStyle = line;
    context.fillRect(...box);
    context.globalAlpha = Math.min(Math.abs(number) / scale, 1);
    context.fillStyle = number < 0 ? low : high;
    context.fillRect(...box);
  });
  const [least, greatest] = [Math.min(...numbers), Math.max(...numbers)].map((number) => number.toFixed(2));
  element.setAttribute("aria-label", `${numbers.length} numbers from ${least} to ${greatest}`);
}
