// What the page shows of the server's state: figures of a window, and how the mixes do.
const many = (number, noun, plural) => `${whole(number)} ${number === 1 ? noun : plural || `${noun}s`}`;
const queries = (number) => many(number, "query", "queries");
const secondsText = (value) => (!known(value) ? "unknown" : value < 0.9995 ? `${threeDigits.format(1000 * value)} ms` : `${threeDigits.format(value)} s`);
const percent = (share) => `${share > 0 && share < 0.01 ? "under 1" : Math.round(100 * share)}\u00a0%`;
const NO_BREAK = /(\d) (?=%|USD|ms|s\b)/g;
const unbroken = (words) => words.replace(NO_BREAK, "$1\u00a0");
const OUTCOMES = ["kept", "escalated", "abstained", "failed", "cancelled"];
const STAGES = { whole: "Whole query", draft: "Draft", verify: "Check", route: "Decision", escalate: "Larger model" };

const saving = (tally) => (tally.compared && tally.alone > 0 ? 1 - tally.compared_cost / tally.alone : null);

function savedText(share) {
  if (!known(share)) return "unknown";
  if (Math.abs(share) < 0.005) return "the same";
  return share > 0 ? `${percent(share)} less` : `${percent(-share)} more`;
}

// Of which queries the comparison speaks, and how sure it is.
function basisText(tally) {
  const answered = tally.queries - (tally.outcomes.failed || 0) - (tally.outcomes.cancelled || 0);
  const said = [];
  if (tally.estimated) said.push(`That is estimated for ${whole(tally.estimated)} of ${queries(tally.compared)}, where it was not asked.`);
  else if (tally.compared) said.push("That is measured: it was asked each time.");
  if (answered > tally.compared) said.push(`${queries(answered - tally.compared)} of unknown cost cannot be compared.`);
  return said.join(" ");
}

function headline(tally, mixes) {
  const who = mixes === 1 ? "The mix costs" : "The mixes cost";
  const share = saving(tally);
  if (!tally.queries) return "No query in this time.";
  if (!known(share)) return "Saved against the largest model alone: unknown.";
  if (Math.abs(share) < 0.005) return `${who} as much as the largest model alone.`;
  return `${who} ${percent(Math.abs(share))} ${share > 0 ? "less" : "more"} than the largest model alone.`;
}

function shareOf(tally, ...names) {
  return tally.queries ? names.reduce((sum, name) => sum + (tally.outcomes[name] || 0), 0) / tally.queries : null;
}

function card(name, value, ...detail) {
  return make("div", { class: "card" }, make("dt", null, name), make("dd", { class: "value" }, unbroken(value)),
    make("dd", { class: "detail" }, ...detail.map((each) => (typeof each === "string" ? unbroken(each) : each))));
}

function sharesBar(tally) {
  const svg = draw("svg", { class: "shares", viewBox: "0 0 100 4", preserveAspectRatio: "none", "aria-hidden": "true" });
  let from = 0;
  for (const name of OUTCOMES) {
    const share = 100 * (shareOf(tally, name) || 0);
    if (share) svg.append(draw("rect", { class: `part ${name}`, x: from, y: 0, width: share, height: 4 }));
    from += share;
  }
  return svg;
}

function showNumbers(state, tally) {
  const time = tally.latency.whole, parts = OUTCOMES.slice(1).filter((name) => tally.outcomes[name]);
  const unpriced = tally.unpriced ? ` The cost of ${queries(tally.unpriced)} is unknown, and not in it.` : "";
  const alone = tally.compared
    ? `Answers: ${costText(tally.compared_cost)}, against ${costText(tally.alone)} for the largest model alone. ` : "";
  const priced = tally.queries > tally.unpriced || !tally.queries;
  byId("numbers").replaceChildren(
    card("Cost", priced ? costText(tally.cost) : "unknown", `${alone}${basisText(tally)}${unpriced}`.trim()),
    card("Kept", tally.queries ? percent(shareOf(tally, "kept")) : "none yet", sharesBar(tally),
      parts.map((name) => `${name} ${percent(shareOf(tally, name))}`).join(", ") || "with the answer of the first model"),
    card("Time of a query", time ? secondsText(time.median) : "none yet",
      `${time ? `median; 95 % within ${secondsText(time.p95)}. ` : ""}${many(tally.queries, "query", "queries")} ended.`),
    card("In flight", whole(state.in_flight), state.in_flight === 1 ? "query under way" : "queries under way"),
  );
}

// Explicit roles: a narrow screen lays rows out as blocks, which would lose them.
function table(caption, heads, rows) {
  const head = (each) => make("th", { scope: "col", role: "columnheader" }, each);
  return make("div", { class: "scrolls told", tabindex: "0", role: "region", "aria-label": caption },
    make("table", { role: "table" }, make("caption", { class: "unseen" }, caption),
      make("thead", { role: "rowgroup" }, make("tr", { role: "row" }, ...heads.map(head))),
      make("tbody", { role: "rowgroup" }, ...rows)));
}

