// What the service is asked. The key is in this module's memory alone: no storage, no cookie, no address holds it.

let key = null;

/** What is known of whoever asks: the key as the service tells it, whether one is needed, and the collections. */
export const session = { key: null, needed: null, collections: [], collection: null };
export const changed = new EventTarget();

/** An RFC 9457 problem, or that nobody answered. */
export class Problem extends Error {
  constructor(status, title, detail, after = null) {
    super(detail);
    Object.assign(this, { status, title, after });
  }
}

export async function ask(method, path, { query = {}, form = null, json = null, body = null, headers = {}, signal } = {}) {
  const words = new URLSearchParams(Object.entries(query).filter(([, value]) => value !== null && value !== ""));
  const sent = { ...headers };
  if (key !== null) sent.Authorization = `Bearer ${key}`;
  if (json !== null) sent["Content-Type"] = "application/json";
  let answer;
  try {
    answer = await fetch(words.size ? `${path}?${words}` : path, {
      method,
      headers: sent,
      body: form ?? (json === null ? body : JSON.stringify(json)),
      signal,
      credentials: "omit",
      cache: "no-store",
    });
  } catch (error) {
    if (error.name === "AbortError") throw error;
    throw new Problem(0, "No answer", "The service does not answer; see whether it still runs.");
  }
  if (answer.ok) return answer.headers.get("Content-Type")?.includes("json") ? answer.json() : answer.text();
  const told = await answer.json().catch(() => ({}));
  throw new Problem(answer.status, told.title ?? `Status ${answer.status}`, told.detail ?? "", answer.headers.get("Retry-After"));
}

/** The query that names the chosen collection. */
export const here = (more = {}) => ({ collection: session.collection, ...more });

export function formOf(pictures, words) {
  const form = new FormData();
  for (const [name, several] of Object.entries(pictures))
    for (const [place, blob] of [several].flat().entries()) form.append(name, blob, blob.name ?? `${name}-${place + 1}.png`);
  for (const [name, value] of Object.entries(words)) if (value !== null && value !== "") form.append(name, String(value));
  return form;
}

/** Takes a key and sees what it is good for; null forgets it. Throws where the service does not know it. */
export async function use(token) {
  const before = key;
  key = token;
  try {
    await refresh();
  } catch (error) {
    key = token === null ? null : before;
    throw error;
  }
}

export async function refresh() {
  models.clear();
  try {
    session.key = await ask("GET", "/v1/key");
    session.needed = session.key.needed;
    session.collections = await ask("GET", "/v1/collections");
  } catch (error) {
    if (error.status === 401 && key === null) Object.assign(session, { key: null, needed: true, collections: [] });
    else throw error;
  }
  if (!session.collections.some((one) => one.name === session.collection))
    session.collection = session.collections[0]?.name ?? null;
  changed.dispatchEvent(new Event("session"));
}

export const may = (scope) =>
  session.key === null || session.key.scopes.includes("admin") || session.key.scopes.includes(scope);

const models = new Map();

/** The model of the chosen collection; asked for once. */
export async function model() {
  const name = session.collection;
  if (!models.has(name)) models.set(name, await ask("GET", "/v1/model", { query: here() }));
  return models.get(name);
}

/** A new key of a request, which makes that it is done once however often it is sent. */
export function once() {
  return [...crypto.getRandomValues(new Uint8Array(16))].map((byte) => byte.toString(16).padStart(2, "0")).join("");
}
