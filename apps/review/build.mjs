// Bundles the viewer for the pages of reports: `viewer.js.gz`, and the notices of all that is in it.
import { mkdirSync, readFileSync, readdirSync, writeFileSync } from "node:fs";
import { dirname, join } from "node:path";
import { fileURLToPath } from "node:url";
import { gzipSync } from "node:zlib";
import { build } from "esbuild";

const here = dirname(fileURLToPath(import.meta.url));
const target = join(here, "../../pipelines/report/assets");
const options = {
  absWorkingDir: here,
  entryPoints: ["viewer.js"],
  bundle: true,
  minify: true,
  format: "iife",
  target: "es2022",
  external: ["numcodecs/*"], // decompressors of Zarr, 60 % of the bundle: NiiVue imports them for Zarr stores alone
  legalComments: "none", // whole notices are put in front instead
  metafile: true,
  write: false,
  logLevel: "warning",
};

/** Notices of the packages that a build took files from, as one text. */
function notices(metafile) {
  const packages = new Set();
  for (const path of Object.keys(metafile.inputs)) {
    const found = path.match(/.*node_modules\/((?:@[^/]+\/)?[^/]+)\//);
    if (found) packages.add(found[1]);
  }
  const texts = [...packages].sort().map((name) => {
    const folder = join(here, "node_modules", name);
    const { version, license } = JSON.parse(readFileSync(join(folder, "package.json"), "utf8"));
    const file = readdirSync(folder).find((entry) => /^licen[cs]e/i.test(entry));
    if (!file && name !== "@niivue/niivue") throw new Error(`${name} has no licence file`);
    const text = readFileSync(file ? join(folder, file) : join(here, "LICENSE-niivue.txt"), "utf8");
    return `${name} ${version} (${license})\n\n${text.trim()}\n`;
  });
  return texts.join(`\n${"-".repeat(72)}\n\n`).replaceAll("*/", "* /");
}

const text = notices((await build(options)).metafile);
const { outputFiles } = await build({ ...options, banner: { js: `/*!\n${text}*/` } });
mkdirSync(target, { recursive: true });
writeFileSync(join(target, "viewer.js.gz"), gzipSync(outputFiles[0].contents, { level: 9 }));
writeFileSync(join(target, "viewer-licenses.txt"), text);
