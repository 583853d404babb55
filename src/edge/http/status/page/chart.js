// The chart of decisions per second: stacked areas by outcome, drawn as SVG.

export const OUTCOMES = [
  ["admitted", "admitted"],
  ["near_limit", "near limit"],
  ["over_limit", "over limit"],
  ["shadowed", "shadowed"],
  ["degraded_admitted", "degraded, admitted"],
  ["degraded_over_limit", "degraded, over limit"],
  ["peek", "peek"],
  ["refund", "refund"],
];

const SPACE = "http://www.w3.org/2000/svg";
const SECONDS = 120;

/** The rates of the last two minutes, one per second. */
export class History {
  constructor() {
    this.points = [];
  }

  /** Adds the rates between two states of the same process. */
  add(before, now, seconds) {
    const rate = ([name]) => Math.max(0, ((now[name] ?? 0) - (before[name] ?? 0)) / seconds);
    this.points.push(OUTCOMES.map(rate));
    this.points.splice(0, this.points.length - SECONDS);
  }

  get last() {
    return this.points.at(-1) ?? OUTCOMES.map(() => 0);
  }
}

function shape(name, attributes, text) {
  const element = document.createElementNS(SPACE, name);
  for (const [key, value] of Object.entries(attributes)) element.setAttribute(key, value);
  if (text !== undefined) element.textContent = text;
  return element;
}

/** The next number of the form 1, 2 or 5 times a power of ten. */
function ceiling(value) {
  const power = 10 ** Math.floor(Math.log10(Math.max(value, 1)));
  return [1, 2, 5, 10].map((step) => step * power).find((step) => step >= value) ?? value;
}

export function number(value) {
  if (value >= 1e6) return `${(value / 1e6).toFixed(1)}M`;
  if (value >= 1e4) return `${(value / 1e3).toFixed(1)}k`;
  return value >= 10 || Number.isInteger(value) ? String(Math.round(value)) : value.toFixed(1);
}

export function draw(svg, history) {
  const width = svg.clientWidth || 600,
    height = svg.clientHeight || 170,
    left = 44,
    bottom = 18;
  const sums = history.points.map((rates) => rates.reduce((sum, rate) => sum + rate, 0));
  const top = ceiling(Math.max(1, ...sums));
  const x = (i) => left + ((width - left) * (SECONDS - history.points.length + i + 1)) / SECONDS;
  const y = (value) => (height - bottom) * (1 - value / top) + 4;
  const parts = [];
  for (const part of [0, 0.5, 1]) {
    parts.push(shape("line", { x1: left, x2: width, y1: y(top * part), y2: y(top * part) }));
    parts.push(
      shape(
        "text",
        { x: left - 6, y: y(top * part) + 4, "text-anchor": "end" },
        number(top * part),
      ),
    );
  }
  for (const [ago, text] of [
    [0, "now"],
    [60, "1 min ago"],
  ]) {
    const at = width - ((width - left) * ago) / SECONDS;
    parts.push(
      shape("text", { x: at, y: height - 2, "text-anchor": ago ? "middle" : "end" }, text),
    );
  }
  const below = history.points.map(() => 0);
  OUTCOMES.forEach(([name], i) => {
    if (!history.points.some((rates) => rates[i] > 0)) return;
    // A point stands for the second before it, so that the first one has an area, too.
    const line = () =>
      below.flatMap((value, at) => [at - 1, at].map((side) => `${x(side)},${y(value)}`));
    const lower = line().reverse();
    history.points.forEach((rates, at) => {
      below[at] += rates[i];
    });
    const upper = line();
    parts.push(
      shape("polygon", { points: [...upper, ...lower].join(" "), fill: `var(--${name})` }),
    );
  });
  svg.setAttribute("viewBox", `0 0 ${width} ${height}`);
  svg.replaceChildren(...parts);
}

export function legend(list, history) {
  const rates = history.last;
  const entries = OUTCOMES.map(([name, label], i) => ({
    name,
    label,
    rate: rates[i],
    seen: history.points.some((point) => point[i] > 0),
  }));
  list.replaceChildren(
    ...entries
      .filter((entry) => entry.seen || entry.name === "admitted" || entry.name === "over_limit")
      .map((entry) => {
        const item = document.createElement("li"),
          colour = document.createElement("i");
        // A style attribute would be refused, a property is not.
        colour.style.background = `var(--${entry.name})`;
        item.append(colour, `${entry.label} ${number(entry.rate)}`);
        item.dataset.outcome = entry.name;
        return item;
      }),
  );
}
