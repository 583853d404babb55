// The tables of the page. Every text of a request or an operator becomes a text node, never markup.

import { OUTCOMES, number } from "./chart.js";

function cell(content, kind) {
  const element = document.createElement("td");
  if (kind) element.className = kind;
  element.append(content);
  return element;
}

/** Fills a table; without rows, says so. */
function fill(table, heads, rows, empty) {
  if (rows.length === 0) {
    const row = document.createElement("tr"),
      only = cell(empty, "empty");
    row.append(only);
    table.replaceChildren(row);
    return;
  }
  const head = document.createElement("tr");
  head.append(
    ...heads.map(([text, kind]) => {
      const element = document.createElement("th");
      element.scope = "col";
      if (kind) element.className = kind;
      element.textContent = text;
      return element;
    }),
  );
  table.replaceChildren(
    head,
    ...rows.map((cells) => {
      const row = document.createElement("tr");
      row.append(...cells);
      return row;
    }),
  );
}

/** The label of a limit; one on requests at a time in words. */
function limit(label) {
  return label.replace(/^(\d+)\/CONCURRENT$/, "$1 at a time");
}

function minute(seconds) {
  return `${new Date(seconds * 1000).toISOString().slice(0, 16)}Z`;
}

/** The part of its limits to which a rule is turned. */
function turned(scale) {
  const until = scale.expires_at === null ? "it is taken back" : minute(scale.expires_at);
  return `at ${scale.percent} % by ${scale.by}, until ${until}`;
}

function named(row) {
  const element = cell(row.rule, "name");
  if (row.scale) {
    const note = document.createElement("small");
    note.className = "turned";
    note.textContent = turned(row.scale);
    element.append(" ", note);
  }
  return element;
}

/** The limit of an explanation, and what a request holds of it until its cost is known. */
function held(limit) {
  const source = { request: "as asked", rule: "by the rule", learned: "as learned", max: "the most" };
  if (limit.estimate === null) return limit.limit;
  return `${limit.limit}, holds ${limit.estimate} (${source[limit.estimate_source]})`;
}

export function callers(table, rows, off, empty) {
  const count = (row) =>
    row.max_error ? `${number(row.count)}–${number(row.count + row.max_error)}` : number(row.count);
  fill(
    table,
    [["Count", "number"], ["Descriptor"], ["Rule"], ["Limit"]],
    rows.map((row) => [
      cell(count(row), "number"),
      cell(`${row.domain} ${row.descriptor}`, "name"),
      cell(row.rule, "name"),
      cell(limit(row.limit)),
    ]),
    off ? "Callers are not ranked: the setting admin.top_callers is 0." : empty,
  );
}

function bar(outcomes, total) {
  const element = document.createElement("div");
  element.className = "bar";
  element.role = "img";
  const parts = OUTCOMES.filter(([name]) => outcomes[name]);
  element.ariaLabel = parts.map(([name, label]) => `${label} ${outcomes[name]}`).join(", ");
  element.title = element.ariaLabel;
  element.append(
    ...parts.map(([name]) => {
      const part = document.createElement("span");
      part.style.width = `${(100 * outcomes[name]) / total}%`;
      part.style.background = `var(--${name})`;
      return part;
    }),
  );
  return element;
}

export function rules(table, rows, before, seconds) {
  const key = (row) => JSON.stringify([row.domain, row.rule, row.limit]);
  const sum = (row) => Object.values(row.outcomes).reduce((all, one) => all + one, 0);
  const earlier = new Map((before ?? []).map((row) => [key(row), sum(row)]));
  fill(
    table,
    [
      ["Domain"],
      ["Rule"],
      ["Limit"],
      ["Per second", "number"],
      ["Decisions", "number"],
      ["Over limit", "number"],
      ["Outcomes"],
    ],
    rows.map((row) => {
      const total = sum(row),
        over = (row.outcomes.over_limit ?? 0) + (row.outcomes.degraded_over_limit ?? 0);
      const rate = before ? Math.max(0, (total - (earlier.get(key(row)) ?? 0)) / seconds) : 0;
      return [
        cell(row.domain, "name"),
        named(row),
        cell(limit(row.limit)),
        cell(number(rate), "number"),
        cell(number(total), "number"),
        cell(`${((100 * over) / total).toFixed(over ? 1 : 0)} %`, "number"),
        cell(bar(row.outcomes, total)),
      ];
    }),
    "No request has met a limit since the start.",
  );
}

