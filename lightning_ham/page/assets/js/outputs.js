// The table of what was put out, beside the right answer and what another network says.

import { html } from "./dom.js";

/** Most timesteps shown at once. */
const WINDOW = 32;

/**
 * Fill the table with the timesteps around the current one.
 *
 * `rows` has `{ title, words, isWrong }`, where `words` gives a text or null for each timestep; timesteps after
 * `current` are faint. `go` is called with the timestep of a column that is clicked.
 */
export function drawOutputs(table, { timesteps, current, rows, go }) {
  const first = Math.floor(current / WINDOW) * WINDOW;
  const shown = Array.from({ length: Math.min(WINDOW, timesteps - first) }, (_, i) => first + i);
  const head = html("tr", {}, html("th", { scope: "row" }, "output"));
  for (const timestep of shown) {
    const button = html("button", { type: "button", "aria-label": `Go to output ${timestep + 1}` }, String(timestep + 1));
    button.addEventListener("click", () => go(timestep));
    head.append(html("th", { scope: "col", class: timestep === current ? "current" : "" }, button));
  }
  const lines = rows.map(({ title, words, isWrong, comesLater }) => {
    const line = html("tr", {}, html("th", { scope: "row" }, title));
    for (const timestep of shown) line.append(entry(words[timestep], isWrong(timestep), timestep, current, comesLater));
    return line;
  });
  table.hidden = !timesteps;
  table.replaceChildren(html("thead", {}, head), html("tbody", {}, ...lines));
  if (timesteps) scrollTo(table.parentElement, head.children[current - first + 1]);
}

/** Scroll the table sideways so that a column is in sight. */
function scrollTo(scroller, column) {
  const heading = column.parentElement.firstElementChild.offsetWidth; // it stays at the left
  const { scrollLeft, clientWidth } = scroller;
  const isSeen = column.offsetLeft - scrollLeft >= heading && column.offsetLeft + column.offsetWidth - scrollLeft <= clientWidth;
  if (!isSeen) scroller.scrollLeft = column.offsetLeft - heading - (clientWidth - heading) / 2;
}

function entry(word, isWrong, timestep, current, comesLater) {
  const kinds = [
    word === null || word === undefined ? "none" : "",
    isWrong ? "wrong" : "",
    timestep === current ? "current" : "",
    comesLater && timestep > current ? "ahead" : "",
  ];
  return html("td", { class: kinds.filter(Boolean).join(" ") }, word ?? "·", ...(isWrong ? [html("span", { class: "hidden" }, " wrong")] : []));
}