function row(heads, cells) {
  const shown = (each) => (typeof each === "string" ? unbroken(each) : each);
  return make("tr", { role: "row" }, make("th", { scope: "row", role: "rowheader", dir: "auto" }, shown(cells[0])),
    ...cells.slice(1).map((each, k) => make("td", { role: "cell", "data-name": heads[k + 1] }, shown(each))));
}

const EMPTY = { queries: 0, outcomes: {}, cost: 0, unpriced: 0, compared: 0, compared_cost: 0, alone: 0, estimated: 0 };

function showMixes(state, tally) {
  const heads = ["Mix", "Queries", "Kept", "Escalated", "Failed", "Cost", "Against the largest"];
  const share = (one, ...names) => (one.queries ? percent(shareOf(one, ...names)) : "–");
  const cost = (one) => (one.queries && one.queries === one.unpriced ? "unknown" : costText(one.cost));
  const rows = state.mixes.map((mix) => {
    const one = tally.mixes[mix.name] || EMPTY;
    const name = make("span", null, mix.name, make("span", { class: "under" }, mix.models.join(" → ")),
      make("span", { class: "under" }, mix.policy === null ? "no policy file" : `policy ${mix.policy}`));
    const basis = one.estimated ? `${one.estimated < one.compared ? "partly " : ""}estimated` : "";
    const against = make("span", null, one.queries ? savedText(saving(one)) : "–", make("span", { class: "under" }, basis));
    return row(heads, [name, whole(one.queries), share(one, "kept"), share(one, "escalated"), share(one, "failed"), cost(one), against]);
  });
  const learning = state.mixes.filter((mix) => mix.learning).map((mix) =>
    make("details", null, make("summary", null, `What ${mix.name} has learned`),
      make("ul", { class: "notes" }, ...mix.learning.map((line) => make("li", { dir: "auto" }, unbroken(line))))));
  replaceKept(byId("mixes"), table("Figures of each mix", heads, rows), ...learning);
}

function showLatency(tally) {
  const heads = ["Stage", "Median", "95 % within", "Queries"];
  const rows = Object.keys(STAGES).filter((stage) => tally.latency[stage]).map((stage) => {
    const one = tally.latency[stage];
    return row(heads, [STAGES[stage], secondsText(one.median), secondsText(one.p95), whole(one.queries)]);
  });
  replaceKept(byId("latency"), rows.length ? table("Median and 95 % by stage", heads, rows) : make("p", { class: "note" }, "No query in this time."));
}

// Replaces what a node holds, and leaves open what was open, scrolled what was scrolled, and the focus where it was.
function replaceKept(node, ...children) {
  const open = [...node.querySelectorAll("details")].map((each) => each.open);
  const wanted = ".scrolls, summary", found = [...node.querySelectorAll(wanted)];
  const left = found.map((each) => each.scrollLeft), focus = found.indexOf(document.activeElement);
  node.replaceChildren(...children);
  node.querySelectorAll("details").forEach((each, k) => { each.open = Boolean(open[k]); });
  node.querySelectorAll(wanted).forEach((each, k) => {
    each.scrollLeft = left[k] || 0;
    if (k === focus) each.focus({ preventScroll: true });
  });
}

// Returns the lines of the chart: a minute without a query costs nothing, one of unknown cost parts a line in two.
function costLines({ minutes, now }) {
  const over = minutes.filter((each) => each.at + MINUTE <= now); // the present one is still to grow
  const byTime = new Map(over.map((each) => [each.at, each])), lines = [[]];
  if (!over.length) return [];
  for (let { at } = over[0]; at <= over.at(-1).at; at += MINUTE) {
    const each = byTime.get(at) || { at, cost: 0, alone: 0 };
    if (each.queries && !each.compared) lines.push([]);
    else lines.at(-1).push(each);
  }
  return lines.filter((line) => line.length > 1);
}

function showCost(state) {
  const lines = costLines(state), all = lines.flat();
  byId("cost").hidden = !all.length; // before two minutes are over
  const node = byId("cost-chart"), width = Math.floor(node.parentElement.clientWidth);
  if (!all.length || width < 40) { node.replaceChildren(); return; }
  const clock = (at) => new Date(1000 * at).toLocaleTimeString("en-GB", { hour: "2-digit", minute: "2-digit" });
  const top = Math.max(...all.flatMap((each) => [each.cost, each.alone])) || 1;
  const { svg, x, y } = axes(width, 240, {
    x: { ends: [all[0].at, all.at(-1).at], scale: times, label: "time", format: clock },
    y: { ends: [0, 1.05 * top], label: "USD a minute", format: costNumber },
  });
  for (const line of lines) {
    const along = (name) => points(x, y, line.map((each) => [each.at, each[name]]));
    svg.append(draw("polyline", { class: "mix", points: along("alone") }), draw("polyline", { class: "frontier", points: along("cost") }));
  }
  node.replaceChildren(svg);
  const sum = (name) => costText(all.reduce((total, each) => total + each[name], 0));
  node.setAttribute("aria-label", `Cost by the minute: ${sum("cost")} in all, against ${sum("alone")} for the largest model alone.`);
}
