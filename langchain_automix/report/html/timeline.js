// A report over time: a slider along the spans, and charts with a line where it stands.
const { spans, sources, marks } = report;
let chosen = spans.length - 1;
const middle = (span) => (span.start + span.end) / 2;

function timeText(at) {
  const text = new Date(at * 1000).toISOString(), wide = spans[spans.length - 1].end - spans[0].start;
  if (wide > 3 * DAY) return `${text.slice(5, 10)}`;
  if (wide > 2 * HOUR) return at % DAY === 0 ? text.slice(5, 10) : text.slice(11, 16);
  return wide > 10 * MINUTE ? text.slice(11, 16) : text.slice(11, 19);
}

function timeAxes(width, height, y) {
  const x = { ends: [spans[0].start, spans[spans.length - 1].end], scale: times, label: "Time (UTC)", format: timeText };
  return axes(width, height, { x, y });
}

// Lines for versions and alarms; names where they do not run into one another.
function addMarks({ svg, x, box }) {
  let end = -Infinity;
  for (const { at, kind, name, text } of marks) {
    const across = x(Math.min(Math.max(at, x.ends[0]), x.ends[1]));
    svg.append(draw("line", { class: kind === "alarm" ? "alarm" : "mark", x1: across, x2: across, y1: box[1], y2: box[3] },
      draw("title", null, text)));
    const wide = widthOf(name), from = Math.min(across + 4, box[2] - wide);
    if (from < end + 6) continue;
    end = from + wide;
    svg.append(draw("text", { class: `marked${kind === "alarm" ? " alarming" : ""}`, x: from, y: box[1] - 4 }, name));
  }
}

// The line where the slider stands; moved, not drawn again.
function cursorOf({ svg, x, box }) {
  const line = draw("line", { class: "cursor", y1: box[1], y2: box[3] });
  const move = () => {
    const at = x(middle(spans[chosen]));
    line.setAttribute("x1", at);
    line.setAttribute("x2", at);
  };
  move();
  svg.append(line);
  return { svg, move };
}

// Points and lines between them; a gap where a span knows nothing.
function series(drawing, value, { line, dot, words }) {
  const { svg, x, y } = drawing;
  let run = [];
  const close = () => {
    if (run.length > 1) svg.append(draw("polyline", { class: line, points: points(x, y, run) }));
    run = [];
  };
  for (const span of spans) {
    const found = value(span);
    if (!known(found)) { close(); continue; }
    run.push([middle(span), found]);
  }
  close();
  if (!dot) return;
  for (const span of spans) {
    const found = value(span);
    if (known(found)) svg.append(draw("circle", { class: dot, cx: x(middle(span)), cy: y(found), r: 3 },
      draw("title", null, `${span.name}: ${words(found)}, ${whole(span.queries)} queries`)));
  }
}

function cost(width) {
  const priced = spans.flatMap((span) => [span.cost, span.alone]).filter(known);
  if (!priced.length) return { svg: draw("svg", { width: 0, height: 0 }) };
  const top = Math.max(...priced) * 1.12 || 1;
  const drawing = timeAxes(width, width < 480 ? 280 : 320, { ends: [0, top], label: report.currency, format: costNumber });
  addMarks(drawing);
  series(drawing, (span) => span.alone, { line: "mix" });
  series(drawing, (span) => span.cost, { line: "frontier", dot: "policy", words: costText });
  return cursorOf(drawing);
}

function quality(width, number) {
  const source = sources[number], of = (span) => span.quality[source];
  const graded = spans.filter(of).map(of);
  const low = Math.min(...graded.map((each) => each.interval[0]));
  const drawing = timeAxes(width, 260, { ends: [Math.max(0, low - 0.05), 1.02], label: "Quality", format: (v) => v.toFixed(2) });
  addMarks(drawing);
  const { svg, x, y } = drawing;
  for (const span of spans.filter(of)) {
    const at = x(middle(span)), [from, to] = of(span).interval;
    svg.append(draw("line", { class: "error", x1: at, x2: at, y1: y(from), y2: y(to) }));
  }
  series(drawing, (span) => (of(span) ? of(span).quality : null), { line: "frontier", dot: "policy", words: qualityText });
  return cursorOf(drawing);
}

function escalated(width) {
  const drawing = timeAxes(width, 260, { ends: [0, 1.02], label: "Share", format: (v) => `${Math.round(100 * v)}%` });
  addMarks(drawing);
  series(drawing, (span) => span.shadowed, { line: "mix" });
  series(drawing, (span) => span.escalated, { line: "frontier", dot: "policy", words: shareText });
  return cursorOf(drawing);
}

function readings(span) {
  const saved = known(span.cost) && span.alone > 0 ? 1 - span.cost / span.alone : null;
  const found = [
    ["Cost", costText(span.cost), known(saved) ? `${minus((100 * saved).toFixed(0))}% less than the largest model alone` : ""],
    ["Escalated", shareText(span.escalated), `${shareText(span.shadowed)} had a shadow`],
    ["Version", span.decider, `${whole(span.queries)} ${span.queries === 1 ? "query" : "queries"}`],
  ];
  for (const source of sources) {
    const each = span.quality[source];
    if (each) found.push([`Quality: ${source}`, qualityText(each.quality), `${qualityText(each.interval[0])} to ${qualityText(each.interval[1])}`]);
  }
  return found;
}

function choose(number) {
  chosen = number;
  const span = spans[number], range = byId("stop");
  range.value = number;
  range.setAttribute("aria-valuetext", `${span.name}: ${readings(span).map(([name, value]) => `${name} ${value}`).join(", ")}`);
  byId("chosen-name").textContent = `From ${span.name}`;
  byId("chosen").replaceChildren(...readings(span).map(([name, value, more]) =>
    make("div", null, make("dt", { title: report.words[name] || null }, name), make("dd", { class: "value" }, value),
      make("dd", { class: "detail" }, more))));
  document.dispatchEvent(new Event("chosen"));
}

if (spans.length > 1) {
  const range = byId("stop");
  range.max = spans.length - 1;
  range.addEventListener("input", () => choose(Number(range.value)));
  choose(chosen);
  byId("slider").hidden = false;
}
showCharts({ cost, quality, escalated }, (kind) => (kind === "cost" ? 660 : 320));
