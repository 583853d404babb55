// The status page: asks for the state each second, and shows it.

import { History, draw, legend } from "./chart.js";
import { callers, checks, clients, explained, rules } from "./tables.js";

const at = (id) => document.getElementById(id);
const PERIOD = 1000;
// Longer than a busy replica takes; a state that comes later is of no use.
const TIMEOUT = 4000;

const history = new History();
let before = null;

async function json(path) {
  const answer = await fetch(path, { signal: AbortSignal.timeout(TIMEOUT) });
  if (!answer.ok) throw new Error((await answer.text()).trim() || `status ${answer.status}`);
  return answer.json();
}

function duration(seconds) {
  const units = [
    [86400, "d"],
    [3600, "h"],
    [60, "min"],
    [1, "s"],
  ];
  const [size, name] = units.find(([unit]) => seconds >= unit) ?? [1, "s"];
  return `${Math.floor(seconds / size)} ${name}`;
}

function show(state, now) {
  const same = before !== null && state.uptime_seconds >= before.state.uptime_seconds;
  const seconds = same ? (now - before.now) / 1000 : 1;
  if (same) history.add(before.state.outcomes, state.outcomes, seconds);
  draw(at("chart"), history);
  legend(at("legend"), history);
  callers(
    at("limited"),
    state.limited,
    state.top_is_off,
    "No request was limited in the last minute.",
  );
  callers(
    at("busiest"),
    state.busiest,
    state.top_is_off,
    "No request had a limit in the last minute.",
  );
  rules(at("rules"), state.rules, same ? before.state.rules : null, seconds);
  at("rules-note").textContent = state.rules_left_out
    ? `the first ${state.rules.length}; ${state.rules_left_out} more are at /metrics`
    : "since the start";
  checks(at("checks"), state);
  const { policies } = state;
  at("about").textContent =
    `${state.version}, up ${duration(state.uptime_seconds)}, domains ${policies.domains}, rules ${policies.rules}, clients ${state.clients}`;
  const sick = state.checks.filter((check) => !check.ok);
  const health = at("health");
  health.className = `pill ${sick.length === 0 && state.store_up ? "good" : "bad"}`;
  const text =
    sick.length > 0
      ? `look at: ${sick.map((check) => check.name).join(", ")}`
      : state.store_up
        ? "well"
        : "store away";
  if (health.textContent !== text) health.textContent = text;
  document.body.classList.remove("stale");
  before = { state, now };
}

function lost(error) {
  document.body.classList.add("stale");
  const health = at("health");
  health.className = "pill bad";
  health.textContent = "no answer; these are the last numbers";
  health.title = String(error);
}

async function follow() {
  for (;;) {
    const begun = performance.now();
    // A page that nobody sees asks for nothing.
    if (!document.hidden) {
      try {
        show(await json("/status/state.json"), performance.now());
      } catch (error) {
        lost(error);
      }
    }
    await new Promise((done) =>
      setTimeout(done, Math.max(200, PERIOD - (performance.now() - begun))),
    );
  }
}

at("explain").addEventListener("submit", async (event) => {
  event.preventDefault();
  const form = new FormData(event.target);
  const query = new URLSearchParams({ domain: form.get("domain").trim() });
  for (const entry of form.get("entries").trim().split(/\s+/)) query.append("entry", entry);
  const place = at("explained");
  try {
    explained(place, await json(`/status/explain.json?${query}`));
  } catch (error) {
    const line = document.createElement("p");
    line.className = "bad";
    line.textContent = error.message;
    place.replaceChildren(line);
  }
});

async function search() {
  const form = new FormData(at("search"));
  const query = new URLSearchParams({
    text: form.get("text").trim(),
    domain: form.get("domain").trim(),
  });
  const note = at("clients-note");
  try {
    const found = await json(`/status/clients.json?${query}`);
    clients(at("clients"), found);
    note.textContent = found.more
      ? `the first ${found.clients.length}; search for more`
      : `${found.clients.length} of ${found.total}`;
  } catch (error) {
    note.textContent = error.message;
  }
}

at("search").addEventListener("submit", (event) => {
  event.preventDefault();
  search();
});

at("theme").addEventListener("click", () => {
  const root = document.documentElement;
  const dark = root.dataset.theme
    ? root.dataset.theme === "dark"
    : matchMedia("(prefers-color-scheme: dark)").matches;
  root.dataset.theme = dark ? "light" : "dark";
});

addEventListener("resize", () => draw(at("chart"), history));
search();
follow();
