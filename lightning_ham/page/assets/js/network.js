// The networks: Hierarchical Attentive Memory (arXiv 1602.03218) and the LSTMs it is compared with.
//
// Arithmetic is that of lightning_ham in 32-bit floats: sums are made in double precision, and every number that is
// kept is rounded to 32 bits. Nodes are in heap order: row 1 is the root, the children of row e are 2e (left) and
// 2e + 1 (right), and leaf i of a tree with n leaves is row n + i.

import { rounded, sigmoid, Linear, perceptron } from "./layers.js";

const FINEST_DIFFERENCE = Math.fround(1e-7);
/** Trees of at most this many leaves tell the probability of every branch, not only of those on the path. */
const MOST_LEAVES_WITH_ALL_BRANCHES = 64;

/** The smallest power of two that is at least `length`. */
export function capacityFor(length) {
  let capacity = 1;
  while (capacity < length) capacity *= 2;
  return capacity;
}

/** Return the network of an exported model, as `python -m lightning_ham.export MODEL --format json` writes it. */
export function makeNetwork(model) {
  if (model.format !== 1) throw new Error(`Expected a model of format 1, but got ${model.format}; export it again.`);
  const Network = networkClass(model);
  return new Network(readWeights(model.weights), model.config.controller_options);
}

/** Return whether an exported model has a memory. */
export function hasMemory(model) {
  return networkClass(model).hasMemory;
}

function networkClass({ config }) {
  const networks = { lstm_ham: LstmHam, raw_ham: RawHam, lstm: EncoderDecoder, lstm_attention: AttentionEncoderDecoder };
  const Network = networks[config.controller];
  if (Network) return Network;
  const known = Object.keys(networks).join(", ");
  throw new Error(`Expected a model with one of the controllers ${known}, but got ${config.controller}.`);
}

/** Return the weights by name, without the common prefix: `{ shape, data: Float32Array }`. */
function readWeights(weights) {
  const read = {};
  for (const [name, { shape, data }] of Object.entries(weights)) {
    const bytes = Uint8Array.from(atob(data), (char) => char.charCodeAt(0));
    const numbers = new Float32Array(bytes.buffer); // little-endian, as every machine with a browser is today
    if (numbers.length !== shape.reduce((product, size) => product * size, 1)) {
      throw new Error(`Expected ${shape.join(" x ")} numbers in weight ${name}, but got ${numbers.length}.`);
    }
    read[name.replace(/^controller\./, "")] = { shape, data: numbers };
  }
  return read;
}

/** EMBED, JOIN, SEARCH and WRITE. */
class Memory {
  constructor(weights, options) {
    const layer = (name) => new Linear(weights, `memory.${name}`);
    this.blank = weights["memory.embed.blank"].data;
    this.size = this.blank.length;
    this.reals = options.real_inputs ?? 0;
    this.grid = options.grid ?? null;
    this.kind = options.join;
    this.embedding = perceptron(weights, "memory.embed.mlp");
    this.joinHidden = layer(this.kind === "mlp" ? "join.mlp.0" : "join.hidden");
    this.joinOut = layer(this.kind === "mlp" ? "join.mlp.2" : "join.out");
    this.sharpness = Math.fround(Math.sqrt(this.size));
    this.searchNode = layer("search.node");
    this.searchQuery = layer("search.query");
    this.searchOut = layer("search.out");
    this.writeLeaf = layer("write_leaf.leaf");
    this.writeQuery = layer("write_leaf.query");
    this.pair = new Float32Array(2 * this.size + 2 * this.reals);
  }

  /** Round numbers of a node to the grid, from `first` on; halves to even multiples. */
  round(node, first) {
    if (this.grid === null) return;
    for (let i = first; i < node.length; i++) node[i] = roundHalfToEven(node[i] / this.grid) * this.grid;
  }

  /** Return the leaf of a cell; a blank leaf for null. */
  embed(cell) {
    const leaf = new Float32Array(this.size);
    if (cell === null) {
      leaf.set(this.blank);
    } else {
      for (let i = 0; i < this.reals; i++) leaf[i] = leaf[this.reals + i] = rounded(rounded(cell[i]) - 0.5);
      leaf.set(this.embedding(cell.subarray(this.reals)), 2 * this.reals);
    }
    this.round(leaf, 2 * this.reals);
    return leaf;
  }

