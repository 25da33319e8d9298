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

const MINUTE = 60, HOUR = 3600, DAY = 86400;
const STEPS = [1, 5, 15, 30, MINUTE, 5 * MINUTE, 15 * MINUTE, 30 * MINUTE, HOUR, 3 * HOUR, 6 * HOUR, 12 * HOUR,
  DAY, 2 * DAY, 7 * DAY, 14 * DAY, 28 * DAY, 91 * DAY, 182 * DAY, 364 * DAY];

// The scale of a time in UTC; its ticks are on full minutes, hours or days.
function times(low, high, from, to) {
  const scale = linear(low, high, from, to);
  scale.ticks = (count) => {
    const step = STEPS.find((each) => (high - low) / each <= count) || (high - low) / count;
    const found = [];
    for (let at = Math.ceil(low / step) * step; at <= high; at += step) found.push(at);
    return found;
  };
  return scale;
}

// Draws axes; `spec` has x and y, each with its ends, label and number format, and whether x is logarithmic, or its own scale.
function axes(width, height, spec) {
  const left = 46, right = 16, top = 26, bottom = 44;
  const kind = spec.x.scale || (spec.x.log ? logarithmic : linear);
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

// Draws each chart of the page by its kind, to the width that it has.
function showCharts(kinds, onPaper) {
  const charts = [...document.querySelectorAll("[data-chart]")].map((node) => {
    const [kind, number] = node.dataset.chart.split(" ");
    return { node, kind: kinds[kind], name: kind, number: Number(number), width: 0, move: null };
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
  window.addEventListener("beforeprint", () => charts.forEach((chart) => redraw(chart, onPaper(chart.name))));
  window.addEventListener("afterprint", () => charts.forEach((chart) => redraw(chart, room(chart))));
  document.addEventListener("chosen", () => charts.forEach((chart) => chart.move && chart.move()));
}
