// Making elements, and reading colours of the style sheet.

const SVG = "http://www.w3.org/2000/svg";

/** Return an element of SVG. */
export function svg(name, attributes = {}, ...children) {
  return filled(document.createElementNS(SVG, name), attributes, children);
}

/** Return an element of HTML; children may be texts. */
export function html(name, attributes = {}, ...children) {
  return filled(document.createElement(name), attributes, children);
}

function filled(element, attributes, children) {
  for (const [name, value] of Object.entries(attributes)) element.setAttribute(name, value);
  element.append(...children);
  return element;
}

/** Return a colour of the style sheet, such as `--accent`, as it is in the present theme. */
export function colour(name) {
  const probe = html("i", { style: `color: var(${name}); display: none` });
  document.body.append(probe);
  const found = getComputedStyle(probe).color;
  probe.remove();
  return found;
}

/** Return a canvas's context for pixels of CSS, after setting its size in them. */
export function canvas(element, width, height) {
  const scale = globalThis.devicePixelRatio || 1;
  element.width = Math.round(width * scale);
  element.height = Math.round(height * scale);
  element.style.height = `${height}px`;
  const context = element.getContext("2d");
  context.scale(scale, scale);
  return context;
}
