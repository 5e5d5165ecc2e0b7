// Builds the page into dist/: one script, one style sheet, and onnxruntime's WebAssembly, packed: the page unpacks it, so that 3.7 MB travel
// and not 14. SHA256SUMS says what was taken from the registry. No source maps, no hashes in names: the same sources give the same bytes.
import { createHash } from "node:crypto";
import { copyFileSync, mkdirSync, readFileSync, writeFileSync } from "node:fs";
import { gzipSync } from "node:zlib";
import { defaultClientConditions, defineConfig } from "vite";

const engine = "node_modules/onnxruntime-web/dist/ort-wasm-simd-threaded";
const wasm = readFileSync(`${engine}.wasm`);
const packed = gzipSync(wasm, { level: 9 });
packed[9] = 255; // the header names the operating system that packed it: left unknown

const { version } = JSON.parse(readFileSync("node_modules/onnxruntime-web/package.json", "utf8"));
const licence = `MIT License

Copyright (c) Microsoft Corporation

Permission is hereby granted, free of charge, to any person obtaining a copy of this software and associated documentation files (the
"Software"), to deal in the Software without restriction, including without limitation the rights to use, copy, modify, merge, publish,
distribute, sublicense, and/or sell copies of the Software, and to permit persons to whom the Software is furnished to do so, subject to
the following conditions:

The above copyright notice and this permission notice shall be included in all copies or substantial portions of the Software.

THE SOFTWARE IS PROVIDED "AS IS", WITHOUT WARRANTY OF ANY KIND, EXPRESS OR IMPLIED, INCLUDING BUT NOT LIMITED TO THE WARRANTIES OF
MERCHANTABILITY, FITNESS FOR A PARTICULAR PURPOSE AND NONINFRINGEMENT. IN NO EVENT SHALL THE AUTHORS OR COPYRIGHT HOLDERS BE LIABLE FOR ANY
CLAIM, DAMAGES OR OTHER LIABILITY, WHETHER IN AN ACTION OF CONTRACT, TORT OR OTHERWISE, ARISING FROM, OUT OF OR IN CONNECTION WITH THE
SOFTWARE OR THE USE OR OTHER DEALINGS IN THE SOFTWARE.
`;

const withEngine = {
  name: "with-engine",
  closeBundle() {
    mkdirSync("dist/ort", { recursive: true });
    copyFileSync(`${engine}.mjs`, "dist/ort/ort-wasm-simd-threaded.mjs");
    writeFileSync("dist/ort/ort-wasm-simd-threaded.wasm.gz", packed);
    const sum = (data) => createHash("sha256").update(data).digest("hex");
    const sums = { "ort-wasm-simd-threaded.wasm": wasm, "ort-wasm-simd-threaded.mjs": readFileSync(`${engine}.mjs`) };
    writeFileSync("dist/ort/SHA256SUMS", Object.entries(sums).map(([name, data]) => `${sum(data)}  ${name}\n`).join(""));
    writeFileSync("dist/ort/LICENSE", `onnxruntime-web ${version}, https://github.com/microsoft/onnxruntime\n\n${licence}`);
  },
};

export default defineConfig({
  base: "./",
  define: { ENGINE_BYTES: String(packed.length) },
  resolve: { conditions: ["onnxruntime-web-use-extern-wasm", ...defaultClientConditions] },
  build: {
    target: "es2022",
    modulePreload: false,
    assetsInlineLimit: 0,
    rollupOptions: {
      output: { entryFileNames: "studio.js", chunkFileNames: "[name].js", assetFileNames: "studio[extname]" },
    },
  },
  plugins: [withEngine],
});
