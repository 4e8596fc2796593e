// The page: what /events tells becomes text, and each camera that is in view fetches its newest picture.
// Everything from outside is written as text, never as HTML.
import { add, fill } from "/plots.js";

const PAUSE_MS = 200; // between two pictures of a camera: who wants more takes /camera/NAME.mjpg
const RETRY_MS = 3000;
const LIMITS = ["deadline_ms", "deadline_quantile", "power_w", "energy_wh", "temperature_c", "min_accuracy", "min_fps"];
const AT_LEAST = ["deadline", "accuracy", "frame_rate"];
const BUDGETS = { deadline: "on time", power: "power", energy: "energy", temperature: "temperature", accuracy: "accuracy", frame_rate: "frames run" };

const $ = (id) => document.getElementById(id);
const wait = (ms) => new Promise((done) => setTimeout(done, ms));
const unit = (name) => (name === "C" ? "°C" : name);
const number = (value, digits, unit = "") => (value == null ? "unknown" : `${value.toFixed(digits)}${unit}`);
const percent = (share) => (share == null ? "-" : `${(100 * share).toFixed(0)} %`);

function element(tag, text, className) {
  const made = document.createElement(tag);
  if (text != null) made.textContent = text;
  if (className) made.className = className;
  return made;
}

function write(node, text) {
  if (node.textContent !== text) node.textContent = text;
}

function span(seconds) {
  const minutes = Math.floor(seconds / 60), hours = Math.floor(minutes / 60), days = Math.floor(hours / 24);
  if (days) return `${days} d ${hours % 24} h`;
  if (hours) return `${hours} h ${minutes % 60} min`;
  return minutes ? `${minutes} min ${Math.floor(seconds % 60)} s` : `${Math.floor(seconds)} s`;
}

// ---- Tiles

class Tile {
  constructor(name) {
    this.name = name;
    this.node = element("article", null, "tile");
    const title = element("h3", name);
    this.state = title.appendChild(element("span"));
    const view = element("div", null, "view");
    this.words = view.appendChild(element("p", "waiting for a picture"));
    this.image = view.appendChild(element("img"));
    this.image.alt = "";
    this.image.hidden = true;
    this.chip = view.appendChild(element("p", null, "chip"));
    this.facts = element("p", null, "facts");
    this.fault = element("p", null, "fault-words");
    this.fault.hidden = true;
    this.node.append(title, view, this.facts, this.fault);
    this.number = -1;
    this.seen = false;
    this.gone = false;
    this.live = true;
    observer.observe(this.node);
    this.node.tile = this;
    this.pull();
  }

  remove() {
    this.gone = true;
    observer.unobserve(this.node);
    this.node.remove();
  }

  async pull() {
    while (!this.gone) {
      if (!this.seen || document.hidden || !this.live) {
        await wait(200);
        continue;
      }
      try {
        await this.fetch();
      } catch {
        await wait(RETRY_MS);
      }
      await wait(PAUSE_MS);
    }
  }

  async fetch() {
    const after = this.number >= 0 ? `?after=${this.number}` : "";
    const answer = await fetch(`/camera/${this.name}.jpg${after}`, { signal: AbortSignal.timeout(10000) });
    if (answer.status === 401) location.assign("/login");
    if (answer.status === 204) {
      this.number = Math.min(this.number, Number(answer.headers.get("Edged-Number"))); // smaller after a restart
      return;
    }
    if (!answer.ok) {
      this.image.hidden ||= !this.fault.textContent; // the last picture of a camera that fails stays, dimmed
      write(this.words, (await answer.text()).slice(0, 300));
      await wait(RETRY_MS / 3);
      return;
    }
    this.number = Number(answer.headers.get("Edged-Number"));
    const old = this.image.src;
    this.image.src = URL.createObjectURL(await answer.blob());
    await this.image.decode();
    if (old.startsWith("blob:")) URL.revokeObjectURL(old);
    this.image.hidden = false;
    const variant = answer.headers.get("Edged-Variant");
    const late = answer.headers.get("Edged-Late") === "1";
    write(this.chip, variant ? `${decodeURIComponent(variant)}, ${Number(answer.headers.get("Edged-Age-Ms")).toFixed(0)} ms${late ? ", late" : ""}` : "no result for this frame");
    this.chip.classList.toggle("late", late);
    this.node.dataset.picture = this.number;
  }

