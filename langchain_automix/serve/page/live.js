// The live page: hears the events, and shows them twice a second at most.
const MOST_ROWS = 200;
const SHOW_MS = 500;
const SAY_MS = 15000;
const KEY = "automix-key";
const page = { state: null, fresh: [], rows: [], missed: 0, paused: false, waiting: 0, timer: 0, unsaid: [], said: 0 };

const clockOf = (at) => new Date(1000 * at).toLocaleTimeString("en-GB");

function costCell(query) {
  return known(query.cost) ? costText(query.cost) : "unknown";
}

function savedCell(query) {
  if (["failed", "cancelled"].includes(query.outcome)) return "–";
  if (!known(query.cost) || !known(query.largest_alone)) return "unknown";
  const alone = `of ${costText(query.largest_alone)}${query.is_estimate ? ", estimated" : ""}`;
  const share = query.largest_alone > 0 ? 1 - query.cost / query.largest_alone : null;
  return make("span", null, savedText(share), make("span", { class: "under" }, alone));
}

function whyCell(query) {
  const words = query.why || (query.outcome === "cancelled" ? "The client went away." : `Error ${query.status}${query.error ? `: ${query.error}` : ""}`);
  const under = (text) => (text ? make("span", { class: "under", dir: "auto" }, text) : null);
  return make("span", { dir: "auto" }, unbroken(words), under(query.degraded), under(query.question && `“${query.question}”`));
}

const HEADS = ["Time", "Outcome", "Why", "Cost", "Against the largest", "Took"];

function rowOf(query) {
  const who = [query.mix, query.key].filter(Boolean).join(", ");
  const time = make("span", null, make("time", { datetime: new Date(1000 * query.at).toISOString() }, clockOf(query.at)),
    make("span", { class: "under", dir: "auto" }, who));
  const outcome = make("span", null, make("strong", { class: `outcome ${query.outcome}` }, query.outcome),
    make("span", { class: "under", dir: "auto" }, query.model || "no answer"));
  return row(HEADS, [time, outcome, whyCell(query), costCell(query), savedCell(query), secondsText(query.duration)]);
}

// Adds rows at the top, and takes the oldest away: however many queries come, the page stays as small.
function showRows() {
  const fresh = page.fresh.splice(0);
  byId("missed").hidden = !page.missed;
  byId("missed").textContent = page.missed ? `${queries(page.missed)} came too fast to be listed here; the figures count them.` : "";
  if (!fresh.length) return;
  if (!byId("rows").firstChild) byId("rows").append(table("The latest decisions", HEADS, []));
  const body = byId("rows").querySelector("tbody");
  body.prepend(...fresh.reverse().map(rowOf));
  while (body.rows.length > MOST_ROWS) body.lastChild.remove();
  byId("decisions-lead").textContent = body.rows.length < MOST_ROWS ? "Newest first." : `The last ${MOST_ROWS}, newest first.`;
}

function showFigures() {
  const { state } = page, tally = state.windows[byId("window").value];
  const total = state.windows.start.queries;
  byId("empty").hidden = total > 0;
  document.querySelectorAll(".figure-parts").forEach((each) => { each.hidden = !total; });
  byId("sentence").textContent = total ? headline(tally, state.mixes.length) : "Ready for the first query.";
  byId("detail").textContent = total ? `${byId("window").selectedOptions[0].textContent.replace(/^./, (c) => c.toUpperCase())}: ${queries(tally.queries)}.` : "";
  showNumbers(state, tally);
  showMixes(state, tally);
  showLatency(tally);
  showCost(state);
}

function show() {
  page.timer = 0;
  if (page.paused || !page.state) return;
  byId("live").hidden = false;
  showFigures();
  showRows();
  say();
}

const soon = () => { page.timer ||= setTimeout(show, SHOW_MS); };

