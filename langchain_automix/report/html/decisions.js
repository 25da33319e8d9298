// The table of decisions: only the rows of the current page are made, and texts are parsed when opened.
const [ID, QUESTION, KEPT, ASKED, CONFIDENCE, QUALITY, COST, OF_KIND] = [0, 1, 2, 3, 4, 5, 6, 7];
const FILTERS = [
  ["all", "All", "Every query of the log."],
  ["escalated_wrong", "Escalated and wrong", "The decision was wrong, not always the answer: a larger model was paid for, and its answer is no better than the first one."],
  ["kept_wrong", "Kept and wrong", "The decision was wrong: a model that was not asked would have answered better."],
  ["hopeless", "Hopeless", "No model answers it well (quality below one half)."],
  ["saved", "Saved", "The first model's answer was kept, and no other is better."],
];
const ORDERS = [
  ["As in the log", null, 1],
  ["Confidence, low first", CONFIDENCE, 1], ["Confidence, high first", CONFIDENCE, -1],
  ["Quality, low first", QUALITY, 1], ["Quality, high first", QUALITY, -1],
  ["Cost, high first", COST, -1], ["Cost, low first", COST, 1],
];
const COLUMNS = [["Query", null], ["Answer kept", null], ["Confidence", CONFIDENCE], ["Quality", QUALITY], [report.currency ? `Cost, ${report.currency}` : "Cost", COST]];
const view = { filter: "all", words: "", order: 0, page: 0, size: 25 };
const rows = report.rows;
const blocks = new Map();
let visible = [];

// Returns the texts of a row; null while the browser has not loaded them yet.
function textsOf(index) {
  const number = Math.floor(index / report.chunk);
  if (!blocks.has(number)) {
    const source = byId(`texts-${number}`);
    if (!source || (document.readyState === "loading" && !source.nextElementSibling)) return null;
    blocks.set(number, JSON.parse(source.textContent));
    if (blocks.size > 60) blocks.delete(blocks.keys().next().value);
  }
  return blocks.get(number)[index % report.chunk];
}

function matches(index, words) {
  const row = rows[index];
  if (row[ID].toLowerCase().includes(words) || (row[QUESTION] || "").toLowerCase().includes(words)) return true;
  const texts = textsOf(index);
  return texts !== null && [texts.question, ...texts.answers.map((a) => a.text)]
    .some((each) => each && each.toLowerCase().includes(words));
}

function update() {
  const words = view.words.trim().toLowerCase();
  const [, column, direction] = ORDERS[view.order];
  visible = rows.map((_, index) => index).filter((index) =>
    (view.filter === "all" || rows[index][OF_KIND].includes(view.filter)) && (!words || matches(index, words)));
  if (column !== null) {
    // Unknown last, whatever the direction.
    visible.sort((a, b) => known(rows[b][column]) - known(rows[a][column]) || direction * (rows[a][column] - rows[b][column]) || a - b);
  }
  show();
}

function show() {
  const pages = Math.max(1, Math.ceil(visible.length / view.size));
  view.page = Math.min(Math.max(view.page, 0), pages - 1);
  const from = view.page * view.size, page = visible.slice(from, from + view.size);
  document.querySelector(".decisions tbody").replaceChildren(...page.flatMap(rowOf));
  document.querySelector(".decisions thead").replaceChildren(heads());
  byId("shown").textContent = visible.length
    ? `${whole(from + 1)} to ${whole(from + page.length)} of ${whole(visible.length)}${report.sample ? " listed" : ""}` : "No decision fits.";
  byId("pages").textContent = `of ${whole(pages)}`;
  byId("page").max = pages;
  byId("page").value = view.page + 1;
  byId("previous").disabled = view.page === 0;
  byId("next").disabled = view.page === pages - 1;
}