  show(status, live, remedy, rate) {
    this.live = status.state === "live" || status.captured > 0;
    this.node.classList.toggle("fault", remedy != null);
    write(this.state, status.state === "live" && rate != null ? `live, ${rate.toFixed(1)} fps` : status.state);
    this.fault.hidden = remedy == null;
    if (remedy != null) {
      this.fault.replaceChildren(element("b", status.reason), element("br"), element("span", remedy));
      if (status.captured === 0) write(this.words, status.reason);
    }
    const parts = [];
    if (live) {
      parts.push(element("span", `${live.results} results/s`, "soft"), element("span", objects(live)));
    } else {
      parts.push(element("span", status.still_since ? "nothing moves" : "no result in the last second", "soft"));
    }
    this.facts.replaceChildren(...parts);
    const seen = live ? objects(live) : "no result";
    if (this.image.alt !== `${this.name}: ${seen}`) this.image.alt = `${this.name}: ${seen}`;
  }
}

function objects(live) {
  const counts = Object.entries(live.objects).sort().map(([label, count]) => `${count} ${label}`);
  const classes = live.classes.map(([label, score]) => `${label} ${score.toFixed(2)}`);
  return [...counts, ...classes].slice(0, 8).join(", ") || "nothing seen";
}

const observer = new IntersectionObserver((entries) => {
  for (const entry of entries) entry.target.tile.seen = entry.isIntersecting;
}, { rootMargin: "100px" });
const tiles = new Map();
let before = null;

function showCameras(update) {
  const names = new Set(update.state.cameras.map((camera) => camera.camera));
  for (const [name, tile] of tiles) if (!names.has(name)) { tile.remove(); tiles.delete(name); }
  for (const camera of update.state.cameras) {
    if (!tiles.has(camera.camera)) {
      tiles.set(camera.camera, new Tile(camera.camera));
      $("cameras").append(tiles.get(camera.camera).node);
    }
    const past = before && before.pid === update.state.pid && before.cameras.find((one) => one.camera === camera.camera);
    const seconds = past ? update.state.uptime_s - before.uptime_s : 0;
    const rate = seconds > 0 ? Math.max(0, camera.captured - past.captured) / seconds : null;
    tiles.get(camera.camera).show(camera, update.live[camera.camera], update.remedies[camera.camera], rate);
  }
  before = update.state;
}

// ---- Words and tables

function showState(update) {
  const state = update.state, sample = state.telemetry, shares = state.decision ? state.decision.shares : {};
  const profile = state.profile ? `, profile ${state.profile}` : "";
  write($("about"), `${state.version}, bundle ${state.bundle}${profile}, up ${span(state.uptime_s)}`);
  health(state.healthy ? "healthy" : "stuck: see edged status", state.healthy ? "good" : "bad");
  const [reason, ...consequences] = update.why;
  write($("why"), reason ?? "No decision yet.");
  $("consequences").replaceChildren(...consequences.map((text) => element("li", text)));
  write($("metric"), state.metric);
  $("variants").replaceChildren(...state.variants.map((one) => row(
    one.name, percent(shares[one.name]), number(one.accuracy, 3), number(one.latency_p50_ms, 1, " ms"), String(one.results),
    one.refused ? `refused: ${one.refused}` : vetoed(state, one.name))));
  $("budgets").replaceChildren(...state.budgets.filter((one) => one.limit != null || one.measured != null).map(budget));
  const facts = [];
  if (sample) {
    facts.push(`power by ${sample.provider}: ${number(sample.power_w, 1, " W")}${sample.power_estimated ? " (estimated)" : ""}`);
    if (sample.temperature_c != null) facts.push(`${sample.temperature_c.toFixed(0)} °C`);
    if (sample.cpu_percent != null) facts.push(`CPU ${sample.cpu_percent.toFixed(0)} %`);
    if (sample.throttled) facts.push("throttling");
    facts.push(...sample.missing);
  }
  if (update.lost) facts.push(`${update.lost} messages lost on their way here`);
  write($("device"), facts.join(" · "));
}

function row(name, ...cells) {
  const made = element("tr");
  const head = element("th", name);
  head.scope = "row";
  made.append(head, ...cells.map((text, n) => element("td", text, n < cells.length - 1 ? "number" : "")));
  return made;
}

function budget(one) {
  const low = AT_LEAST.includes(one.name);
  const measured = one.measured == null ? "unknown" : `${one.estimated ? "~" : ""}${Number(one.measured.toPrecision(4))} ${unit(one.unit)}`;
  const limit = one.limit == null ? "-" : `${low ? "at least " : ""}${one.limit} ${unit(one.unit)}`;
  const made = row(BUDGETS[one.name] ?? one.name, measured, limit, one.note);
  const missed = one.limit != null && one.measured != null && (low ? one.measured < one.limit : one.measured > one.limit);
  if (missed) made.children[1].classList.add("over");
  return made;
}

