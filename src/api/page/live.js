// Changes as they come. EventSource can send no token, so the stream is read with fetch.

/** How many changes are listed. */
const LISTED = 50;
/** Changes are shown together, so many milliseconds after the first of them. */
const TOGETHER = 200;

/** Ends the stream. */
let stop;
/** The revision up to which all changes have come; empty before the first. */
let last = '';
/** Changes that are not shown yet: those of keys for the tree, and the latest of all for the list. */
let keysChanged = new Map();
let news = [];
let newsCount = 0;
let flushing;

/** Follows changes until it is stopped. Where the connection breaks off it comes back, and waits longer each time. */
async function follow() {
  stop?.abort();
  const { signal } = (stop = new AbortController());
  let [wait, failures] = [1000, 0];
  while (!signal.aborted && !locked) {
    let atLeast = 0;
    try {
      const headers = last && { 'Last-Event-ID': last };
      const answer = await call('GET', 'api/v1/watch?values=false', { headers, signal });
      await readEvents(answer.body, event => {
        failures = 0;
        if (event.retry) wait = Number(event.retry);
        if (event.event) happened(event);
      });
      $('live-state').textContent = 'Connecting again …';
    } catch (error) {
      if (signal.aborted) return;
      if (last && (error.status === 410 || error.status === 400)) {
        // What came since is forgotten, or that was another life of the store: begin anew.
        last = '';
        continue;
      }
      atLeast = (error.wait || 0) * 1000;
      $('live-state').textContent = error instanceof Failure ? error.message : 'Connecting again …';
    }
    const longer = Math.min(wait * 2 ** failures++, 30_000) * (1 + Math.random() / 2);
    await new Promise(resolve => setTimeout(resolve, Math.max(longer, atLeast)));
  }
}

/** Calls `take` with the fields of each event of a stream. */
async function readEvents(stream, take) {
  const reader = stream.pipeThrough(new TextDecoderStream()).getReader();
  let [rest, event] = ['', {}];
  for (;;) {
    const { value, done } = await reader.read();
    if (done) return;
    const lines = (rest + value).split('\n');
    rest = lines.pop();
    for (const line of lines) {
      if (line === '') {
        take(event);
        event = {};
      } else {
        const colon = line.indexOf(':');
        event[line.slice(0, colon)] = line.slice(colon + 1).trim();
      }
    }
  }
}

function happened({ event, data, id }) {
  const { key, prefix, revision } = JSON.parse(data);
  const isNew = !last;
  last = id ?? last;
  if (event === 'ready') {
    $('live-state').textContent = '';
    if (isNew) resync();
  }
  if (event === 'progress' || event === 'ready') return;
  if (event === 'clear') {
    flush(); // what came before it comes before it
    prefixCleared(prefix);
    if (wanted?.startsWith(prefix)) entryChanged(wanted, revision, true);
  } else {
    keysChanged.set(key, event === 'put');
    entryChanged(key, revision, event !== 'put');
  }
  newsCount++;
  news.push({ event, key, prefix, at: new Date() });
  if (news.length > LISTED) news.shift();
  flushing ??= setTimeout(flush, TOGETHER);
}

/** Shows what has happened. */
function flush() {
  clearTimeout(flushing);
  flushing = undefined;
  keysChanged.forEach((isThere, key) => keyChanged(key, isThere));
  keysChanged.clear();
  refresh();
  // Nothing moves below a pointer or the focus.
  if (newsCount && $('changes').matches(':hover, :focus-within')) {
    $('live-state').textContent = `${newsCount.toLocaleString('en')} more when you leave the list`;
    return;
  }
  if (!newsCount) return;
  $('live-state').textContent = '';
  $('changes').prepend(...news.map(change).reverse());
  while ($('changes').children.length > LISTED) $('changes').lastChild.remove();
  news = [];
  newsCount = 0;
}

/** A line of the list of changes. */
function change({ event, key, prefix, at }) {
  const line = document.createElement('li');
  const what = key ?? (prefix ? `${prefix}…` : 'everything');
  for (const text of [at.toTimeString().slice(0, 8), event, what]) {
    const part = document.createElement(event === 'put' && text === what ? 'button' : 'span');
    part.textContent = text;
    line.append(part);
  }
  line.firstChild.className = 'quiet';
  if (event === 'put') line.lastChild.onclick = () => show(key);
  return line;
}

/** Loads anew what is shown, where changes may have been missed. */
function resync() {
  attempt(loadTree);
  attempt(checkEntry);
}

$('changes').onmouseleave = $('changes').onfocusout = () => setTimeout(flush);
$('follow').onchange = () => {
  if ($('follow').checked) return follow();
  stop.abort();
  $('live-state').textContent = 'Paused';
};
