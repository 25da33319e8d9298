// The charts of a report on a policy.
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

// On paper every chart has the width of a page, or of half of one.
showCharts({ plane, benefit, reliability, cost }, (kind) => (kind === "plane" || kind === "cost" ? 660 : 320));
