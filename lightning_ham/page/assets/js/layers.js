// Linear layers and the logistic function in 32-bit floats.

export const rounded = Math.fround;

/** The logistic function, rounded to 32 bits. */
export function sigmoid(x) {
  return rounded(1 / (1 + Math.exp(-x)));
}

/** A linear layer. */
export class Linear {
  /** The layer with the weights `NAME.weight` and, if there is one, `NAME.bias`. */
  constructor(weights, name) {
    const { shape, data } = weights[`${name}.weight`];
    [this.outputs, this.inputs] = shape;
    this.weight = data;
    this.bias = weights[`${name}.bias`]?.data ?? new Float32Array(this.outputs);
    this.result = new Float32Array(this.outputs);
  }

  /** Return `weight @ x + bias`, rectified if asked for; the next call overwrites the result. */
  apply(x, rectified = false) {
    const { weight, bias, result, inputs } = this;
    if (x.length !== inputs) throw new Error(`Expected ${inputs} numbers, but got ${x.length}.`);
    for (let o = 0, w = 0; o < result.length; o++) {
      let sum = bias[o];
      for (let i = 0; i < inputs; i++) sum += weight[w++] * x[i];
      result[o] = rectified && sum < 0 ? 0 : sum;
    }
    return result;
  }
}

/** Return the function of a linear layer `NAME.0`, rectified, then one `NAME.2`; its results are new arrays. */
export function perceptron(weights, name) {
  const hidden = new Linear(weights, `${name}.0`);
  const out = new Linear(weights, `${name}.2`);
  return (x) => out.apply(hidden.apply(x, true)).slice();
}
