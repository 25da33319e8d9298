// Charts: drawn to the available width, and again when it changes.
const FONT = "12px system-ui, sans-serif";
const ruler = document.createElement("canvas").getContext("2d");
ruler.font = FONT;
const widthOf = (words) => ruler.measureText(words).width;
const cut = (words, most) => (words.length > most ? `${words.slice(0, most - 1)}…` : words);

function ticks(low, high, count) {
  const rough = (high - low) / count;
  const power = 10 ** Math.floor(Math.log10(rough));
  const step = [1, 2, 2.5, 5, 10].find((each) => each * power >= rough * 0.999) * power;
  const found = [];
  for (let k = Math.ceil(low / step - 1e-9); k * step <= high + step * 1e-9; k += 1) found.push(k * step + 0); // no -0
  return found;
}

function linear(low, high, from, to) {
  const scale = (value) => from + ((value - low) / (high - low)) * (to - from);
  scale.ticks = (count) => ticks(low, high, count);
  scale.ends = [low, high];
  return scale;
}

function logarithmic(low, high, from, to) {
  const inner = linear(Math.log10(low), Math.log10(high), from, to);
  const scale = (value) => inner(Math.log10(value));
  scale.ticks = (count) => {
    const powers = [];
    for (let k = Math.ceil(inner.ends[0]); k <= inner.ends[1]; k += 1) powers.push(10 ** k);
    if (powers.length < 3) return powers.flatMap((p) => [p, 2 * p, 5 * p]).filter((p) => p <= high);
    return powers.filter((_, k) => k % Math.ceil(powers.length / count) === 0);
  };
  scale.ends = [low, high];
  return scale;
}

// Draws axes; `spec` has x and y, each with its ends, label and number format, and whether x is logarithmic.
function axes(width, height, spec) {
  const left = 46, right = 16, top = 26, bottom = 44;
  const kind = spec.x.log ? logarithmic : linear;
  const x = kind(...spec.x.ends, left, width - right);
  const y = linear(...spec.y.ends, height - bottom, top);
  const svg = draw("svg", { viewBox: `0 0 ${width} ${height}`, width, height, "aria-hidden": "true" });
  for (const value of y.ticks(5)) {
    svg.append(
      draw("line", { class: "grid", x1: left, x2: width - right, y1: y(value), y2: y(value) }),
      draw("text", { class: "tick", x: left - 8, y: y(value) + 4, "text-anchor": "end" }, spec.y.format(value)),
    );
  }
  let end = -Infinity;
  for (const value of x.ticks(width < 480 ? 4 : 7)) {
    const shown = spec.x.format(value), half = widthOf(shown) / 2;
    const at = Math.min(x(value), width - half - 1);
    if (at - half < end + 8) continue;
    end = at + half;
    svg.append(
      draw("line", { class: "grid", x1: x(value), x2: x(value), y1: height - bottom, y2: height - bottom + 5 }),
      draw("text", { class: "tick", x: at, y: height - bottom + 19, "text-anchor": "middle" }, shown),
    );
  }
  const across = cut(spec.x.label, Math.floor((width - left) / 6.3));
  svg.append(
    draw("line", { class: "axis", x1: left, x2: width - right, y1: height - bottom, y2: height - bottom }),
    draw("text", { class: "name", x: width - right, y: height - 6, "text-anchor": "end" }, across),
    draw("text", { class: "name", x: 2, y: 13 }, cut(spec.y.label, Math.floor(width / 6.3))),
  );
  return { svg, x, y, box: [left, top, width - right, height - bottom] };
}

// Returns points all along a line, so that labels keep off it.
function along(line) {
  return line.flatMap(([a, b], k) => {
    const [c, d] = line[k + 1] || [a, b];
    const steps = Math.max(1, Math.round(Math.hypot(c - a, d - b) / 8));
    return Array.from({ length: steps }, (_, i) => [a + ((c - a) * i) / steps, b + ((d - b) * i) / steps, 4]);
  });
}

const points = (x, y, pairs) => pairs.map(([a, b]) => `${x(a).toFixed(1)},${y(b).toFixed(1)}`).join(" ");

function padded(values, share, floor, ceiling) {
  let low = Math.min(...values), high = Math.max(...values);
  const pad = (high - low) * share || Math.abs(high) * 0.1 || 0.1;
  return [Math.max(floor, low - pad), Math.min(ceiling, high + pad)];
}

