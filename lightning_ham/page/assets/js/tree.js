// The picture of the tree: the path of one descent, the probabilities of its branches, and the leaves.

import { svg } from "./dom.js";

const LEAF_HEIGHT = 40;
const TOP = 14;
/** Below this width of a leaf, in pixels, leaves have no labels but that of the attended one. */
const NARROWEST_LABEL = 15;

/** The curves of all branches of the last tree, which stay the same from step to step. */
const drawn = { width: 0, numLeaves: 0, curves: "" };

/** Draw a step; `labels` has lines of text for each leaf, or null, and `kinds` a class. */
export function drawTree(element, { width, numLeaves, step, labels, kinds, groups }) {
  const layout = new Layout(width, numLeaves);
  element.setAttribute("viewBox", `0 0 ${width} ${layout.height + (groups ? 26 : 0)}`);
  element.replaceChildren(
    svg("path", { class: numLeaves > 64 ? "branches dense" : "branches", d: layout.allBranches() }),
    ...(step ? likelyBranches(layout, step) : []),
    ...(step ? path(layout, step) : []),
    ...leaves(layout, step, labels, kinds),
    ...(groups ? brackets(layout, groups) : []),
  );
}

/** Where nodes are, in pixels. Leaves share the width evenly, as the columns of the map do. */
class Layout {
  constructor(width, numLeaves) {
    this.width = width;
    this.numLeaves = numLeaves;
    this.depth = Math.log2(numLeaves);
    this.slot = width / numLeaves;
    this.hasLabels = this.slot >= NARROWEST_LABEL;
    this.level = this.depth ? Math.min(Math.max(300 / this.depth, 32), 76) : 0;
    this.leafTop = TOP + this.depth * this.level;
    this.height = this.leafTop + LEAF_HEIGHT + 14;
  }

  /** The place of the node at a heap row. */
  place(row) {
    const level = Math.floor(Math.log2(row));
    const span = this.width / 2 ** level;
    return { x: (row - 2 ** level + 0.5) * span, y: TOP + level * this.level };
  }

  /** The curve from a node's parent down to it. */
  branch(row) {
    const from = this.place(row >> 1);
    const to = this.place(row);
    const middle = (from.y + to.y) / 2;
    const round = (number) => Math.round(number * 10) / 10;
    return `M${[from.x, from.y].map(round)}C${[from.x, middle, to.x, middle, to.x, to.y].map(round)}`;
  }

  allBranches() {
    const { width, numLeaves } = this;
    if (drawn.width !== width || drawn.numLeaves !== numLeaves) {
      Object.assign(drawn, { width, numLeaves, curves: this.branches() });
    }
    return drawn.curves;
  }

  branches() {
    return Array.from({ length: 2 * this.numLeaves - 2 }, (_, i) => this.branch(i + 2)).join("");
  }
}

/** The heap rows of a step's path, below the root. */
export function pathRows(numLeaves, leaf) {
  const rows = [];
  for (let row = numLeaves + leaf; row > 1; row >>= 1) rows.unshift(row);
  return rows;
}

/** The probability that a descent reaches each node, by row; null where not all branches are known. */
export function reach(step) {
  if (!step.everywhere) return null;
  const probability = new Float32Array(2 * step.everywhere.length);
  probability[1] = 1;
  for (let row = 2; row < probability.length; row++) {
    const right = step.everywhere[row >> 1];
    probability[row] = probability[row >> 1] * (row & 1 ? right : 1 - right);
  }
  return probability;
}

/** The probability of a step's path. */
export function pathProbability(step) {
  const depth = step.right.length;
  return step.right.reduce((all, right, level) => all * ((step.leaf >> (depth - 1 - level)) & 1 ? right : 1 - right), 1);
}

export function percent(probability) {
  const share = 100 * probability;
  if (share >= 99.95) return "100 %";
  if (share < 0.05) return "0 %";
  return `${share >= 10 && share < 99 ? share.toFixed(0) : share.toFixed(1)} %`;
}

/** Other branches that a sampled descent might have taken, as thick as they are likely. */
function likelyBranches(layout, step) {
  const probability = reach(step);
  if (!probability) return [];
  const onPath = new Set(pathRows(layout.numLeaves, step.leaf));
  return [...probability.keys()]
    .filter((row) => row > 1 && !onPath.has(row) && probability[row] > 0.01)
    .map((row) => svg("path", { class: "likely", d: layout.branch(row), "stroke-width": 0.5 + 3 * probability[row] }));
}

