// A bundle in the browser: its files fetched and verified, its three graphs as sessions, and the calls that answer.

import * as ort from "onnxruntime-web/wasm";

import { priorMeans } from "./latent";

export interface Preprocess {
  height: number;
  width: number;
  channels: 1 | 3;
  resample: "bilinear" | "lanczos" | "nearest";
  fit: "pad" | "stretch";
  background: number;
  invert: boolean;
}

interface FileRecord {
  name: string;
  sha256: string;
  size: number;
}

export interface Manifest {
  schema: number;
  model_id: string;
  clusters: { name: string; share: number; mean_confidence: number }[];
  delta: number;
  lambda: number;
  preprocess: Preprocess;
  graphs: Record<Role, FileRecord>;
  provenance: { data: string; images: number };
}

export type Role = "classifier" | "encoder" | "decoder";

export interface Answer {
  assignment: Float32Array;
  mean: Float32Array;
  cluster: number;
}

/** A failure the page explains: what happened, and what to do. */
export class StudioError extends Error {}

const SCHEMA = 1;
const ROLES: Role[] = ["classifier", "encoder", "decoder"];

export class Bundle {
  readonly clusters: number;
  readonly latent: number;
  readonly means: Float32Array[];

  private constructor(
    readonly manifest: Manifest,
    private readonly sessions: Record<Role, ort.InferenceSession>,
  ) {
    this.clusters = manifest.clusters.length;
    this.latent = this.clusters * manifest.delta;
    this.means = priorMeans(this.clusters, manifest.delta, manifest.lambda);
  }

  /** Fetch, verify and start everything below `folder`; `progress` hears a share in [0, 1] and what is under way. */
  static async load(folder: string, progress: (share: number, what: string) => void): Promise<Bundle> {
    if (typeof WebAssembly !== "object") {
      throw new StudioError("This browser has no WebAssembly, or it is switched off. Use a current Firefox, Chrome, Edge or Safari.");
    }
    ort.env.wasm.wasmPaths = new URL("ort/", document.baseURI).href;
    ort.env.wasm.numThreads = 1; // more need special headers, and small graphs gain nothing
    const manifest = parseManifest(await fetchBytes(`${folder}/manifest.json`, () => {}));
    const total = ROLES.reduce((sum, role) => sum + manifest.graphs[role].size, 0);
    let done = 0;
    const sessions = {} as Record<Role, ort.InferenceSession>;
    for (const role of ROLES) {
      const record = manifest.graphs[role];
      const bytes = await fetchBytes(`${folder}/${record.name}`, (read) => progress((done + read) / total, record.name));
      done += record.size;
      await verify(bytes, record);
      progress(done / total, `starting ${record.name}`);
      sessions[role] = await start(bytes, record.name);
    }
    return new Bundle(manifest, sessions);
  }

  get names(): string[] {
    return this.manifest.clusters.map((cluster) => cluster.name);
  }

  /** Cluster, assignment and posterior mean of one image: bytes (H, W, C). */
  async answer(pixels: Uint8Array): Promise<Answer> {
    const { height, width, channels } = this.manifest.preprocess;
    const image = new ort.Tensor("uint8", pixels, [1, height, width, channels]);
    const assignment = (await this.sessions.classifier.run({ image })).assignment.data as Float32Array;
    const mean = (await this.sessions.encoder.run({ image })).mean.data as Float32Array;
    return { assignment, mean, cluster: argmax(assignment) };
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

export function argmax(values: ArrayLike<number>): number {
  let best = 0;
  for (let i = 1; i < values.length; i++) if (values[i] > values[best]) best = i;
  return best;
}

async function start(bytes: Uint8Array, name: string): Promise<ort.InferenceSession> {
  try {
    return await ort.InferenceSession.create(bytes, { executionProviders: ["wasm"] });
  } catch (error) {
    throw new StudioError(`${name} could not be started (${text(error)}). Are the files in ort/ complete, and served as they are?`);
  }
}

function parseManifest(bytes: Uint8Array): Manifest {
  let manifest: Manifest;
  try {
    manifest = JSON.parse(new TextDecoder().decode(bytes));
  } catch {
    throw new StudioError("model/manifest.json is no JSON: the server may be answering with a page of its own.");
  }
  if (manifest.schema !== SCHEMA) {
    throw new StudioError(`The model has schema ${manifest.schema}, this page reads ${SCHEMA}: export both with one version.`);
  }
  return manifest;
}

async function verify(bytes: Uint8Array, record: FileRecord): Promise<void> {
  const wrong = `${record.name} is not the file the manifest names: damaged, cut short, or from another export. Export the page again.`;
  if (bytes.length !== record.size) throw new StudioError(`${wrong} (${bytes.length} bytes, expected ${record.size})`);
  if (!crypto.subtle) return; // only pages from https or this machine have it; the size was right
  const digest = new Uint8Array(await crypto.subtle.digest("SHA-256", bytes as Uint8Array<ArrayBuffer>));
  const hex = Array.from(digest, (byte) => byte.toString(16).padStart(2, "0")).join("");
  if (hex !== record.sha256) throw new StudioError(wrong);
}

async function fetchBytes(url: string, progress: (read: number) => void): Promise<Uint8Array> {
  let response: Response;
  try {
    response = await fetch(url);
  } catch (error) {
    const local = location.protocol === "file:";
    throw new StudioError(
      local
        ? "A page opened as a file may not read its model. Serve the folder: python -m http.server, then open http://localhost:8000"
        : `${url} cannot be reached (${text(error)}): is the server still there?`,
    );
  }
  if (!response.ok) throw new StudioError(`${url} is missing (HTTP ${response.status}). Export the page again, or copy the whole folder.`);
  const reader = response.body?.getReader();
  if (!reader) return new Uint8Array(await response.arrayBuffer());
  const pieces: Uint8Array[] = [];
  let read = 0;
  try {
    for (;;) {
      const { done, value } = await reader.read();
      if (done) break;
      pieces.push(value);
      read += value.length;
      progress(read);
    }
  } catch (error) {
    throw new StudioError(`${url} broke off after ${read} bytes (${text(error)}). Load the page again.`);
  }
  const bytes = new Uint8Array(read);
  let at = 0;
  for (const piece of pieces) {
    bytes.set(piece, at);
    at += piece.length;
  }
  return bytes;
}

function text(error: unknown): string {
  return error instanceof Error ? error.message : String(error);
}