export function clients(table, found) {
  const until = (row) => (row.expires_at ? ` until ${minute(row.expires_at)}` : "");
  fill(
    table,
    [["Descriptor"], ["Plan"], ["Limits"]],
    found.clients.map((row) => [
      cell(`${row.domain} ${row.descriptor}`, "name"),
      cell(row.plan_missing ? `${row.plan}, which does not exist` : row.plan),
      cell(`${row.limits.join(" and ")}${row.shadow ? ", shadow" : ""}${until(row)}`),
    ]),
    "No client matches.",
  );
}

export function checks(list, state) {
  const rows = state.checks.map((check) => [check.name, check.text, check.ok]);
  const modes = state.modes.filter((mode) => mode.mode !== "enforce" || mode.domain === "");
  rows.push([
    "mode",
    modes.map((mode) => `${mode.domain || "all domains"}: ${mode.mode}`).join(", "),
    modes.every((mode) => mode.mode === "enforce"),
  ]);
  rows.push([
    "last reload",
    state.policies.last_reload_successful
      ? `in force, version ${state.policies.version}`
      : "refused; the log has the reason",
    state.policies.last_reload_successful,
  ]);
  rows.push([
    "replicas",
    `${state.replicas_seen} seen; registry revision ${state.registry_revision}`,
    true,
  ]);
  list.replaceChildren(
    ...rows.flatMap(([name, text, ok]) => {
      const term = document.createElement("dt"),
        detail = document.createElement("dd"),
        mark = document.createElement("span");
      term.textContent = name;
      mark.className = ok ? "good" : "bad";
      mark.textContent = ok ? "✓ " : "✗ ";
      detail.append(mark, text);
      return [term, detail];
    }),
  );
}

export function explained(place, answer) {
  const line = (text, kind) => {
    const element = document.createElement("p");
    if (kind) element.className = kind;
    element.textContent = text;
    return element;
  };
  const milliseconds = (value) =>
    value >= 1000 ? `${(value / 1000).toFixed(1)} s` : `${value} ms`;
  const parts = [
    line(
      answer.admitted ? "passes" : "over its limit",
      `verdict ${answer.admitted ? "good" : "bad"}`,
    ),
  ];
  if (!answer.domain_known)
    parts.push(line("No policy and no client names this domain, so nothing limits it."));
  else
    parts.push(
      line(
        {
          client: answer.plan
            ? `The client ${answer.client} of the plan ${answer.plan} sets the limit.`
            : `The client ${answer.client} sets the limit.`,
          rule: `Rule ${answer.rule} (${answer.place}) sets the limit.`,
          override: "The override of the request sets the limit.",
          none: "No rule matches, so nothing limits it.",
          invalid_override: "The override of the request cannot be understood.",
        }[answer.decided_by] ?? answer.decided_by,
      ),
    );
  if (answer.plan_missing)
    parts.push(line(`The plan ${answer.plan_missing} of the client does not exist.`));
  if (answer.scale)
    parts.push(line(`The rule is ${turned(answer.scale)}. The limits are that part.`));
  if (answer.mode !== "enforce" || answer.shadow)
    parts.push(
      line(`It is not enforced: ${answer.shadow ? "shadow mode" : `mode ${answer.mode}`}.`),
    );
  if (answer.limits.length > 0) {
    const table = document.createElement("table"),
      scroll = document.createElement("div");
    scroll.className = "scroll";
    scroll.append(table);
    fill(
      table,
      [["Limit"], ["Left after it", "number"], ["Passes in", "number"], ["Counter"]],
      answer.limits.map((limit) => [
        cell(held(limit)),
        cell(
          limit.degraded ? `${limit.remaining}, without the store` : String(limit.remaining),
          "number",
        ),
        cell(
          limit.passes
            ? "now"
            : limit.retry_after_ms === null
              ? "never"
              : milliseconds(limit.retry_after_ms),
          "number",
        ),
        cell(limit.key, "name"),
      ]),
      "",
    );
    parts.push(scroll);
  }
  place.replaceChildren(...parts);
}
