"use strict";
// All that the scripts show is made with these: text only ever becomes a text node.
const report = JSON.parse(document.getElementById("report-data").textContent);
const byId = (id) => document.getElementById(id);

function fill(node, attributes, children) {
  for (const [name, value] of Object.entries(attributes || {})) {
    if (value === null || value === undefined || value === false) continue;
    if (typeof value === "function") node.addEventListener(name, value);
    else node.setAttribute(name, value === true ? "" : value);
  }
  node.append(...children.filter((child) => child !== null));
  return node;
}

function make(name, attributes, ...children) {
  return fill(document.createElement(name), attributes, children);
}

function draw(name, attributes, ...children) {
  return fill(document.createElementNS("http://www.w3.org/2000/svg", name), attributes, children);
}

const threeDigits = new Intl.NumberFormat("en", { maximumSignificantDigits: 3 });
const known = (value) => value !== null && value !== undefined;
const whole = (value) => value.toLocaleString("en");
const minus = (shown) => shown.replace("-", "\u2212");
const costNumber = (value) => (known(value) ? threeDigits.format(value) : "unknown");
const unit = report.currency ? ` ${report.currency}` : "";
const costText = (value) => (known(value) ? costNumber(value) + unit : "unknown");
const qualityText = (value) => (known(value) ? value.toFixed(3) : "unknown");
const shareText = (value) => (known(value) ? `${(100 * value).toFixed(1)}%` : "unknown");
const signed = (value) => (Math.abs(value) < 0.0005 ? "0.000" : (value < 0 ? "" : "+") + minus(value.toFixed(3)));

// The stops of the slider: the policies on the frontier, and this one among them.
const own = { ...report.point, cost_weight: report.costWeight, own: true };
const same = (a, b) => Math.abs(a - b) <= 1e-9 * Math.max(Math.abs(a), Math.abs(b));
const stops = report.frontier
  .filter((stop) => !(same(stop.cost, own.cost) && same(stop.quality, own.quality)))
  .concat(own)
  .sort((a, b) => a.cost - b.cost || a.quality - b.quality);
let chosen = own;

function dearest() {
  const singles = report.baselines.filter((each) => each.name.startsWith("always:"));
  return singles.length ? singles[singles.length - 1] : null;
}

function readings(stop) {
  const found = [
    ["Quality", qualityText(stop.quality), known(stop.quality_interval)
      ? `${qualityText(stop.quality_interval[0])} to ${qualityText(stop.quality_interval[1])}` : ""],
    ["Cost of a query", costText(stop.cost), ""],
    ["Escalated", shareText(stop.escalation_rate), ""],
    ["Verdicts drawn", known(stop.verification_samples)
      ? stop.verification_samples.toFixed(1) : "unknown", "mean per query"],
  ];
  const large = dearest();
  if (large && large.cost > 0) {
    const change = stop.cost / large.cost - 1;
    const by = Math.abs(change) < 0.005 ? "0" : `${change > 0 ? "+" : ""}${minus((100 * change).toFixed(0))}`;
    found[1][2] = `${by}% against ${large.label}`;
    found[0][2] += `${found[0][2] ? "; " : ""}${signed(stop.quality - large.quality)} against ${large.label}`;
  }
  return found;
}

function describe(stop) {
  const name = stop.own ? "This policy: " : "";
  return `${name}cost ${costText(stop.cost)} a query, quality ${qualityText(stop.quality)}`;
}

let announcement = 0;
function choose(stop, aloud) {
  chosen = stop;
  const range = byId("stop");
  range.value = stops.indexOf(stop);
  range.setAttribute("aria-valuetext", describe(stop));
  byId("chosen-name").textContent = stop.own ? "This policy" : "Another policy on the frontier";
  byId("back").hidden = Boolean(stop.own);
  byId("chosen").replaceChildren(...readings(stop).map(([name, value, more]) =>
    make("div", null, make("dt", { title: report.words[name] || null }, name), make("dd", { class: "value" }, value),
      make("dd", { class: "detail", dir: "auto" }, more))));
  const fitted = known(stop.cost_weight) && !stop.own;
  byId("command-words").textContent = fitted ? "To have it, fit for its cost weight:"
    : stop.own ? `Its cost weight: ${costNumber(stop.cost_weight)} of quality for one${unit || " unit of cost"}.` : "";
  byId("command").textContent =
    fitted ? `automix fit LOG --out policy.json --cost-weight ${Number(stop.cost_weight.toPrecision(4))}` : "";
  document.dispatchEvent(new Event("chosen"));
  if (!aloud) return;
  // The slider itself announces cost and quality; announce the rest once it has stopped moving.
  clearTimeout(announcement);
  announcement = setTimeout(() => {
    byId("chosen-status").textContent = readings(stop).slice(2).map((r) => `${r[0]} ${r[1]}`).join(", ");
  }, 600);
}

if (stops.length > 1) {
  const range = byId("stop");
  range.max = stops.length - 1;
  range.addEventListener("input", () => choose(stops[Number(range.value)], true));
  byId("back").addEventListener("click", () => { choose(own, true); range.focus(); });
  choose(own, false);
  byId("slider").hidden = false;
}