function vetoed(state, variant) {
  const found = state.guard ? state.guard.agreement.filter((one) => one.variant === variant) : [];
  const cameras = found.filter((one) => one.vetoed).map((one) => one.camera);
  if (cameras.length) return `vetoed on ${cameras.join(", ")}`;
  const known = found.filter((one) => one.agreement != null).map((one) => one.agreement);
  return known.length ? `agrees ${Math.min(...known).toFixed(2)} with the reference` : "ready";
}

function showEvents(id, events) {
  $(id).replaceChildren(...(events.length ? [...events].reverse().map((one) => {
    const made = element("li");
    const at = new Date(1000 * one.t);
    const time = element("time", at.toLocaleTimeString());
    time.dateTime = at.toISOString();
    made.append(time, element("span", one.text));
    return made;
  }) : [element("li", "None since the gateway started.", "soft")]));
}

function health(text, kind) {
  write($("health"), text);
  $("health").className = `badge ${kind}`;
}

function notice(text) {
  $("notice").hidden = !text;
  write($("notice"), text);
}

// ---- Changes, for whoever has the token

async function ask(request) {
  const answer = await fetch("/control", { method: "POST", headers: { "Content-Type": "application/json" }, body: JSON.stringify(request) });
  if (answer.status === 401) location.assign("/login");
  return answer.headers.get("Content-Type").startsWith("application/json") ? answer.json() : { ok: false, error: await answer.text(), hint: "" };
}

function options(select, names, chosen) {
  const wanted = names.join("\n");
  if (select.dataset.names === wanted) return;
  select.dataset.names = wanted;
  select.replaceChildren(...names.map((name) => element("option", name)));
  if (chosen != null) select.value = chosen;
}

async function offerChanges() {
  $("controls").hidden = false;
  options($("set").elements.key, LIMITS);
  const profiles = await ask({ op: "profile" });
  if (profiles.ok) options($("profile").elements.profile, ["none", ...profiles.profiles.map((one) => one.name)], profiles.profile ?? "none");
}

function takeChanges() {
  // What is no number goes to the daemon as it is, which refuses it: null would lift the limit.
  const parse = (text) => (text.trim() === "none" ? null : text.trim() !== "" && isFinite(text) ? Number(text) : text);
  change("profile", (form) => ({ op: "profile", name: form.profile.value === "none" ? null : form.profile.value }));
  change("pin", (form) => ({ op: "pin", variant: form.variant.value === "the governor chooses" ? null : form.variant.value }));
  change("set", (form) => ({ op: "set", [form.key.value]: parse(form.value.value) }));
}

function change(id, request) {
  $(id).onsubmit = async (event) => {
    event.preventDefault();
    const reply = await ask(request($(id).elements)).catch((error) => ({ ok: false, error: String(error), hint: "" }));
    $("answer").className = reply.ok ? "" : "bad";
    write($("answer"), reply.ok ? ["done", ...(reply.changes ?? [])].join("; ") : `${reply.error}${reply.hint ? ` (${reply.hint})` : ""}`);
  };
}

// ---- Events of the gateway

function listen() {
  const source = new EventSource("/events");
  const on = (name, take) => source.addEventListener(name, (event) => take(JSON.parse(event.data)));
  on("welcome", (welcome) => { notice(""); if (welcome.may_change && $("controls").hidden) offerChanges(); });
  on("history", fill);
  on("silent", () => health("no daemon answers", "bad"));
  on("update", (update) => {
    showState(update);
    showCameras(update);
    showEvents("events", update.events);
    showEvents("objects", update.objects);
    add(update.row);
    options($("pin").elements.variant, ["the governor chooses", ...update.state.variants.filter((one) => !one.refused).map((one) => one.name)]);
  });
  source.onerror = async () => {
    health("not connected", "bad");
    if (source.readyState !== EventSource.CLOSED) return notice("The gateway does not answer; trying again.");
    const answer = await fetch("/page.js", { method: "HEAD" }).catch(() => null);
    if (answer && answer.status === 401) return location.assign("/login");
    notice("This page cannot be kept up to date: as many pages as may be are open, or the gateway has stopped. Trying again.");
    await wait(RETRY_MS + 4000 * Math.random());
    listen();
  };
}

takeChanges();
listen();
