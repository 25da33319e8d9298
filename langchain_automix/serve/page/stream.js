// Server-sent events by fetch: an EventSource can send neither a key nor a number of earlier events.

// Splits a stream of bytes into events; returns once it ends.
async function readEvents(body, heard) {
  const reader = body.pipeThrough(new TextDecoderStream()).getReader();
  let waiting = "";
  for (;;) {
    const { done, value } = await reader.read();
    if (done) return;
    const parts = (waiting + value).split("\n\n");
    waiting = parts.pop();
    for (const part of parts) {
      const event = { name: "message", id: null, data: null };
      for (const line of part.split("\n")) {
        if (line.startsWith("data: ")) event.data = line.slice(6);
        else if (line.startsWith("event: ")) event.name = line.slice(7);
        else if (line.startsWith("id: ")) event.id = line.slice(4);
      }
      if (event.data !== null) heard({ ...event, data: JSON.parse(event.data) });
    }
  }
}

// Watches events, and comes again by itself when the stream ends. `told` hears of each event, `changed` of how the
// connection does: waiting, live, lost (and in how many seconds it is tried again), or refused.
function watchEvents(path, told, changed) {
  let key = null, last = null, failures = 0, timer = 0, attempt = 0, abort = new AbortController();

  async function connect() {
    const mine = (attempt += 1);
    clearTimeout(timer);
    abort.abort();
    abort = new AbortController();
    changed("waiting");
    try {
      const headers = { ...(key && { Authorization: `Bearer ${key}` }), ...(last && { "Last-Event-ID": last }) };
      const response = await fetch(path, { headers, cache: "no-store", credentials: "omit", signal: abort.signal });
      if (mine !== attempt) return;
      if (response.status === 401) { changed("refused"); return; }
      if (!response.ok) throw new Error((await response.json()).error.message);
      changed("live");
      await readEvents(response.body, (event) => {
        if (mine !== attempt) return;
        failures = 0;
        last = event.id || last;
        told(event);
      });
      if (mine === attempt) again("");
    } catch (error) {
      if (mine === attempt) again(error instanceof TypeError ? "" : error.message);
    }
  }

  function again(why) {
    const seconds = Math.min(30, 2 ** failures);
    failures += 1;
    changed("lost", { seconds, why });
    timer = setTimeout(connect, 1000 * seconds);
  }

  const isLost = () => timer && !abort.signal.aborted && failures > 0;
  window.addEventListener("online", () => isLost() && connect());
  document.addEventListener("visibilitychange", () => !document.hidden && isLost() && connect());
  return { connect, use(given) { key = given; last = null; connect(); } };
}
