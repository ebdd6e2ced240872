// The server: its models, vectors and tokens. Vectors are kept, so a text is embedded once.

const ROOT = new URL("..", import.meta.url);
const BATCH = 32;
const MOST_KEPT = 40_000; // vectors; of 576 dimensions, 92 MB
const MOST_TRIES = 6;
const FALLBACK_SECONDS = 1;

/** What the server refused, in words; status 0: it could not be reached. */
export class ApiError extends Error {
  constructor(status, message, code = null) {
    super(message);
    this.status = status;
    this.code = code;
  }
}

let askForKey = () => Promise.reject(new ApiError(401, "A key is needed."));
/** `ask(message)` resolves when the user has given a key. */
export function onKeyNeeded(ask) {
  let asking = null; // requests that are refused at one time ask once
  askForKey = (message) => (asking ??= ask(message).finally(() => (asking = null)));
}

let key = null;
try {
  key = sessionStorage.getItem("key");
} catch {
  // storage is switched off: the key holds until the page is left
}
/** null forgets it. */
export function keepKey(given) {
  key = given;
  try {
    if (key === null) sessionStorage.removeItem("key");
    else sessionStorage.setItem("key", key);
  } catch {
    // as above
  }
}
export const hasKey = () => key !== null;

async function ask(path, { body, signal } = {}) {
  for (let tries = 1; ; tries += 1) {
    const shown = key;
    const headers = {};
    if (shown) headers.Authorization = `Bearer ${shown}`;
    if (body) headers["Content-Type"] = "application/json";
    let response;
    try {
      response = await fetch(new URL(path, ROOT), {
        method: body ? "POST" : "GET",
        headers,
        body: body && JSON.stringify(body),
        signal,
      });
    } catch (error) {
      if (error.name === "AbortError") throw error;
      throw new ApiError(0, "The server cannot be reached. Is it still running?");
    }
    if (response.ok) return response;
    const error = await readError(response);
    if (error.status === 401) {
      if (key === shown) await askForKey(shown ? "That is not the server's key." : "");
    } else if (error.status === 429 && tries < MOST_TRIES) {
      const seconds = Number(response.headers.get("Retry-After")) || FALLBACK_SECONDS;
      dispatchEvent(new CustomEvent("busy", { detail: seconds }));
      await wait(seconds, signal);
    } else throw error;
  }
}

async function readError(response) {
  const { error } = await response.json().catch(() => ({}));
  return new ApiError(response.status, error?.message ?? `The server answered ${response.status}.`, error?.code);
}

function wait(seconds, signal) {
  return new Promise((resolve, reject) => {
    const timer = setTimeout(resolve, 1000 * seconds);
    signal?.addEventListener("abort", () => {
      clearTimeout(timer);
      reject(signal.reason);
    });
  });
}

/** [{id, dimensions, max_tokens, parent}], in the server's order. */
export async function listModels() {
  return (await (await ask("v1/models")).json()).data;
}

/** {prompt, pooling, texts: [{tokens, is_cut}]} */
export async function tokensOf(model, text, signal) {
  return (await ask("tokens", { body: { model, input: [text] }, signal })).json();
}

const kept = new Map(); // model, kind and text -> {vector, batch}
const nameOf = (model, kind, text) => `${model}\n${kind}\n${text}`;

/**
 * Vectors of texts, Float32Arrays at unit length; asks only for those that are not there yet.
 *
 * Returns {vectors, mostCut}: at most so many of them were longer than the model takes. `onBatch(done, total)` is
 * called with distinct texts; `kind` is "document" or "query".
 */
export async function embed(model, texts, { kind = "document", signal, onBatch } = {}) {
  if (kept.size > MOST_KEPT) kept.clear();
  const found = new Map(texts.map((text) => [text, kept.get(nameOf(model, kind, text))]));
  const missing = [...found.keys()].filter((text) => !found.get(text));
  let size = BATCH;
  for (let start = 0; start < missing.length;) {
    const batch = missing.slice(start, start + size);
    try {
      const rows = await embedBatch(model, kind, batch, signal);
      batch.forEach((text, place) => {
        found.set(text, rows[place]);
        kept.set(nameOf(model, kind, text), rows[place]);
      });
    } catch (error) {
      if (error.status !== 413 || batch.length === 1) throw error;
      size = Math.ceil(batch.length / 2);
      continue;
    }
    start += batch.length;
    onBatch?.(start, missing.length);
  }
  const batches = new Set([...found.values()].map((row) => row.batch));
  return {
    vectors: texts.map((text) => found.get(text).vector),
    mostCut: [...batches].reduce((sum, batch) => sum + batch.numCut, 0),
  };
}

async function embedBatch(model, kind, texts, signal) {
  const body = { model, input: texts, input_type: kind, encoding_format: "base64" };
  const response = await ask("v1/embeddings", { body, signal });
  const { data } = await response.json();
  const batch = { numCut: Number(response.headers.get("X-Truncated-Texts") ?? 0) };
  return data.map(({ embedding }) => ({ vector: readVector(embedding), batch }));
}

function readVector(base64) {
  const bytes = Uint8Array.from(atob(base64), (letter) => letter.charCodeAt(0));
  return new Float32Array(bytes.buffer); // little-endian, as all machines with browsers are
}

/** Of two vectors at unit length. */
export function cosine(a, b) {
  let sum = 0;
  for (let place = 0; place < a.length; place += 1) sum += a[place] * b[place];
  return sum;
}
