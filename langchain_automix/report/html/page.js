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