function heads() {
  const [, column, direction] = ORDERS[view.order];
  return make("tr", { role: "row" }, ...COLUMNS.map(([name, of], k) => {
    if (of === null) return make("th", { scope: "col", role: "columnheader" }, name);
    const on = of === column;
    const sort = () => {
      const both = ORDERS.flatMap(([, c], place) => (c === of ? [place] : []));
      view.order = on && view.order === both[0] ? both[1] : both[0];
      byId("order").value = view.order;
      update();
      document.querySelectorAll(".decisions thead th")[k].querySelector("button").focus();
    };
    return make("th", { scope: "col", role: "columnheader", class: "figure", title: report.words[name] || null, "aria-sort": on ? (direction > 0 ? "ascending" : "descending") : "none" },
      make("button", { type: "button", click: sort }, name, make("span", { "aria-hidden": "true", class: "arrow" }, on ? (direction > 0 ? "↑" : "↓") : "↕")));
  }));
}

function kindsOf(row) {
  return row[OF_KIND].map((kind) => make("span", { class: `badge ${kind}` }, FILTERS.find(([name]) => name === kind)[1]));
}

function rowOf(index) {
  const row = rows[index], kept = row[KEPT];
  const asked = row[ASKED] > 1 ? `${row[ASKED]} models asked` : "1 model asked";
  const more = make("tr", { role: "row", class: "more", hidden: true, id: `more-${index}` }, make("td", { role: "cell", colspan: COLUMNS.length }));
  const button = make("button", { type: "button", class: "open", "aria-expanded": "false", "aria-controls": `more-${index}`, click: () => toggle(button, more, index) },
    make("span", { class: "question", dir: "auto" }, row[QUESTION] || row[ID] || "(empty question)"));
  const cell = (name, value) => make("td", { role: "cell", class: "figure", "data-name": name }, value);
  return [make("tr", { role: "row" },
    make("td", { role: "cell", class: "query" }, button,
      make("div", { class: "under" }, row[QUESTION] ? make("span", { class: "id", dir: "auto" }, row[ID]) : null, ...kindsOf(row))),
    make("td", { role: "cell", class: "kept", "data-name": "Answer kept" },
      make("span", { dir: "auto" }, kept === null ? "none" : report.models[kept]), make("span", { class: "asked" }, asked)),
    cell("Confidence", known(row[CONFIDENCE]) ? row[CONFIDENCE].toFixed(2) : "–"),
    cell("Quality", row[QUALITY].toFixed(2)), cell("Cost", costNumber(row[COST]))), more];
}

function toggle(button, more, index) {
  const open = button.getAttribute("aria-expanded") !== "true";
  button.setAttribute("aria-expanded", String(open));
  more.hidden = !open;
  if (!open || more.firstChild.hasChildNodes()) return;
  const texts = textsOf(index);
  if (texts) more.firstChild.append(opened(index, texts));
  else document.addEventListener("DOMContentLoaded", () => more.firstChild.append(opened(index, textsOf(index))), { once: true });
}

// A long passage scrolls, so the keyboard must reach it.
const passage = (words, kind) => make("div", words.length > 2000
  ? { class: `text long ${kind}`, dir: "auto", tabindex: 0, role: "group", "aria-label": `${kind}, in full` }
  : { class: `text ${kind}`, dir: "auto" }, words);
const folded = (name, ...inside) => make("details", null, make("summary", null, name), ...inside);

function opened(index, texts) {
  const parts = [make("h3", null, "Question"),
    texts.question === null ? note("The log holds no text of it.") : passage(texts.question, "question-text")];
  if (texts.context) parts.push(folded(`Context, ${whole(texts.context.length)} characters`, passage(texts.context, "context")));
  if (texts.references.length) {
    parts.push(make("h3", null, texts.references.length > 1 ? "References" : "Reference"), ...texts.references.map((each) => passage(each, "reference")));
  }
  return make("div", { class: "opened" }, ...parts, make("div", { class: "sides" }, ...texts.answers.map((each) => answerOf(each))));
}

const note = (words) => make("p", { class: "note" }, words);

