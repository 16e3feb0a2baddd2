// Talks to the server, with the token where it asks for one, and to whoever looks at the page.

const $ = id => document.getElementById(id);
const TOKEN = 'threadkv.token';

/** What the tab keeps. Where the browser forbids that, what the page keeps until it is loaded again. */
let kept = {};
try {
  kept = sessionStorage;
} catch {
  // Forbidden.
}

let token = kept[TOKEN] ?? '';
/** Whether the server wants another token. Until it has one, nothing is asked for in the background. */
let locked = false;

/** An answer that is no success. Its status is 0 where there was no answer. */
class Failure extends Error {
  constructor(status, message, details = {}, wait = 0) {
    super(message);
    Object.assign(this, { status, details, wait });
  }
}

/** Sends a request. Paths are relative, so that the page also works below a path of a proxy. */
async function call(method, path, { body, headers, signal } = {}) {
  const given = token && { Authorization: `Bearer ${token}` };
  let answer;
  try {
    answer = await fetch(path, { method, body, signal, cache: 'no-store', headers: { ...headers, ...given } });
  } catch (error) {
    throw signal?.aborted ? error : new Failure(0, 'The server cannot be reached.');
  }
  if (answer.ok) return answer;
  const text = await answer.text().catch(() => '');
  let error;
  try {
    error = JSON.parse(text).error;
  } catch {
    // A proxy's page, say.
  }
  if (answer.status === 401) askForToken();
  throw new Failure(
    answer.status,
    error?.message ?? `The server answers ${answer.status}. ${text.slice(0, 200)}`,
    error?.details,
    Number(answer.headers.get('Retry-After')),
  );
}

/** Says something in the line at the bottom. */
function say(text, bad = false) {
  $('message').textContent = text;
  $('message').className = bad ? 'bad' : '';
}

/** Does something, and says so if it fails. */
async function attempt(what) {
  try {
    return await what();
  } catch (error) {
    if (error.name === 'AbortError') return;
    if (!(error instanceof Failure)) console.error(error);
    const wait = error.wait ? ` Try again in ${error.wait} s.` : '';
    say(`${error.message}${wait}`, true);
  }
}

/** Asks a question in a dialog that Escape answers with no. */
function sure(question, yes, no) {
  const dialog = $('sure');
  $('sure-text').textContent = question;
  $('sure-yes').textContent = yes;
  $('sure-no').textContent = no;
  dialog.returnValue = '';
  dialog.showModal();
  return new Promise(resolve => {
    // It may be open again by the time that its last closing is told.
    dialog.onclose = () => dialog.open || resolve(dialog.returnValue === 'yes');
  });
}

function showTokenButton() {
  $('token-button').hidden = !token && !locked;
  $('token-button').textContent = locked ? 'Enter a token' : 'Forget the token';
}

function askForToken() {
  locked = true;
  showTokenButton();
  $('ask-why').textContent = token ? 'The server does not know the token of this tab any more.' : '';
  if (!$('ask').open) $('ask').showModal();
}

$('ask-form').onsubmit = async event => {
  event.preventDefault();
  const given = $('token').value.trim();
  $('ask-why').textContent = '';
  try {
    // What cannot stand in a header is no token.
    const ask = () => fetch('api/v1/status', { cache: 'no-store', headers: { Authorization: `Bearer ${given}` } });
    if (!/^[!-~]+$/.test(given) || (await ask()).status === 401) {
      $('ask-why').textContent = 'The server does not know this token.';
      return $('token').select();
    }
  } catch {
    $('ask-why').textContent = 'The server cannot be reached.';
    return;
  }
  token = given;
  kept[TOKEN] = token;
  $('token').value = '';
  locked = false;
  $('ask').close();
  showTokenButton();
  say('The token is good.');
  start();
};

$('ask-cancel').onclick = () => $('ask').close();

$('token-button').onclick = () => {
  if (locked) return askForToken();
  delete kept[TOKEN];
  location.reload();
};

/** A number of bytes. */
function size(bytes) {
  const units = [bytes === 1 ? 'byte' : 'bytes', 'kB', 'MB', 'GB', 'TB'];
  let unit = 0;
  for (; bytes >= 1000 && unit < units.length - 1; unit++) bytes /= 1000;
  return `${unit ? bytes.toFixed(1) : bytes} ${units[unit]}`;
}

/** A number of seconds, in the two largest units. */
function duration(seconds) {
  const units = [[86400, 'd'], [3600, 'h'], [60, 'min'], [1, 's']];
  const first = Math.max(0, units.findIndex(([length]) => seconds >= length));
  if (seconds < 1) return '0 s';
  const parts = units.slice(first, first + 2).map(([length, name]) => {
    const part = `${Math.floor(seconds / length)} ${name}`;
    seconds %= length;
    return part;
  });
  return parts.join(' ');
}
