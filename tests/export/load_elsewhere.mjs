// Vectors of folders by transformers.js; node load_elsewhere.mjs NODE_MODULES JOBS
// JOBS: JSON, a list of {folder, texts, out}; texts are a list, out is a file of JSON
import { readFileSync, writeFileSync } from "node:fs";
import { pathToFileURL } from "node:url";
import { createRequire } from "node:module";

const [modules, jobs] = process.argv.slice(2);
const entry = createRequire(pathToFileURL(`${modules}/`)).resolve("@huggingface/transformers");
const { AutoModel, AutoTokenizer, env } = await import(pathToFileURL(entry));
env.allowRemoteModels = false;

for (const { folder, texts, out } of JSON.parse(readFileSync(jobs, "utf-8"))) {
  const tokenizer = await AutoTokenizer.from_pretrained(folder);
  const model = await AutoModel.from_pretrained(folder);
  const { sentence_embedding } = await model(await tokenizer(texts, { padding: true, truncation: true }));
  writeFileSync(out, JSON.stringify(sentence_embedding.tolist()));
}
