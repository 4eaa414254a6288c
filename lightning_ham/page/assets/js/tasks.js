// The tasks: for each the form of its instances and their checks, cells, right answers, samples and words.
//
// A task's outputs are described a timestep at a time. `rightWords` gives what a right network puts out, null where
// nothing is scored; `word` gives what output bits say in the same words, so both can be compared.

import { readInstance, InstanceError } from "./instance.js";

export { InstanceError };

const END = "end";
const VALUES = 32;
const NUMBERS = 1024;

/** Return the task of this name. */
export function getTask(name) {
  const task = TASKS[name];
  if (!task) throw new Error(`Expected one of the tasks ${Object.keys(TASKS).join(", ")}, but got ${name}.`);
  return task;
}

function mismatch(expected, got, place = "") {
  return new InstanceError(`Expected ${expected}, but got ${got}${place ? ` (${place})` : ""}.`);
}

/** Say a wrong value in few words. */
function said(value) {
  if (typeof value === "bigint") return String(value);
  if (Array.isArray(value) && value.length === 0) return "an empty list";
  const text = JSON.stringify(value, (_, part) => (typeof part === "bigint" ? String(part) : part));
  return text.length > 60 ? `${text.slice(0, 57)}...` : text;
}

function expectList(candidate, elements, place = "", mayBeEmpty = false) {
  if (!Array.isArray(candidate)) throw mismatch(`a list of ${elements}`, said(candidate), place);
  if (!candidate.length && !mayBeEmpty) throw mismatch(`a list of ${elements}`, "an empty one", place);
  return candidate;
}

function expectTwo(candidate, wanted, place = "") {
  if (!Array.isArray(candidate)) throw mismatch(wanted, said(candidate), place);
  if (candidate.length !== 2) throw mismatch(wanted, `${candidate.length} elements`, place);
  return candidate;
}

function expectInteger(candidate, elements, place, limit) {
  const isInteger = typeof candidate === "bigint" || Number.isInteger(candidate);
  if (!isInteger) throw mismatch(`${elements} that are integers`, said(candidate), place);
  if (candidate < 0 || (limit !== undefined && candidate >= limit)) {
    throw mismatch(`${elements} ${limit === undefined ? "of at least 0" : `from 0 to ${limit - 1}`}`, said(candidate), place);
  }
}

function expectPair(candidate, place) {
  const [key, value] = expectTwo(candidate, "a (key, value) pair", place);
  expectInteger(value, "values", place, VALUES);
  expectInteger(key, "keys", place, VALUES);
  return key;
}

/** Bits of an integer, most significant first. */
function toBits(integer, count) {
  return Array.from({ length: count }, (_, i) => (integer >> (count - 1 - i)) & 1);
}

/** The integer of bits, most significant first. */
function fromBits(bits) {
  return bits.reduce((number, bit) => 2 * number + bit, 0);
}

function cell(...numbers) {
  return Float32Array.from(numbers.flat());
}

function below(random, limit) {
  return Math.floor(random() * limit);
}

function listOf(length, make) {
  return Array.from({ length }, (_, i) => make(i));
}

/** The numbers below 32 in a random order. */
function shuffledNumbers(random) {
  const numbers = listOf(VALUES, (i) => i);
  for (let i = VALUES - 1; i > 0; i--) {
    const j = below(random, i + 1);
    [numbers[i], numbers[j]] = [numbers[j], numbers[i]];
  }
  return numbers;
}

function pairWord(pair) {
  return pair.join(", ");
}

/** What sequence tasks share: an output symbol for every cell, then an end flag. */
const sequence = {
  minLength: 1,
  /** Most bits of an output that are no symbol: hints, after the symbol. */
  silentTimesteps: 0,
  predictsEnd: true,
  isStructure: false,
  read: readInstance,
  length: (instance) => instance.length,
  size(length) {
    return `${length} ${length === 1 ? this.unit.slice(0, -1) : this.unit}`;
  },
  symbols: (length) => length,
  timesteps(length) {
    return this.silentTimesteps + this.symbols(length) + (this.predictsEnd ? 1 : 0);
  },
  /** What the bits of the output at a timestep say. */
  word(bits) {
    return this.predictsEnd && bits.at(-1) ? END : this.symbolWord(bits.slice(0, this.symbolBits));
  },
  /** What a right network says at each timestep of an instance; null where nothing is scored. */
  rightWords(instance) {
    return [...this.oracle(instance).map((symbol) => this.answerWord(symbol)), END];
  },
  answerWord: String,
  symbolWord(bits) {
    return this.answerWord(this.symbol(bits));
  },
  /** The answer in the output bits of all timesteps. */
  decode(outputs) {
    const end = outputs.findIndex((bits) => bits.at(-1));
    return (end < 0 ? outputs : outputs.slice(0, end)).map((bits) => this.symbol(bits.slice(0, this.symbolBits)));
  },
};