// Says what is new to who hears the page, but not more often than can be listened to.
function say() {
  const now = Date.now();
  if (!page.unsaid.length || now - page.said < SAY_MS) return;
  const outcomes = OUTCOMES.map((name) => [name, page.unsaid.filter((each) => each === name).length]);
  const parts = outcomes.filter(([, number]) => number).map(([name, number]) => `${number} ${name}`);
  byId("said").textContent = `${queries(page.unsaid.length)} more: ${parts.join(", ")}.`;
  Object.assign(page, { unsaid: [], said: now });
}

function hear({ name, data }) {
  if (name === "state") {
    page.state = data;
    byId("curl").textContent = command(data.mixes[0].name);
  } else if (name === "missed") page.missed += data.number;
  else if (name === "query") {
    page.fresh.push(data);
    page.unsaid.push(data.outcome);
    if (page.fresh.length > MOST_ROWS) page.fresh.shift();
    if (page.unsaid.length > 10 * MOST_ROWS) page.unsaid.shift();
    page.waiting += 1;
  } else if (name === "stopping") page.stopping = true;
  showPause();
  soon();
}

function command(mix) {
  const url = new URL("v1/chat/completions", document.baseURI).href;
  const quoted = (text) => text.replaceAll("'", "'\\''");
  const body = JSON.stringify({ model: mix, messages: [{ role: "user", content: "Which sea lies between Sweden and Finland?" }] });
  const key = sessionStorage.getItem(KEY) ? '  -H "Authorization: Bearer $AUTOMIX_API_KEY" \\\n' : "";
  return `curl ${url} \\\n${key}  -H 'Content-Type: application/json' \\\n  -d '${quoted(body)}'`;
}

function showPause() {
  byId("pause").setAttribute("aria-pressed", page.paused);
  byId("pause").textContent = !page.paused ? "Pause" : `Go on${page.waiting ? ` (${whole(page.waiting)} new)` : ""}`;
}

const WORDS = { waiting: "Connecting…", live: "Live", refused: "A key is needed" };

function changed(how, more) {
  let words = WORDS[how];
  if (how === "lost") {
    const why = more.why || (page.stopping ? "The server has stopped." : "The connection is lost.");
    words = `${why} Trying again in ${many(more.seconds, "second")}.`;
  }
  // A try that fails again says nothing new before it has.
  if (how !== "waiting" || byId("connection").dataset.is !== "lost") {
    byId("connection").textContent = words;
    byId("connection").dataset.is = how;
  }
  byId("retry").hidden = how !== "lost";
  if (how === "live") page.stopping = false;
  byId("forget").hidden = !sessionStorage.getItem(KEY);
  byId("key-form").hidden = how !== "refused";
  if (how === "refused") askForKey();
}

function askForKey() {
  byId("key-said").textContent = sessionStorage.getItem(KEY) ? "This key is not known to the server." : "";
  sessionStorage.removeItem(KEY);
  byId("live").hidden = true;
  byId("forget").hidden = true;
  byId("sentence").textContent = "What this server decides is shown to its clients only.";
  byId("detail").textContent = "";
  byId("rows").replaceChildren();
  Object.assign(page, { state: null, fresh: [], unsaid: [], missed: 0, waiting: 0 });
  byId("key").focus();
}

const watched = watchEvents(`v1/events?last=${MOST_ROWS}`, hear, changed);

byId("key-form").addEventListener("submit", (event) => {
  event.preventDefault();
  const key = byId("key").value.trim();
  byId("key").value = "";
  sessionStorage.setItem(KEY, key);
  watched.use(/^[\x21-\x7e]+$/.test(key) ? key : "no-key");
  byId("main").focus();
});
byId("forget").addEventListener("click", () => {
  sessionStorage.removeItem(KEY);
  watched.use(null);
});
byId("retry").addEventListener("click", () => watched.connect());
byId("window").addEventListener("change", () => page.state && showFigures());
byId("pause").addEventListener("click", () => {
  page.paused = !page.paused;
  page.waiting = 0;
  showPause();
  if (!page.paused) show();
});
new ResizeObserver(() => page.state && showCost(page.state)).observe(byId("main"));
watched.use(sessionStorage.getItem(KEY));