  /** Set `parent` to JOIN of the children. */
  join(left, right, parent) {
    const { pair, size } = this;
    const reals = 2 * this.reals;
    pair.set(left);
    pair.set(right, size);
    for (let i = 0; i < reals; i++) {
      pair[2 * size + i] = Math.asinh(rounded(rounded(left[i] - right[i]) / FINEST_DIFFERENCE)) / 2;
    }
    const out = this.joinOut.apply(this.joinHidden.apply(pair, true));
    if (this.kind === "mlp") {
      for (let i = 0; i < size; i++) parent[i] = Math.tanh(out[i]);
    } else {
      const shared = this.kind === "choice";
      const rest = shared ? 1 : size; // where the gates of the second mixture begin
      const side = shared ? sigmoid(rounded(this.sharpness * out[0])) : 0;
      for (let i = 0; i < size; i++) {
        const chosen = mixed(left[i], right[i], shared ? side : sigmoid(out[i]));
        parent[i] = mixed(chosen, rounded(Math.tanh(out[rest + size + i])), sigmoid(out[rest + i]));
      }
    }
    this.round(parent, 0);
    for (let i = 0; i < this.reals; i++) parent[i] = Math.min(left[i], right[i]);
    for (let i = this.reals; i < reals; i++) parent[i] = Math.max(left[i], right[i]);
  }

  /** Return the leaf that WRITE makes of `leaf`. */
  write(leaf, query) {
    const { size } = this;
    const gates = this.writeLeaf.apply(leaf);
    const controlled = this.writeQuery.apply(query);
    const written = new Float32Array(size);
    for (let i = 0; i < size; i++) {
      const gate = sigmoid(rounded(gates[i] + controlled[i]));
      written[i] = mixed(leaf[i], rounded(Math.tanh(rounded(gates[size + i] + controlled[size + i]))), gate);
    }
    this.round(written, 2 * this.reals);
    return written;
  }

  /** Return the logit of going right at a node, given the query's part of SEARCH's hidden layer. */
  search(node, ofQuery) {
    const hidden = this.searchNode.apply(node);
    for (let i = 0; i < hidden.length; i++) hidden[i] = Math.max(rounded(hidden[i] + ofQuery[i]), 0);
    return this.searchOut.apply(hidden)[0];
  }
}

/** The state of a memory: a full binary tree. */
class Tree {
  /** `leaves`: one leaf each, or one leaf and `count` for that many copies of it. */
  constructor(memory, leaves, count = leaves.length) {
    this.memory = memory;
    this.numLeaves = count;
    this.depth = Math.log2(count);
    this.nodes = new Float32Array(2 * count * memory.size);
    for (let i = 0; i < count; i++) this.node(count + i).set(leaves[i] ?? leaves[0]);
    for (let row = count - 1; row >= 1; row--) this.join(row);
  }

  node(row) {
    return this.nodes.subarray(row * this.memory.size, (row + 1) * this.memory.size);
  }

  join(row) {
    this.memory.join(this.node(2 * row), this.node(2 * row + 1), this.node(row));
  }

  /** Descend to a leaf: its index, the value read, and the probability of going right at each level. */
  attend(query) {
    const ofQuery = this.memory.searchQuery.apply(query).slice();
    const right = new Float32Array(this.depth);
    let row = 1;
    for (let level = 0; level < this.depth; level++) {
      const logit = this.memory.search(this.node(row), ofQuery);
      right[level] = sigmoid(logit);
      row = 2 * row + (logit > 0 ? 1 : 0);
    }
    const leaf = row - this.numLeaves;
    return { leaf, right, everywhere: this.everywhere(ofQuery), read: this.node(row).slice() };
  }

  /** Return the probability of going right at every inner node, by row; null for large trees. */
  everywhere(ofQuery) {
    if (this.numLeaves > MOST_LEAVES_WITH_ALL_BRANCHES) return null;
    const search = (row) => sigmoid(this.memory.search(this.node(row), ofQuery));
    return Float32Array.from({ length: this.numLeaves }, (_, row) => (row === 0 ? 0 : search(row)));
  }

  /** Put a value into a leaf, and join its ancestors again. */
  put(leaf, value) {
    let row = this.numLeaves + leaf;
    this.node(row).set(value);
    for (row >>= 1; row >= 1; row >>= 1) this.join(row);
  }
}

/** An LSTM whose only input is what it reads from a memory that was filled with the whole input. */
class LstmHam {
  static hasMemory = true;