// Puts each label where it hides the fewest labels and marks; leaves out one that fits nowhere.
function label(svg, box, wanted, marks) {
  const taken = marks.map(([x, y, r]) => [x - r, y - r, x + r, y + r]);
  const hidden = (a, b) =>
    Math.max(0, Math.min(a[2], b[2]) - Math.max(a[0], b[0])) * Math.max(0, Math.min(a[3], b[3]) - Math.max(a[1], b[1]));
  for (const { x, y, words, kind } of wanted) {
    const width = widthOf(words) * (kind === "policy" ? 1.08 : 1);
    let best = null;
    for (const away of [10, 20, 34, 52]) {
      for (const [dx, dy] of [[1, 0], [-1, 0], [0.6, -1], [0.6, 1], [-0.6, -1], [-0.6, 1], [0, -1], [0, 1]]) {
        const middle = [x + dx * away + (Math.sign(dx) * width) / 2, y + dy * away];
        const place = [middle[0] - width / 2 - 2, middle[1] - 8, middle[0] + width / 2 + 2, middle[1] + 8];
        if (place[0] < box[0] || place[1] < box[1] - 4 || place[2] > box[2] + 12 || place[3] > box[3]) continue;
        const penalty = away + taken.reduce((sum, other) => sum + hidden(place, other), 0) * 0.6;
        if (!best || penalty < best.penalty) best = { penalty, place, middle, away, dx, dy };
      }
    }
    if (!best || best.penalty > 75) continue;
    taken.push(best.place);
    if (best.away > 15) {
      const near = [x + best.dx * 7, y + best.dy * 7];
      const far = [Math.max(best.place[0], Math.min(x + best.dx * best.away, best.place[2])), best.middle[1] - Math.sign(best.dy) * 7 * Math.abs(best.dy)];
      svg.append(draw("line", { class: "leader", x1: near[0], y1: near[1], x2: far[0], y2: far[1] }));
    }
    svg.append(draw("text", { class: `label ${kind}`, x: best.middle[0], y: best.middle[1] + 4, "text-anchor": "middle" }, words));
  }
}

function interval(x, y, point, kind) {
  const group = draw("g", { class: `interval ${kind}` });
  const across = point.cost_interval, up = point.quality_interval;
  const [cx, cy] = [x(point.cost), y(point.quality)];
  if (across) group.append(draw("path", { d: across.map(x).map((e) => `M${cx} ${cy}H${e}m0-4v8`).join("") }));
  if (up) group.append(draw("path", { d: up.map(y).map((e) => `M${cx} ${cy}V${e}m-4 0h8`).join("") }));
  return group;
}

function mark(x, y, kind, title) {
  const name = draw("title", null, title);
  if (kind === "single") return draw("rect", { class: kind, x: x - 4.5, y: y - 4.5, width: 9, height: 9 }, name);
  if (kind === "oracle") return draw("path", { class: kind, d: `M${x} ${y - 6}l6 6l-6 6l-6-6z` }, name);
  return draw("circle", { class: kind, cx: x, cy: y, r: { policy: 5.5, own: 8, stop: 2.5 }[kind] || 4 }, name);
}