const reverse = {
  ...sequence,
  title: "Reverse",
  purpose: "Put out the numbers in reverse order.",
  form: "numbers from 0 to 1023",
  example: "[7, 1000, 42, 512, 3, 88]",
  unit: "numbers",
  symbolBits: 10,
  check: (instance) =>
    expectList(instance, "integers").forEach((number, i) => expectInteger(number, "numbers", `number ${i + 1}`, NUMBERS)),
  oracle: (instance) => [...instance].reverse(),
  cells: (instance) => instance.map((number) => cell(toBits(number, 10))),
  symbol: fromBits,
  labels: (instance) => instance.map((number) => [String(number)]),
  sample: (length, random) => listOf(length, () => below(random, NUMBERS)),
};

const sort = {
  ...sequence,
  title: "Sort",
  purpose: "Put out the pairs sorted by key; pairs of equal keys keep their order.",
  form: "(key, value) pairs of numbers from 0 to 31",
  example: "[[9, 4], [2, 7], [9, 1], [0, 7], [30, 2], [14, 5], [2, 12]]",
  unit: "pairs",
  symbolBits: 10,
  check: (instance) => expectList(instance, "pairs").forEach((pair, i) => expectPair(pair, `pair ${i + 1}`)),
  oracle: (instance) => [...instance].sort(([first], [second]) => first - second),
  cells: (instance) => instance.map(([key, value]) => cell(toBits(key * VALUES + value, 10))),
  symbol: (bits) => [fromBits(bits.slice(0, 5)), fromBits(bits.slice(5))],
  answerWord: pairWord,
  labels: (instance) => instance.map((pair) => pair.map(String)),
  sample: (length, random) => listOf(length, () => [below(random, VALUES), below(random, VALUES)]),
};

const merge = {
  ...sequence,
  title: "Merge",
  purpose: "Merge two sequences that are sorted by priority, and put out the values.",
  form: "two lists of (priority, value) pairs, each sorted; priorities above 0 and up to 1, values from 0 to 31",
  example: "[[[0.12, 7], [0.34, 21], [0.55, 3], [0.71, 18], [0.93, 9]], [[0.21, 30], [0.46, 12], [0.88, 5]]]",
  unit: "pairs",
  symbolBits: 5,
  length: ([first, second]) => first.length + second.length,
  check(instance) {
    const places = new Map();
    const ordinals = ["first", "second"];
    expectTwo(instance, "two lists of (priority, value) pairs").forEach((pairs, flag) => {
      let previous = 0;
      expectList(pairs, "pairs", `${ordinals[flag]} sequence`, true).forEach((pair, i) => {
        const place = `pair ${i + 1} of the ${ordinals[flag]} sequence`;
        const [priority, value] = expectTwo(pair, "a (priority, value) pair", place);
        expectInteger(value, "values", place, VALUES);
        if (typeof priority !== "number") throw mismatch("priorities that are numbers", said(priority), place);
        const stored = Math.fround(priority);
        if (!(priority <= 1 && stored > 0)) throw mismatch("priorities above 0 and up to 1", said(priority), place);
        if (places.has(stored)) {
          const both = `${places.get(stored)}, ${place}`;
          throw mismatch("priorities that differ as 32-bit numbers", `${said(priority)} twice`, both);
        }
        if (stored < previous) throw mismatch("priorities that ascend", `${said(priority)} after a larger one`, place);
        places.set(stored, place);
        previous = stored;
      });
    });
    if (!places.size) throw mismatch("at least one pair", "two empty sequences");
  },
  oracle: ([first, second]) => [...first, ...second].sort(([one], [other]) => one - other).map(([, value]) => value),
  cells: (instance) =>
    instance.flatMap((pairs, flag) => pairs.map(([priority, value]) => cell(priority, toBits(value, 5), flag))),
  symbol: fromBits,
  labels: (instance) => instance.flatMap((pairs) => pairs.map((pair) => pair.map((number) => String(number).replace(/^0\./, ".")))),
  groups: ([first, second]) => [["first", first.length], ["second", second.length]],
  sample(length, random) {
    const steps = 10 ** Math.max(2, Math.ceil(Math.log10(8 * length)));
    const chosen = new Set();
    while (chosen.size < length) chosen.add(1 + below(random, steps));
    const sorted = [...chosen].sort((one, other) => one - other);
    const share = below(random, length + 1) / length;
    const lists = [[], []];
    for (const step of sorted) lists[random() < share ? 0 : 1].push([step / steps, below(random, VALUES)]);
    return lists;
  },
};

