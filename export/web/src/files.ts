// A bundle's files on their way into the page: fetched with progress, verified against the manifest, and each failure explained.

import type { Preprocess } from "./bundle";

export type Role = "classifier" | "encoder" | "decoder";

export interface FileRecord {
  name: string;
  sha256: string;
  size: number;
}

export interface Manifest {
  schema: number;
  model_id: string;
  clusters: { name: string; share: number; mean_confidence: number; reject_threshold?: number | null; reject_relative?: number | null }[];
  scoring?: { least_contrast?: number } | null;
  delta: number;
  lambda: number;
  preprocess: Preprocess;
  graphs: Record<Role, FileRecord>;
  provenance: { data: string; images: number; held_back?: number; label_weight?: number };
}

/** A failure the page explains: what happened, and what to do. */
export class StudioError extends Error {}

export const ROLES: Role[] = ["classifier", "encoder", "decoder"];
const SCHEMA = 1;

/** The manifest of a bundle; the page reads it with care, for a server may answer anything. */
export function parseManifest(bytes: Uint8Array): Manifest {
  let manifest: Manifest;
  try {
    manifest = JSON.parse(new TextDecoder().decode(bytes));
  } catch {
    throw new StudioError("model/manifest.json is no JSON: the server may be answering with a page of its own.");
  }
  if (manifest?.schema !== SCHEMA) {
    throw new StudioError(`The model has schema ${manifest?.schema}, this page reads ${SCHEMA}: export both with one version.`);
  }
  const { clusters, delta, lambda, preprocess, graphs, provenance } = manifest;
  const numbers = [delta, lambda, preprocess?.height, preprocess?.width, provenance?.images, ...ROLES.map((role) => graphs?.[role]?.size)];
  if (!Array.isArray(clusters) || !clusters.length || !numbers.every(Number.isFinite)) {
    throw new StudioError("model/manifest.json is incomplete: cut short, or not written by catvae-export. Export the page again.");
  }
  return manifest;
}

/** The noise that scores are taken with, a number for each dimension of the latent space. */
export function parseNoise(bytes: Uint8Array, manifest: Manifest): number[] {
  try {
    const noise = JSON.parse(new TextDecoder().decode(bytes));
    if (noise.length === manifest.clusters.length * manifest.delta && noise.every(Number.isFinite)) return noise;
  } catch {
    // said below
  }
  throw new StudioError("model/noise.json does not belong to this model: export the page again.");
}

/** Bytes that were packed with gzip, unless a server has unpacked them on the way. */
export async function unpacked(bytes: Uint8Array, name: string): Promise<Uint8Array> {
  if (bytes[0] !== 0x1f || bytes[1] !== 0x8b) return bytes;
  try {
    const stream = new Blob([bytes as Uint8Array<ArrayBuffer>]).stream().pipeThrough(new DecompressionStream("gzip"));
    return new Uint8Array(await new Response(stream).arrayBuffer());
  } catch (error) {
    throw new StudioError(`${name} is damaged or cut short (${text(error)}). Export the page again, or copy the whole folder.`);
  }
}

/** Refuse bytes that are not the file the manifest names. */
export async function verify(bytes: Uint8Array, record: FileRecord): Promise<void> {
  const wrong = `${record.name} is not the file the manifest names: damaged, cut short, or from another export. Export the page again.`;
  if (bytes.length !== record.size) throw new StudioError(`${wrong} (${bytes.length} bytes, expected ${record.size})`);
  if (!crypto.subtle) return; // only pages from https or this machine have it; the size was right
  const digest = new Uint8Array(await crypto.subtle.digest("SHA-256", bytes as Uint8Array<ArrayBuffer>));
  const hex = Array.from(digest, (byte) => byte.toString(16).padStart(2, "0")).join("");
  if (hex !== record.sha256) throw new StudioError(wrong);
}

/** The bytes at `url`; `progress` hears how many have come. */
export async function fetchBytes(url: string, progress: (read: number) => void = () => {}): Promise<Uint8Array> {
  let response: Response;
  try {
    response = await fetch(url, { cache: "no-cache" }); // a server that says nothing of ages must not bring back the model before
  } catch (error) {
    throw new StudioError(`${url} cannot be reached (${text(error)}): is the server still there?`);
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

export function text(error: unknown): string {
  return error instanceof Error ? error.message : String(error);
}