function plane(width) {
  const { baselines, frontier } = report;
  const all = [own, ...baselines, ...frontier];
  const costs = all.map((p) => p.cost).concat(own.cost_interval || []);
  const log = Math.min(...costs) > 0 && Math.max(...costs) / Math.min(...costs) > 60;
  const most = Math.max(...costs) || 1;
  const ends = log ? [Math.min(...costs) / 1.5, most * 1.6] : [0, most * 1.06];
  const high = all.map((p) => p.quality).concat(own.quality_interval || [], ...stops.map((s) => s.quality_interval || []));
  const drawing = axes(width, width < 480 ? 360 : 430, {
    x: { ends, log, label: `Cost of a query${report.currency ? `, ${report.currency}` : ""}${log ? " (logarithmic)" : ""}`, format: costNumber },
    y: { ends: padded(high, 0.07, 0, 1), label: "Quality", format: (v) => v.toFixed(2) },
  });
  const { svg, x, y, box } = drawing;
  const singles = baselines.filter((b) => b.name.startsWith("always:"));
  if (singles.length > 1) {
    const [a, b] = [singles[0], singles[singles.length - 1]];
    const mixed = Array.from({ length: 41 }, (_, k) => [a.cost + (k / 40) * (b.cost - a.cost), a.quality + (k / 40) * (b.quality - a.quality)]);
    svg.append(draw("polyline", { class: "mix", points: points(x, y, mixed) }));
  }
  const line = frontier.map((p) => [p.cost, p.quality]).sort((a, b) => a[0] - b[0]);
  svg.append(draw("polyline", { class: "frontier", points: points(x, y, line) }));
  const marks = along(line.map(([c, q]) => [x(c), y(q)]));
  svg.append(...line.map(([c, q]) => mark(x(c), y(q), "stop", `cost ${costText(c)}, quality ${qualityText(q)}`)));
  const wanted = [{ x: x(own.cost), y: y(own.quality), words: "this policy", kind: "policy" }];
  marks.push([x(own.cost), y(own.quality), 9]);
  for (const [a, b] of [own.cost_interval && own.cost_interval.map((c) => [x(c), y(own.quality)]),
    own.quality_interval && own.quality_interval.map((q) => [x(own.cost), y(q)])].filter(Boolean)) marks.push(...along([a, b]));
  for (const each of baselines) {
    const kind = each.name.startsWith("always:") ? "single" : each.name === "oracle" ? "oracle" : "other";
    const at = [x(each.cost), y(each.quality)];
    svg.append(mark(...at, kind, `${each.label}: cost ${costText(each.cost)}, quality ${qualityText(each.quality)}`));
    marks.push([...at, 6]);
    wanted.push({ x: at[0], y: at[1], words: cut(each.label, 26), kind });
  }
  svg.append(mark(x(own.cost), y(own.quality), "own", "this policy"));
  label(svg, box, wanted, marks);
  const moving = draw("g");
  const move = () => moving.replaceChildren(
    interval(x, y, chosen, "policy"),
    mark(x(chosen.cost), y(chosen.quality), "policy", describe(chosen)),
  );
  move();
  svg.append(moving);
  return { svg, move };
}

const radius = (queries, most) => 2.5 + 3 * Math.sqrt(queries / most);

function benefit(width, number) {
  const { model, larger, groups, curve, price } = report.benefits[number];
  const heights = groups.flatMap((g) => [g.benefit - g.error, g.benefit + g.error]).concat(curve.map((c) => c[1]), 0);
  // A price far above every benefit would flatten them to a line: it is stated, not drawn.
  const shown = price <= Math.max(...heights) + 0.3;
  if (shown) heights.push(price);
  const { svg, x, y, box } = axes(width, 280, {
    x: { ends: [-0.03, 1.03], label: `Confidence in the answer of ${model}`, format: (v) => v.toFixed(2) },
    y: { ends: padded(heights, 0.08, -1, Infinity), label: `Benefit: quality of ${larger} minus this`, format: (v) => minus(v.toFixed(2)) },
  });
  const cap = shown ? y(price) : box[1];
  svg.append(
    draw("rect", { class: "paying", x: box[0], y: box[1], width: box[2] - box[0], height: Math.max(0, cap - box[1]) }),
    draw("line", { class: "axis", x1: box[0], x2: box[2], y1: y(0), y2: y(0) }),
  );
  if (shown) svg.append(draw("line", { class: "price", x1: box[0], x2: box[2], y1: cap, y2: cap }));
  if (curve.length) svg.append(draw("polyline", { class: "believed", points: points(x, y, curve) }));
  const most = Math.max(...groups.map((g) => g.queries));
  for (const g of groups) {
    svg.append(
      draw("line", { class: "error", x1: x(g.confidence), x2: x(g.confidence), y1: y(g.benefit - g.error), y2: y(g.benefit + g.error) }),
      draw("circle", { class: "data", cx: x(g.confidence), cy: y(g.benefit), r: radius(g.queries, most) },
        draw("title", null, `confidence ${g.confidence.toFixed(2)}: benefit ${signed(g.benefit)}, ${whole(g.queries)} queries`)),
    );
  }
  const words = shown ? "price: above, asking pays" : `price ${price.toFixed(2)}: asking never pays`;
  const wide = widthOf(words), ends = [box[0] + 6, box[2] - 4 - wide];
  // Put it where it hides the fewest marks; under the line at the left where that is as good.
  const places = [cap + 15, cap - 6].filter((at) => at < box[3] - 4 && at > box[1] + 10).flatMap((at) => ends.map((from) => [from, at]));
  const hides = ([from, at]) => groups.filter((g) => x(g.confidence) > from - 6 && x(g.confidence) < from + wide + 6
    && y(g.benefit + g.error) < at + 4 && y(g.benefit - g.error) > at - 14).length;
  const [from, at] = places.reduce((best, place) => (hides(place) < hides(best) ? place : best), places[0] || [ends[0], box[1] + 14]);
  svg.append(draw("text", { class: "label price", x: from, y: at }, words));
  return { svg };
}

