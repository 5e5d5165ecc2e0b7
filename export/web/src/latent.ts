// Points of the latent space: prior means, draws, straight lines, and the plane of the map.

/** Means mu, one per cluster: lambda on the cluster's own block, zero elsewhere. */
export function priorMeans(clusters: number, delta: number, lambda: number): Float32Array[] {
  return Array.from({ length: clusters }, (_, c) => {
    const mean = new Float32Array(clusters * delta);
    mean.fill(lambda, c * delta, (c + 1) * delta);
    return mean;
  });
}

/** Standard normal noise from a seed (mulberry32, Box-Muller): the same seed draws the same style. */
export function noise(length: number, seed: number): Float32Array {
  let state = seed >>> 0;
  const uniform = () => {
    state = (state + 0x6d2b79f5) >>> 0;
    let t = Math.imul(state ^ (state >>> 15), state | 1);
    t ^= t + Math.imul(t ^ (t >>> 7), t | 61);
    return ((t ^ (t >>> 14)) >>> 0) / 4294967296;
  };
  return Float32Array.from({ length }, () => Math.sqrt(-2 * Math.log(1 - uniform())) * Math.cos(2 * Math.PI * uniform()));
}

/** Sum of two points. */
export function plus(a: Float32Array, b: Float32Array): Float32Array {
  return a.map((value, i) => value + b[i]);
}

/** Difference of two points. */
export function minus(a: Float32Array, b: Float32Array): Float32Array {
  return a.map((value, i) => value - b[i]);
}

/** The point at `t` of the straight line from a (0) to b (1). */
export function between(a: Float32Array, b: Float32Array, t: number): Float32Array {
  return a.map((value, i) => (1 - t) * value + t * b[i]);
}

/** Where the centres lie on the map: evenly on a circle of radius 1, the first at the top. */
export function rim(clusters: number): [number, number][] {
  return Array.from({ length: clusters }, (_, c) => {
    const angle = (2 * Math.PI * c) / clusters - Math.PI / 2;
    return [Math.cos(angle), Math.sin(angle)];
  });
}

/** How much of each centre a point of the map holds: all of one on the rim, an even mixture in the middle. Sums to 1. */
export function mixture(x: number, y: number, anchors: [number, number][]): number[] {
  const weights = anchors.map(([ax, ay]) => 1 / Math.max(1e-9, (x - ax) ** 2 + (y - ay) ** 2) ** 2);
  const sum = weights.reduce((a, b) => a + b, 0);
  return weights.map((weight) => weight / sum);
}

/** Where an image of this assignment lies on the map: between the centres, as near to each as its share is large. */
export function within(assignment: Float32Array, anchors: [number, number][]): [number, number] {
  const point: [number, number] = [0, 0];
  anchors.forEach(([ax, ay], c) => {
    point[0] += assignment[c] * ax;
    point[1] += assignment[c] * ay;
  });
  return point;
}

/** The latent of a mixture of centres. */
export function mixed(weights: number[], means: Float32Array[]): Float32Array {
  const z = new Float32Array(means[0].length);
  weights.forEach((weight, c) => means[c].forEach((value, i) => (z[i] += weight * value)));
  return z;
}