const search = {
  ...sequence,
  title: "Search",
  purpose: "Find the value of the first pair with the key asked for, in two descents: one reads the question, one answers.",
  form: "(key, value) pairs of numbers from 0 to 31, sorted by key, then one of the keys",
  example: "[[[2, 7], [9, 4], [9, 1], [14, 30], [21, 8], [26, 3], [30, 7]], 21]",
  unit: "pairs",
  minLength: 2,
  silentTimesteps: 1,
  predictsEnd: false,
  symbolBits: 5,
  length: ([pairs]) => pairs.length + 1,
  size: (length) => `${length - 1} pairs`,
  symbols: () => 1,
  check(instance) {
    const [pairs, query] = expectTwo(instance, "a list of (key, value) pairs and a query");
    const keys = [];
    expectList(pairs, "pairs").forEach((pair, i) => {
      const key = expectPair(pair, `pair ${i + 1}`);
      if (key < keys.at(-1)) throw mismatch("pairs sorted by key", `key ${key} after ${keys.at(-1)}`, `pair ${i + 1}`);
      keys.push(key);
    });
    expectInteger(query, "keys", "query", VALUES);
    if (!keys.includes(query)) throw mismatch("a query that is one of the keys", said(query));
  },
  oracle: ([pairs, query]) => pairs.find(([key]) => key === query)[1],
  cells: ([pairs, query]) => [...pairs, [query, 0]].map(([key, value]) => cell(toBits(key * VALUES + value, 10))),
  rightWords(instance) {
    return [null, String(this.oracle(instance))];
  },
  symbol: fromBits,
  decode(outputs) {
    return fromBits(outputs[1].slice(0, this.symbolBits));
  },
  labels: ([pairs, query]) => [...pairs.map((pair) => pair.map(String)), [`${query}?`]],
  sample(length, random) {
    const pairs = listOf(length - 1, () => [below(random, VALUES), below(random, VALUES)]);
    pairs.sort(([first], [second]) => first - second);
    return [pairs, pairs[below(random, pairs.length)][0]];
  },
};

/** Binary digits of a number, least significant first. */
function digits(number, count) {
  return listOf(count, (place) => Number((BigInt(number) >> BigInt(place)) & 1n));
}

function digitsNeeded(instance) {
  return Math.max(...instance.map((number) => (number ? BigInt(number).toString(2).length : 1)));
}

/** An integer as a number if that is exact. */
function plain(integer) {
  return integer <= BigInt(Number.MAX_SAFE_INTEGER) ? Number(integer) : integer;
}

const add = {
  ...sequence,
  title: "Add",
  purpose: "Add two numbers in binary, the lowest digit first. Two descents read the two digits of a place.",
  form: "two whole numbers from 0, of any size",
  example: "[6, 3]",
  unit: "bits",
  minLength: 4,
  symbolBits: 1,
  length: (instance) => 2 * digitsNeeded(instance) + 2,
  size: (length) => `numbers of ${length / 2 - 1} bits`,
  symbols: (length) => length / 2,
  read: (text) => readInstance(/^\s*\d+\s*\+\s*\d+\s*$/.test(text) ? `[${text.replace("+", ",")}]` : text),
  check: (instance) =>
    expectTwo(instance, "two integers").forEach((number, i) => expectInteger(number, "numbers", `${["first", "second"][i]} number`)),
  oracle: ([first, second]) => plain(BigInt(first) + BigInt(second)),
  rightWords(instance) {
    return [...digits(this.oracle(instance), digitsNeeded(instance) + 1).map(String), END];
  },
  cells(instance) {
    const count = digitsNeeded(instance);
    const [first, second] = instance.map((number) => digits(number, count).map((digit) => cell(digit, 0, 0)));
    return [...first, cell(0, 1, 0), ...second, cell(0, 0, 1)];
  },
  symbol: ([digit]) => digit,
  decode(outputs) {
    return plain(sequence.decode.call(this, outputs).reduce((sum, digit, place) => sum + (BigInt(digit) << BigInt(place)), 0n));
  },
  labels(instance) {
    const [first, second] = instance.map((number) => digits(number, digitsNeeded(instance)).map((digit) => [String(digit)]));
    return [...first, ["+"], ...second, ["="]];
  },
  sample(length, random) {
    const count = Math.floor(length / 2) - 1;
    const draw = () => plain(BigInt(`0b${listOf(count, (i) => (i === 0 ? 1 : below(random, 2))).join("")}`));
    return [draw(), draw()];
  },
};

