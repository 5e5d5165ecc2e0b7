// How well the model explains an image, and how much there is on it, as runtime/bundles/scoring.py has it, with the same draws.

const SMALLEST = 1e-6; // probability that a pixel is kept away from 0 and 1

/** The two latents to decode: mean +- exp(log_variance / 2) * noise. */
export function scoreLatents(mean: Float32Array, logVariance: Float32Array, noise: number[]): Float32Array[] {
  return [1, -1].map((sign) => mean.map((value, i) => value + sign * Math.exp(0.5 * logVariance[i]) * noise[i]));
}

/** The sum of the entropies of pixels, in nats: what even the best decoder is short of certainty. */
export function entropy(pixels: Uint8Array): number {
  const nats = (p: number) => (p > 0 && p < 1 ? -p * Math.log(p) - (1 - p) * Math.log1p(-p) : 0);
  return pixels.reduce((sum, byte) => sum + nats(byte / 255), 0);
}

/** Standard deviation of bytes (H, W, C) about the mean of their channel. */
export function contrast(pixels: Uint8Array, channels: number): number {
  const counted = pixels.length / channels;
  let variance = 0;
  for (let c = 0; c < channels; c++) {
    let sum = 0;
    let squares = 0;
    for (let i = c; i < pixels.length; i += channels) {
      sum += pixels[i];
      squares += pixels[i] ** 2;
    }
    variance += (squares - sum ** 2 / counted) / counted / channels;
  }
  return Math.sqrt(variance);
}

/** Of bytes (H, W, C), what the decoder made of both latents, q(c|x) and the divergence of each cluster. */
export function elbo(pixels: Uint8Array, drawn: Float32Array[], assignment: Float32Array, kl: Float32Array): number {
  let bound = -Math.log(assignment.length);
  for (const image of drawn) {
    pixels.forEach((byte, i) => {
      const p = Math.min(1 - SMALLEST, Math.max(SMALLEST, image[i]));
      bound += ((byte / 255) * Math.log(p) + (1 - byte / 255) * Math.log1p(-p)) / drawn.length;
    });
  }
  assignment.forEach((a, c) => (bound -= a * kl[c] + (a > 0 ? a * Math.log(a) : 0)));
  return bound;
}
