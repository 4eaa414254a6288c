// Reading instances as people type them: JSON, or Python's lists and tuples.

/** An instance that does not belong to its task; the message says what was expected and what was found. */
export class InstanceError extends Error {}

/** Return the instance in a text. Whole numbers beyond 15 digits are BigInts. */
export function readInstance(text) {
  if (!text.trim()) throw new InstanceError("Expected an instance, but got nothing.");
  const json = text
    .replace(/'/g, '"')
    .replace(/\(/g, "[")
    .replace(/\)/g, "]")
    .replace(/,(\s*\])/g, "$1")
    .replace(/-?\d{16,}(?![\d.eE])/g, (digits, at, whole) => (/[\d."]/.test(whole[at - 1] ?? "") ? digits : `"#${digits}"`));
  try {
    return JSON.parse(json, (_, value) => (/^#-?\d+$/.test(value) ? BigInt(value.slice(1)) : value));
  } catch (error) {
    const place = /position (\d+)/.exec(error.message);
    const at = place && json.slice(Number(place[1])).trim().slice(0, 20);
    throw new InstanceError(`Expected lists and numbers with commas between them, but ${at ? `could not read on at ${at}` : "the text ends early"}.`);
  }
}

/** Return the text of an instance, such as readInstance takes. */
export function instanceText(instance) {
  if (Array.isArray(instance)) return `[${instance.map(instanceText).join(", ")}]`;
  return typeof instance === "string" ? JSON.stringify(instance) : String(instance);
}