/** What stack, queue and priority queue share: an operation a timestep; only pops are scored. */
const structure = {
  ...sequence,
  isStructure: true,
  operands: ["value"],
  unit: "operations",
  predictsEnd: false,
  symbolBits: 5,
  form: "operations: [\"push\", value] with values from 0 to 31, or [\"pop\"]",
  example: '[["push", 7], ["push", 30], ["pop"], ["push", 2], ["push", 19], ["pop"], ["pop"], ["pop"]]',
  checkOperation(operation, place) {
    const wanted = `["pop"] or ["push", ${this.operands.join(", ")}]`;
    if (!Array.isArray(operation)) throw mismatch(wanted, said(operation), place);
    const [name, ...operands] = operation;
    if (name === "pop" && !operands.length) return true;
    if (name !== "push" || operands.length !== this.operands.length) throw mismatch(wanted, said(operation), place);
    operands.forEach((operand, i) =>
      expectInteger(operand, { value: "values", priority: "priorities" }[this.operands[i]], place, VALUES),
    );
    return false;
  },
  check(instance) {
    let size = 0;
    expectList(instance, "operations").forEach((operation, i) => {
      size += this.checkOperation(operation, `operation ${i + 1}`) ? -1 : 1;
      if (size < 0) throw mismatch("something to pop", `an empty ${this.title.toLowerCase()}`, `operation ${i + 1}`);
    });
  },
  /** What is inside before each operation and after the last, in the order in which it would be popped. */
  contents(instance) {
    const inside = [];
    return [
      [],
      ...instance.map(([name, ...operands]) => {
        if (name === "pop") inside.shift();
        else this.insert(inside, operands);
        return [...inside];
      }),
    ];
  },
  /** The values popped. */
  oracle(instance) {
    const contents = this.contents(instance);
    return instance.flatMap(([name], i) => (name === "pop" ? [contents[i][0].at(-1)] : []));
  },
  rightWords(instance) {
    const contents = this.contents(instance);
    return instance.map(([name], i) => (name === "pop" ? String(contents[i][0].at(-1)) : null));
  },
  cells(instance) {
    const bits = 5 * this.operands.length;
    return instance.map(([name, ...operands]) =>
      cell(name === "pop" ? 1 : 0, toBits(operands.reduce((number, operand) => number * VALUES + operand, 0), bits)),
    );
  },
  symbol: fromBits,
  decode(outputs, instance) {
    return instance.flatMap(([name], i) => (name === "pop" ? [fromBits(outputs[i].slice(0, this.symbolBits))] : []));
  },
  labels: () => [],
  sample(length, random) {
    let size = 0;
    let shuffled = [];
    return listOf(length, (i) => {
      if (i % VALUES === 0) shuffled = shuffledNumbers(random); // priorities differ in every 32 operations
      const isPop = size > 0 && random() < (i + 1) / length;
      size += isPop ? -1 : 1;
      return isPop ? ["pop"] : ["push", ...this.sampleOperands(random, shuffled[i % VALUES])];
    });
  },
  sampleOperands: (random) => [below(random, VALUES)],
  /** Words for what a leaf holds, by the network's own output layer; null if it holds nothing to pop. */
  content: (bits) => (bits.at(-1) ? [String(fromBits(bits.slice(0, 5)))] : null),
};

const stack = {
  ...structure,
  title: "Stack",
  purpose: "Pop what was pushed last.",
  insert: (inside, operands) => inside.unshift(operands),
};

const queue = {
  ...structure,
  title: "Queue",
  purpose: "Pop what was pushed first.",
  insert: (inside, operands) => inside.push(operands),
};

const priorityQueue = {
  ...structure,
  title: "Priority queue",
  purpose: "Pop the value of the least priority; of equal ones, the least value.",
  operands: ["priority", "value"],
  form: "operations: [\"push\", priority, value] with numbers from 0 to 31, or [\"pop\"]",
  example: '[["push", 9, 4], ["push", 2, 7], ["push", 21, 3], ["pop"], ["push", 5, 30], ["pop"], ["pop"], ["pop"]]',
  insert(inside, [priority, value]) {
    const place = inside.findIndex(([other, beside]) => other > priority || (other === priority && beside > value));
    inside.splice(place < 0 ? inside.length : place, 0, [priority, value]);
  },
  sampleOperands: (random, priority) => [priority, below(random, VALUES)],
  content: (bits) => (bits.at(-1) ? [fromBits(bits.slice(5, 10)), fromBits(bits.slice(0, 5))].map(String) : null),
};

const TASKS = { sort, merge, reverse, search, add, stack, queue, priority_queue: priorityQueue };