function answerOf(answer) {
  const state = answer.kept ? "kept" : answer.asked ? "asked, not kept" : "not asked";
  const words = answer.text === null ? note("The log holds no text of this answer.")
    : answer.text === "" ? note("An empty answer.") : passage(answer.text, "answer");
  return make("article", { class: answer.kept ? "answer kept" : "answer" },
    make("h3", null, make("span", { dir: "auto" }, answer.model), " ", make("span", { class: "state" }, state)),
    make("p", { class: "facts" }, `Quality ${known(answer.quality) ? answer.quality.toFixed(2) : "unknown"}, cost ${costText(answer.cost)}`),
    words, ...checkOf(answer));
}

const VERDICTS = new Map([[true, ["✓", "accepted", "accept"]], [false, ["✗", "rejected", "reject"]], [null, ["?", "invalid", "invalid"]]]);

function glyph(verdict) {
  const [sign, words, kind] = VERDICTS.get(verdict);
  return make("span", { class: `verdict ${kind}`, title: words }, make("span", { "aria-hidden": "true" }, sign), make("span", { class: "unseen" }, words));
}

function checkOf(answer) {
  const { verdicts, score, replies } = answer, found = [];
  if (verdicts.length) {
    found.push(make("p", { class: "facts" }, `Check: ${verdicts.filter((v) => v === true).length} of ${verdicts.length} accept`),
      make("ol", { class: "verdicts", "aria-label": "Verdicts in the order drawn" }, ...verdicts.map((v) => make("li", null, glyph(v)))));
  }
  if (known(score)) found.push(make("p", { class: "facts" }, `Check: score ${score.toFixed(3)}`));
  if (replies.length) {
    found.push(folded("What the check wrote", make("ol", { class: "replies" }, ...replies.map((reply, k) =>
      make("li", null, k < verdicts.length ? glyph(verdicts[k]) : null, reply === "" ? note("nothing") : passage(reply, "reply"))))));
  }
  return found;
}

function filters() {
  for (const [name, label, meaning] of FILTERS) {
    const listed = name === "all" ? rows.length : rows.filter((row) => row[OF_KIND].includes(name)).length;
    const count = !report.sample ? listed : name === "all" ? report.queries : report.kinds[name];
    const change = () => { view.filter = name; view.page = 0; explain(meaning); update(); };
    byId("filters").append(make("label", { class: "chip" },
      make("input", { type: "radio", name: "kind", value: name, checked: name === "all", change }),
      make("span", null, label, " ", make("b", null, whole(count)))));
  }
}

const some = report.sample ? ` ${report.sample}` : rows.length < report.queries
  ? ` Of ${whole(report.queries)} queries, ${whole(rows.length)} are in this page.` : "";
const explain = (meaning) => { byId("decisions-lead").textContent = `${meaning}${some} Open a row for the question, the answers and the check.`; };

filters();
explain(FILTERS[0][2]);
byId("order").append(...ORDERS.map(([name], k) => make("option", { value: k }, name)));
const on = (id, event, change) => byId(id).addEventListener(event, change);
on("order", "change", (e) => { view.order = Number(e.target.value); view.page = 0; update(); });
on("size", "change", (e) => { view.size = Number(e.target.value); view.page = 0; update(); });
on("page", "change", (e) => { view.page = (Math.round(Number(e.target.value)) || 1) - 1; show(); });
const turn = (by) => { view.page += by; show(); document.querySelector(".decisions").scrollIntoView({ block: "start" }); };
on("previous", "click", () => turn(-1));
on("next", "click", () => turn(1));
let typing = 0;
on("search", "input", (e) => {
  clearTimeout(typing);
  typing = setTimeout(() => { view.words = e.target.value; view.page = 0; update(); }, 200);
});
update();
for (const id of ["tools", "pager"]) byId(id).hidden = false;
document.querySelector(".decisions").hidden = false;
// For benchmarks: milliseconds from opening the page until it was usable.
document.documentElement.dataset.ready = Math.round(performance.now());
