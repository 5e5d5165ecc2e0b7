// A bundle in the browser: its three graphs as sessions, and the calls that answer as the Python runtime does.

import * as ort from "onnxruntime-web/wasm";

import { type Manifest, ROLES, type Role, StudioError, fetchBytes, parseManifest, parseNoise, text, unpacked, verify } from "./files";
import { priorMeans } from "./latent";
import { contrast, elbo, entropy, scoreLatents } from "./score";

declare const ENGINE_BYTES: number; // of the packed engine, known when the page is built
const ENGINE = "ort/ort-wasm-simd-threaded.wasm.gz";

export interface Preprocess {
  height: number;
  width: number;
  channels: 1 | 3;
  resample: "bilinear" | "lanczos" | "nearest";
  fit: "pad" | "stretch";
  background: number;
  invert: boolean;
}

export interface Answer {
  /** The cluster the image is sorted into: the likeliest of the winning class. */
  cluster: number;
  /** q(c|x), (K,). */
  assignment: Float32Array;
  /** Probability per class, likeliest first: clusters that share a name are one class. */
  classes: { name: string; share: number }[];
  /** Posterior mean, (D,). */
  mean: Float32Array;
  /** What the decoder makes of the mean, (H, W, C) in [0, 1]. */
  rebuilt: Float32Array;
  /** Evidence lower bound in nats. */
  score: number;
  /** Whether a score lies below the cluster's threshold, or there is hardly anything on the image: it is unlike those learnt from. */
  unknown: boolean;
}

export class Bundle {
  readonly clusters: number;
  readonly latent: number;
  readonly means: Float32Array[];
  /** What a single cluster is called: its name, with its number where others share that name. */
  readonly labels: string[];
  /** The same in a sentence: an unnamed cluster is called "cluster 3" already. */
  readonly titles: string[];
  private readonly names: string[];

  private constructor(
    readonly manifest: Manifest,
    private readonly sessions: Record<Role, ort.InferenceSession>,
    private readonly noise: number[],
  ) {
    this.clusters = manifest.clusters.length;
    this.latent = this.clusters * manifest.delta;
    this.means = priorMeans(this.clusters, manifest.delta, manifest.lambda);
    this.names = manifest.clusters.map((cluster) => cluster.name);
    this.labels = this.names.map((name, c) => (this.names.filter((other) => other === name).length > 1 ? `${name} (${c})` : name));
    this.titles = this.labels.map(titled);
  }

  /** Fetch, verify and start everything below `folder`; `progress` hears a share in [0, 1] and what is under way. */
  static async load(folder: string, progress: (share: number, what: string) => void): Promise<Bundle> {
    if (typeof WebAssembly !== "object") {
      throw new StudioError("This browser has no WebAssembly, or it is switched off. Use a current Firefox, Chrome, Edge or Safari.");
    }
    ort.env.wasm.wasmPaths = new URL("ort/", document.baseURI).href;
    ort.env.wasm.numThreads = 1; // more need special headers, and small graphs gain nothing
    const manifest = parseManifest(await fetchBytes(`${folder}/manifest.json`));
    const noise = parseNoise(await fetchBytes(`${folder}/noise.json`), manifest);
    const total = ROLES.reduce((sum, role) => sum + manifest.graphs[role].size, ENGINE_BYTES);
    let done = 0;
    const megabytes = (bytes: number) => (bytes / 1e6).toFixed(1);
    const come = (read: number, what: string) =>
      progress(Math.min(1, (done + read) / total), `${what}: ${megabytes(Math.min(total, done + read))} of ${megabytes(total)} MB`);
    const engine = await fetchBytes(ENGINE, (read) => come(read, "engine"));
    ort.env.wasm.wasmBinary = await unpacked(engine, ENGINE);
    done += ENGINE_BYTES;
    const sessions = {} as Record<Role, ort.InferenceSession>;
    for (const role of ROLES) {
      const record = manifest.graphs[role];
      const bytes = await fetchBytes(`${folder}/${record.name}`, (read) => come(read, role));
      done += record.size;
      await verify(bytes, record);
      progress(done / total, `starting the ${role}`);
      sessions[role] = await start(bytes, record.name);
    }
    return new Bundle(manifest, sessions, noise);
  }

  /** What the model makes of one image: bytes (H, W, C). */
  async answer(pixels: Uint8Array): Promise<Answer> {
    const { height, width, channels } = this.manifest.preprocess;
    const image = new ort.Tensor("uint8", pixels, [1, height, width, channels]);
    const assignment = (await this.sessions.classifier.run({ image })).assignment.data as Float32Array;
    const encoded = await this.sessions.encoder.run({ image });
    const [mean, logVariance, kl] = ["mean", "log_variance", "cluster_kl"].map((name) => encoded[name].data as Float32Array);
    const [rebuilt, ...drawn] = await this.decode([mean, ...scoreLatents(mean, logVariance, this.noise)]);
    const decision = decide(assignment, this.names);
    const score = elbo(pixels, drawn, assignment, kl);
    const own = this.manifest.clusters[decision.cluster];
    const low = score < (own.reject_threshold ?? -Infinity) || score + entropy(pixels) < (own.reject_relative ?? -Infinity);
    const unknown = low || contrast(pixels, channels) < (this.manifest.scoring?.least_contrast ?? 0);
    return { ...decision, assignment, mean, rebuilt, score, unknown };
  }

  /** Images of latents, each (H, W, C) in [0, 1]. */
  async decode(latents: Float32Array[]): Promise<Float32Array[]> {
    if (!latents.length) return [];
    const data = new Float32Array(latents.length * this.latent);
    latents.forEach((z, i) => data.set(z, i * this.latent));
    const latent = new ort.Tensor("float32", data, [latents.length, this.latent]);
    const pixels = (await this.sessions.decoder.run({ latent })).image.data as Float32Array;
    const size = pixels.length / latents.length;
    return latents.map((_, i) => pixels.slice(i * size, (i + 1) * size));
  }
}

/** The rule of the Python runtime: shares of one name are added, and the likeliest cluster of the winning name is the answer. */
function decide(assignment: Float32Array, names: string[]): Pick<Answer, "cluster" | "classes"> {
  const shares = new Map<string, number>();
  names.forEach((name, c) => shares.set(name, Math.fround((shares.get(name) ?? 0) + assignment[c])));
  const classes = Array.from(shares, ([name, share]) => ({ name, share })).sort((a, b) => b.share - a.share);
  const within = Array.from(assignment.keys()).filter((c) => names[c] === classes[0].name);
  const cluster = within.reduce((best, c) => (assignment[c] > assignment[best] ? c : best));
  return { cluster, classes };
}

async function start(bytes: Uint8Array, name: string): Promise<ort.InferenceSession> {
  try {
    return await ort.InferenceSession.create(bytes, { executionProviders: ["wasm"] });
  } catch (error) {
    throw new StudioError(`${name} could not be started (${text(error)}). Are the files in ort/ complete, and served as they are?`);
  }
}

/** `cluster 7` of a cluster named 7, and of one that has no name but its number. */
export function titled(label: string): string {
  return label.startsWith("cluster ") ? label : `cluster ${label}`;
}