  constructor(weights, options) {
    this.memory = new Memory(weights, options);
    this.cell = new LstmCell(weights, "lstm");
    this.head = new Linear(weights, "head");
    this.accesses = options.accesses_per_output;
    this.readout = options.readout;
  }

  /** Yield an access at a time; the last before an output has the logits of its bits, `output`. */
  *run(cells, capacity, timesteps) {
    const leaves = Array.from({ length: capacity }, (_, i) => this.memory.embed(cells[i] ?? null));
    const tree = new Tree(this.memory, leaves);
    let hidden = new Float32Array(this.cell.size);
    let state = new Float32Array(this.cell.size);
    for (let timestep = 0; timestep < timesteps; timestep++) {
      for (let access = 1; access <= this.accesses; access++) {
        const attended = tree.attend(hidden);
        [hidden, state] = this.cell.step(attended.read, hidden, state);
        const written = this.memory.write(attended.read, hidden);
        tree.put(attended.leaf, written);
        const output = access === this.accesses ? this.output(hidden, attended.read) : null;
        yield { timestep, ...attended, written, output };
      }
    }
  }

  output(hidden, read) {
    const seen = { state: [hidden], read: [read], state_and_read: [hidden, read] }[this.readout];
    return this.head.apply(Float32Array.from(seen.flatMap((part) => [...part]))).slice();
  }
}

/** A memory as a data structure: blank at first, one operation a timestep. */
class RawHam {
  static hasMemory = true;
  accesses = 1;

  constructor(weights, options) {
    this.memory = new Memory(weights, options);
    this.head = perceptron(weights, "head");
    this.stateBits = options.state_bits;
  }

  /** Yield an access for each operation; `cells` may grow meanwhile, up to the capacity. */
  *run(cells, capacity, timesteps) {
    const tree = new Tree(this.memory, [this.memory.embed(null)], capacity);
    for (let timestep = 0; timestep < Math.min(timesteps, capacity); timestep++) {
      const query = this.memory.embed(cells[timestep]);
      const attended = tree.attend(query);
      const written = this.memory.write(attended.read, query);
      tree.put(attended.leaf, written);
      yield { timestep, ...attended, written, ...this.output(attended.read, written) };
    }
  }

  /** Return the output's logits, and `content`: those of what the leaf holds after the write. */
  output(read, written) {
    const found = this.head(read);
    const left = this.head(written);
    const first = found.length - this.stateBits;
    const states = Array.from({ length: this.stateBits }, (_, i) => [found[first + i], left[first + i]]);
    return { output: Float32Array.from([...found.subarray(0, first), ...states.flat()]), content: left };
  }
}

/** One LSTM reads the cells, and another one, which starts in its state, writes the output. No memory. */
class EncoderDecoder {
  static hasMemory = false;
  accesses = 0;

  constructor(weights, options) {
    this.encoder = lstmLayers(weights, "encoder", options.num_layers);
    this.decoder = lstmLayers(weights, "decoder", options.num_layers);
    this.head = new Linear(weights, "head");
  }

  /** Yield null while reading, then an output at a time. */
  *run(cells, capacity, timesteps) {
    let inputs = cells;
    const states = [];
    for (const layer of this.encoder) {
      const pass = read(layer, inputs);
      const { outputs, last } = yield* pass;
      inputs = outputs;
      states.push(last);
    }
    const seen = states.at(-1)[0];
    for (let timestep = 0; timestep < timesteps; timestep++) {
      yield { timestep, output: this.head.apply(advance(this.decoder, states, seen)).slice() };
    }
  }
}

/** LSTM+A: an LSTM reads the cells in both directions; another one attends to all of them for every output. No tree. */
class AttentionEncoderDecoder {
  static hasMemory = false;
  accesses = 0;

  constructor(weights, options) {
    this.encoder = lstmLayers(weights, "encoder", options.num_layers);
    this.backward = lstmLayers(weights, "encoder", options.num_layers, "_reverse");
    this.start = new Linear(weights, "start");
    this.query = new Linear(weights, "attention.query");
    this.key = new Linear(weights, "attention.key");
    this.score = new Linear(weights, "attention.score");
    this.decoder = lstmLayers(weights, "decoder", options.num_layers);
    this.head = new Linear(weights, "head");
  }

