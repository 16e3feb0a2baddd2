// Health and figures, and the start of everything.

/** How often they are asked for, in milliseconds. Health is not rate-limited; figures are. */
const HEALTH_EVERY = 5000;
const FIGURES_EVERY = 15_000;

async function showHealth() {
  let [state, text] = ['bad', 'Cannot be reached'];
  try {
    const { status, problem } = await (await fetch('api/v1/health', { cache: 'no-store' })).json();
    if (status === 'healthy') [state, text] = ['good', problem ? `Healthy, but ${problem}` : 'Healthy'];
    else text = `Unhealthy: ${problem}`;
  } catch {
    // No answer, or one of something in between.
  }
  // Nobody wants to hear each time that nothing has changed.
  if ($('health-text').textContent === text) return;
  $('health-text').textContent = text;
  $('health').dataset.state = state;
}

async function showFigures() {
  if (locked) return;
  const { data } = await (await call('GET', 'api/v1/status')).json();
  const number = count => count.toLocaleString('en');
  const { storage, requests } = data;
  const figures = {
    keys: number(storage.size),
    memory: `${size(storage.used)} of ${size(storage.limit)}`,
    durability: data.durability,
    answers: `${number(requests['2xx'] + requests['3xx'])} / ${number(requests['4xx'])} / ${number(requests['5xx'])}`,
    connections: `${number(data.connections)} / ${number(data.watchers)}`,
    uptime: duration(data.uptime),
  };
  for (const [name, text] of Object.entries(figures)) $(`f-${name}`).textContent = text;
  $('f-meter').value = storage.used / storage.limit;
  $('node').textContent = `${data.version} · ${data.node}`;
}

/** What needs the token, if there is one to be had. */
function start() {
  attempt(showFigures);
  follow();
  openByAddress();
  // Keys come with the stream, so that no change falls in between; but not without it.
  setTimeout(() => root || coming || locked || resync(), 2000);
}

const everyWhile = (what, time) => setInterval(() => document.hidden || what(), time);
everyWhile(showHealth, HEALTH_EVERY);
// The line at the bottom is for what somebody has done; that the server is gone says the health.
everyWhile(() => showFigures().catch(() => {}), FIGURES_EVERY);
showHealth();
showTokenButton();
start();
