// Four plots of the last ten minutes. Rows come as the gateway sends them, one a second; null is a gap.
const ROWS = 600;
const COLOURS = ["one", "two", "three", "four", "five"];
const rows = [];
const plots = [];

const style = (name) => getComputedStyle(document.documentElement).getPropertyValue(`--${name}`).trim();
const known = (value, digits, unit) => (value == null ? "unknown" : `${value.toFixed(digits)} ${unit}`);

export function fill(history) {
  rows.splice(0, rows.length, ...history.slice(-ROWS));
  draw();
}

export function add(row) {
  if (rows.length && row.t <= rows[rows.length - 1].t) return;
  rows.push(row);
  if (rows.length > ROWS) rows.shift();
  draw();
}

// Series of a line plot: [property of a row, colour, name, dashed].
const LINES = [
  ["power", "W", 1, [["power_w", "one", "power"], ["power_limit_w", "bad", "limit", true]]],
  ["temperature", "°C", 0, [["temperature_c", "one", "hottest"], ["temperature_limit_c", "bad", "limit", true]]],
  ["age", "ms", 0, [["age_ms", "one", "median"], ["worst_ms", "two", "worst"], ["deadline_ms", "bad", "deadline", true]]],
];

function draw() {
  if (!window.uPlot || !rows.length) return;
  const names = variants();
  if (plots.length === 0 || plots.variants !== names.join("\n")) build(names);
  for (const plot of plots) {
    plot.chart.setData(plot.data());
    plot.describe(rows.length - 1);
  }
}

function variants() {
  const found = new Set();
  for (const row of rows) for (const name of Object.keys(row.shares)) found.add(name);
  return [...found].sort().slice(0, 12);
}

function build(names) {
  for (const plot of plots) plot.chart.destroy();
  plots.length = 0;
  plots.variants = names.join("\n");
  for (const [id, unit, digits, series] of LINES) {
    const plot = make(id, series.map(([, colour, , dashed]) => line(colour, dashed)), {
      range: (_, low, high) => [Math.min(0, low ?? 0), (high ?? 1) * 1.1 || 1],
    });
    plot.data = () => [rows.map((row) => row.t), ...series.map(([key]) => rows.map((row) => row[key]))];
    plot.describe = (at) => {
      const row = rows[at];
      const estimated = id === "power" && row.power_estimated ? " (estimated)" : "";
      describe(id, series.filter(([key]) => row[key] != null || key === series[0][0]).map(([key, colour, name, dashed]) =>
        [dashed ? "limit" : colour, `${name} ${known(row[key], digits, unit)}${key === "power_w" ? estimated : ""}`]));
    };
    plots.push(plot);
  }
  // Shares lie on one another: a band for each variant, the first at the bottom.
  const plot = make("shares", names.map((_, n) => band(COLOURS[n % 5])).reverse(), { range: [0, 100] });
  plot.data = () => [rows.map((row) => row.t), ...names.map((_, n) => rows.map((row) => upTo(row.shares, names, n))).reverse()];
  plot.describe = (at) => describe("shares", names.filter((name) => rows[at].shares[name]).map((name) =>
    [COLOURS[names.indexOf(name) % 5], `${name} ${(100 * rows[at].shares[name]).toFixed(0)} %`]));
  plots.push(plot);
}

function upTo(shares, names, last) {
  let sum = null;
  for (let n = 0; n <= last; n++) if (shares[names[n]] != null) sum = (sum ?? 0) + 100 * shares[names[n]];
  return sum ?? (Object.keys(shares).length ? 0 : null);
}

const clockTime = (at) => new Date(1000 * at).toLocaleTimeString([], { hour: "2-digit", minute: "2-digit", second: rows.length < 120 ? "2-digit" : undefined });
const line = (colour, dashed) => ({ stroke: style(colour), width: 1.75, dash: dashed ? [6, 4] : undefined, points: { show: false } });
const band = (colour) => ({ stroke: style(colour), fill: style(colour), width: 0, points: { show: false } });

function make(id, series, y) {
  const box = document.querySelector(`#${id} > div`);
  const axis = { stroke: style("soft"), grid: { stroke: style("grid"), width: 1 }, ticks: { show: false }, font: "12px system-ui, sans-serif" };
  const plot = {};
  plot.chart = new window.uPlot({
    width: Math.max(200, box.clientWidth), height: 160, series: [{}, ...series],
    scales: { x: { time: true }, y }, axes: [{ ...axis, space: 110, size: 28, values: (_, splits) => splits.map(clockTime) }, { ...axis, size: 44 }],
    legend: { show: false }, cursor: { y: false, drag: { x: false, y: false }, points: { show: false } },
    hooks: { setCursor: [(chart) => plot.describe && plot.describe(chart.cursor.idx ?? rows.length - 1)] },
  }, [[]], box);
  plot.resize = () => plot.chart.setSize({ width: Math.max(200, box.clientWidth), height: 160 });
  return plot;
}

function describe(id, parts) {
  const words = document.querySelector(`#${id} figcaption span`);
  words.replaceChildren(...parts.flatMap(([colour, text]) => {
    const key = document.createElement("span");
    key.className = `key ${colour}`;
    key.textContent = text;
    return [key, "  "];
  }));
  const canvas = document.querySelector(`#${id} canvas`);
  canvas.setAttribute("role", "img");
  canvas.setAttribute("aria-label", `${id}: ${parts.map(([, text]) => text).join(", ") || "nothing known"}`);
}

new ResizeObserver(() => plots.forEach((plot) => plot.resize())).observe(document.querySelector(".plots"));
matchMedia("(prefers-color-scheme: dark)").addEventListener("change", () => {
  plots.variants = undefined;
  draw();
});