function path(layout, step) {
  const rows = pathRows(layout.numLeaves, step.leaf);
  const branches = rows.map((row, level) =>
    svg("path", { class: "path", d: layout.branch(row), pathLength: 1, style: `animation-delay: ${90 * level}ms` }),
  );
  const nodes = [1, ...rows.slice(0, -1)].map((row) => {
    const { x, y } = layout.place(row);
    return svg("circle", { class: "node", cx: x, cy: y, r: 4.5 });
  });
  return [...branches, ...(layout.depth ? nodes : []), ...chances(layout, step, rows)];
}

/** Probabilities beside the path's branches, and of the branches not taken where there is room. */
function chances(layout, step, rows) {
  return rows.flatMap((row, level) => {
    const right = step.right[level];
    const taken = row & 1 ? right : 1 - right;
    const room = layout.width / 2 ** (level + 1);
    const shown = [chance(layout, row, taken, "chance")];
    if (room > 76) shown.push(chance(layout, row ^ 1, 1 - taken, "chance other"));
    return shown;
  });
}

/** A probability outside of a wide branch, or beside a narrow one, where it stays in the picture. */
function chance(layout, row, probability, kind) {
  const from = layout.place(row >> 1);
  const to = layout.place(row);
  const isNarrow = Math.abs(to.x - from.x) < 30;
  const side = isNarrow ? (to.x < layout.width / 2 ? 1 : -1) : row & 1 ? 1 : -1;
  const x = isNarrow ? to.x + 30 * side : (from.x + to.x) / 2 + 26 * side;
  const y = (from.y + to.y) / 2 + (isNarrow ? 4 : -3);
  const text = svg("text", { class: kind, x: Math.min(Math.max(x, 18), layout.width - 18), y });
  text.textContent = percent(probability);
  return text;
}

function leaves(layout, step, labels, kinds) {
  const drawn = [];
  for (let leaf = 0; leaf < layout.numLeaves; leaf++) {
    const isAttended = step && leaf === step.leaf;
    const { x, y } = layout.place(layout.numLeaves + leaf);
    if (layout.hasLabels) {
      drawn.push(leafBox(x, y, layout.slot, labels[leaf] ?? [], `leaf ${isAttended ? "attended" : kinds[leaf]}`, 0));
    } else if (isAttended) {
      const width = Math.max(2, layout.slot);
      drawn.push(svg("g", { class: "leaf tick" }, svg("rect", { x: x - width / 2, y: y - 2, width, height: 10 })));
      const inside = Math.min(Math.max(x, 24), layout.width - 24);
      drawn.push(leafBox(inside, y + 8, 46, labels[leaf] ?? [], "leaf attended", 46));
    }
  }
  return drawn;
}

/** A leaf with up to two lines of text. */
function leafBox(x, y, slot, lines, kind, leastWidth) {
  const width = Math.max(Math.min(slot - Math.max(2, slot * 0.12), 58), leastWidth);
  const longest = Math.max(1, ...lines.map((line) => line.length));
  const size = Math.min(14, (1.45 * width) / longest);
  const box = svg("rect", { x: x - width / 2, y, width, height: LEAF_HEIGHT, rx: Math.min(9, width / 4) });
  const texts = lines.map((line, i) => {
    const middle = y + LEAF_HEIGHT / 2 + (lines.length === 1 ? 0 : i ? 9 : -8);
    const text = svg("text", { x, y: middle, "font-size": size, "dominant-baseline": "central", opacity: i ? 0.72 : 1 });
    text.textContent = line;
    return text;
  });
  return svg("g", { class: kind }, box, ...texts);
}

/** Names of parts of the instance under their leaves. */
function brackets(layout, groups) {
  let start = 0;
  const y = layout.leafTop + LEAF_HEIGHT + 10;
  return groups.flatMap(([name, count]) => {
    const [left, right] = [start * layout.slot + 4, (start + count) * layout.slot - 4];
    start += count;
    if (!count || right - left < 12) return [];
    const text = svg("text", { class: "group", x: (left + right) / 2, y: y + 17 });
    text.textContent = name;
    return [svg("line", { class: "group-line", x1: left, x2: right, y1: y, y2: y }), ...(right - left > 44 ? [text] : [])];
  });
}
