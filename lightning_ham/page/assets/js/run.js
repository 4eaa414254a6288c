// A run: a network that answers an instance, access by access.

import { capacityFor } from "./network.js";

export class Run {
  /**
   * A network's run on a checked instance.
   *
   * A data structure may be empty at first and take more operations; its tree has at least `leaves` leaves.
   */
  constructor(network, task, instance, leaves = 1) {
    this.network = network;
    this.task = task;
    this.instance = instance;
    this.cells = task.cells(instance);
    this.capacity = Math.max(leaves, capacityFor(this.cells.length));
    this.rightWords = task.rightWords(instance);
    /** Accesses to the memory so far; outputs, for a network without one. */
    this.steps = [];
    /** Bits of the output at each timestep so far. */
    this.outputs = [];
    this.steadily = network.run(this.cells, this.capacity, task.isStructure ? this.capacity : this.timesteps);
  }

  get timesteps() {
    return this.rightWords.length;
  }

  /** Number of steps when the run is done. */
  get length() {
    return this.timesteps * Math.max(this.network.accesses, 1);
  }

  get isDone() {
    return this.outputs.length === this.timesteps;
  }

  /** Go on for some milliseconds, or to the end. */
  advance(milliseconds = Infinity) {
    const end = performance.now() + milliseconds;
    while (!this.isDone && performance.now() < end) {
      const step = this.steadily.next().value;
      if (!step) continue; // reading its input
      this.steps.push(step);
      if (step.output) this.outputs.push([...step.output].map((logit) => (logit > 0 ? 1 : 0)));
    }
  }

  /** Carry out one more operation of a data structure; return false if its tree is used up. */
  operate(operation) {
    if (this.cells.length === this.capacity) return false;
    this.instance = [...this.instance, operation];
    this.cells.push(...this.task.cells([operation]));
    this.rightWords = this.task.rightWords(this.instance);
    this.advance();
    return true;
  }

  /** The answer of a run that is done, in the task's own form. */
  get answer() {
    return this.task.decode(this.outputs, this.instance);
  }

  /** What the network put out at a timestep, in words; null where nothing is scored. */
  word(timestep) {
    return this.rightWords[timestep] === null ? null : this.task.word(this.outputs[timestep]);
  }

  isWrong(timestep) {
    return timestep < this.outputs.length && this.word(timestep) !== this.rightWords[timestep];
  }

  /** Timesteps so far at which the network was wrong. */
  get wrong() {
    return this.rightWords.flatMap((_, timestep) => (this.isWrong(timestep) ? [timestep] : []));
  }

  /** Number of timesteps at which the network can be right or wrong. */
  get scored() {
    return this.rightWords.filter((word) => word !== null).length;
  }
}