  /** Yield null while reading, then an output at a time. */
  *run(cells, capacity, timesteps) {
    let annotations = cells;
    let last = null;
    for (let layer = 0; layer < this.encoder.length; layer++) {
      const forward = yield* read(this.encoder[layer], annotations);
      const backward = yield* read(this.backward[layer], [...annotations].reverse());
      backward.outputs.reverse();
      annotations = forward.outputs.map((output, i) => joined(output, backward.outputs[i]));
      last = backward.last[0];
    }
    const keys = annotations.map((annotation) => this.key.apply(annotation).slice());
    const first = this.start.apply(last).map(Math.tanh);
    const states = this.decoder.map(({ size }, i) => [first.slice(i * size, (i + 1) * size), new Float32Array(size)]);
    for (let timestep = 0; timestep < timesteps; timestep++) {
      const context = this.attend(states.at(-1)[0], keys, annotations);
      const hidden = advance(this.decoder, states, context);
      yield { timestep, output: this.head.apply(joined(hidden, context)).slice() };
    }
  }

  /** Return the mean of the annotations, weighted by the softmax of their scores. */
  attend(state, keys, annotations) {
    const query = this.query.apply(state).slice();
    const sum = new Float32Array(query.length);
    const scores = Float32Array.from(keys, (key) => {
      for (let i = 0; i < sum.length; i++) sum[i] = Math.tanh(rounded(key[i] + query[i]));
      return this.score.apply(sum)[0];
    });
    const greatest = scores.reduce((most, score) => Math.max(most, score), -Infinity);
    const weights = scores.map((score) => Math.exp(rounded(score - greatest)));
    const total = weights.reduce((all, weight) => all + weight, 0);
    return Float32Array.from(annotations[0], (_, i) =>
      annotations.reduce((mean, annotation, j) => mean + rounded(weights[j] / total) * annotation[i], 0),
    );
  }
}

/** One step of an LSTM; PyTorch's order of gates: input, forget, candidate, output. */
class LstmCell {
  constructor(weights, prefix, suffix = "") {
    const part = (name) => weights[`${prefix}.${name}${suffix}`];
    this.ofInput = new Linear({ "i.weight": part("weight_ih"), "i.bias": part("bias_ih") }, "i");
    this.ofState = new Linear({ "h.weight": part("weight_hh"), "h.bias": part("bias_hh") }, "h");
    this.size = part("weight_hh").shape[1];
  }

  /** Return the new hidden state and the new cell state. */
  step(input, hidden, state) {
    const { size } = this;
    const gates = this.ofInput.apply(input);
    const controlled = this.ofState.apply(hidden);
    const gate = (index) => rounded(gates[index] + controlled[index]);
    const newHidden = new Float32Array(size);
    const newState = new Float32Array(size);
    for (let i = 0; i < size; i++) {
      const kept = rounded(sigmoid(gate(size + i)) * state[i]);
      newState[i] = kept + rounded(sigmoid(gate(i)) * rounded(Math.tanh(gate(2 * size + i))));
      newHidden[i] = sigmoid(gate(3 * size + i)) * rounded(Math.tanh(newState[i]));
    }
    return [newHidden, newState];
  }
}

function lstmLayers(weights, prefix, count, direction = "") {
  return Array.from({ length: count }, (_, layer) => new LstmCell(weights, prefix, `_l${layer}${direction}`));
}

/** Run a layer over all inputs; yield null after each, and return all outputs and the last `[hidden, state]`. */
function* read(layer, inputs) {
  let last = [new Float32Array(layer.size), new Float32Array(layer.size)];
  const outputs = [];
  for (const input of inputs) {
    last = layer.step(input, ...last);
    outputs.push(last[0]);
    yield null;
  }
  return { outputs, last };
}

/** Step all layers on an input; change `states` in place, and return the last layer's hidden state. */
function advance(layers, states, input) {
  return layers.reduce((seen, layer, i) => {
    states[i] = layer.step(seen, ...states[i]);
    return states[i][0];
  }, input);
}

function joined(first, second) {
  const both = new Float32Array(first.length + second.length);
  both.set(first);
  both.set(second, first.length);
  return both;
}

/** From `start` towards `end` by `share`, computed from the nearer end, as torch.lerp does. */
function mixed(start, end, share) {
  const difference = rounded(end - start);
  return rounded(share < 0.5 ? start + share * difference : end - difference * rounded(1 - share));
}

function roundHalfToEven(number) {
  const nearest = Math.round(number);
  return nearest - number === 0.5 && nearest % 2 !== 0 ? nearest - 1 : nearest;
}