function reliability(width, number) {
  const { groups } = report.reliabilities[number];
  const { svg, x, y } = axes(width, 280, {
    x: { ends: [0, 1.02], label: "Stated", format: (v) => v.toFixed(2) },
    y: { ends: [0, 1.02], label: "Actual: mean quality", format: (v) => v.toFixed(2) },
  });
  svg.append(draw("line", { class: "mix", x1: x(0), y1: y(0), x2: x(1), y2: y(1) }));
  const most = Math.max(...groups.map((g) => g.queries));
  for (const g of groups) {
    svg.append(
      draw("line", { class: "error", x1: x(g.stated), x2: x(g.stated), y1: y(g.interval[0]), y2: y(g.interval[1]) }),
      draw("circle", { class: "data", cx: x(g.stated), cy: y(g.actual), r: radius(g.queries, most) },
        draw("title", null, `stated ${g.stated.toFixed(2)}, actual ${g.actual.toFixed(2)}, ${whole(g.queries)} queries`)),
    );
  }
  svg.append(draw("text", { class: "label other", x: x(1), y: y(0.05), "text-anchor": "end" }, "dashed: as stated"));
  return { svg };
}

// Bars of cost: this policy in its parts, and each model alone in grey.
function cost(width) {
  const parts = report.costSplit, singles = report.baselines.filter((b) => b.name.startsWith("always:"));
  const total = parts.reduce((sum, part) => sum + part.cost, 0);
  const most = Math.max(total, ...singles.map((b) => b.cost));
  if (!(most > 0)) return { svg: draw("svg", { width: 0, height: 0 }) };
  const row = 46, room = widthOf(costText(most)) + 12;
  const scale = (value) => (value / most) * (width - room);
  const svg = draw("svg", { viewBox: `0 0 ${width} ${row * (singles.length + 1)}`, width, height: row * (singles.length + 1), "aria-hidden": "true" });
  const bar = (name, value, k) => svg.append(
    draw("text", { class: "name", x: 0, y: k * row + 13 }, cut(name, Math.floor(width / 7))),
    draw("text", { class: "amount", x: scale(value) + 8, y: k * row + 32 }, costText(value)),
  );
  bar("this policy", total, 0);
  let at = 0;
  for (const part of parts) {
    const index = report.models.indexOf(part.model), wide = scale(part.cost);
    svg.append(draw("rect", { class: `part ${part.part} m${Math.min(Math.max(index, 0), 4)}`, x: at, y: 19, width: Math.max(wide - 1.5, 0.75), height: 18, rx: 2 },
      draw("title", null, `${part.part} of ${part.model}: ${costText(part.cost)}`)));
    const words = cut(`${part.part} of ${part.model}`, 30);
    if (widthOf(words) + 14 < wide) svg.append(draw("text", { class: `inside ${part.part} m${Math.min(Math.max(index, 0), 4)}`, x: at + 7, y: 32 }, words));
    at += wide;
  }
  singles.forEach((single, k) => {
    bar(single.label, single.cost, k + 1);
    svg.append(draw("rect", { class: "part whole", x: 0, y: (k + 1) * row + 19, width: scale(single.cost), height: 18, rx: 2 }));
  });
  return { svg };
}

const KINDS = { plane, benefit, reliability, cost };
const charts = [...document.querySelectorAll("[data-chart]")].map((node) => {
  const [kind, number] = node.dataset.chart.split(" ");
  return { node, kind: KINDS[kind], number: Number(number), width: 0, move: null };
});

function redraw(chart, width) {
  if (width < 40 || width === chart.width) return;
  const made = chart.kind(width, chart.number);
  Object.assign(chart, { width, move: made.move });
  chart.node.replaceChildren(made.svg);
}

// Measure the parent: an empty chart has no width.
const room = (chart) => Math.floor(chart.node.parentElement.clientWidth);
const widths = charts.map(room); // all read before any is drawn: one layout
charts.forEach((chart, k) => redraw(chart, widths[k]));
new ResizeObserver(() => charts.forEach((chart) => redraw(chart, room(chart)))).observe(byId("main"));
// On paper every chart has the width of a page, or of half of one.
window.addEventListener("beforeprint", () => charts.forEach((chart) => redraw(chart, chart.kind === plane || chart.kind === cost ? 660 : 320)));
window.addEventListener("afterprint", () => charts.forEach((chart) => redraw(chart, room(chart))));
document.addEventListener("chosen", () => charts.forEach((chart) => chart.move && chart.move()));
