// One entry: it is read, changed and deleted, each by its revision, so that nobody overwrites what they have not seen.

/** Values whose JSON is longer than this, in characters, are not loaded: there is a link to them. */
const LARGE = 100_000;
/** Characters that nobody can see, or that turn the direction of the text around them. JSON has an escape for them. */
const UNSEEN = /[\x7f-\x9f\u2028-\u202e\u2066-\u2069\ufeff]/g;
/** What a text field would change or hide: control characters but tab and LF. */
const CONTROL = /[\0-\x08\x0b-\x1f]/;

/** What is shown: `{key, revision, deadline, json}`, or `large` instead of `json`. Its revision is 0 where the key is not there. */
let entry = null;
/** How the form has shown it at first. */
let shown = {};
/** The key that was asked for last. */
let wanted;
/** The last change of that key that has been heard of: `{revision, isGone}`. */
let latest;
/** What is there now, in a conflict: `{found}`. */
let conflict = null;
/** Whether an answer is awaited. */
let isSaving = false;

/** Browsers resolve `.` and `..` in a path, so these keys can only be named in the body of a bulk request. */
const inPath = key => key !== '.' && key !== '..';
const pathOf = key => `api/v1/kv/${encodeURIComponent(key)}`;
const rawPathOf = key => `kv/${encodeURIComponent(key)}`;
const deadlineOf = ttl => (ttl ? Date.now() + ttl * 1000 : null);

/** Reads an entry; `null` if it is not there. */
async function read(key) {
  let answer;
  try {
    answer = await (inPath(key)
      ? call('GET', `${pathOf(key)}?with_ttl=true&with_revision=true`)
      : call('POST', 'api/v1/kv/bulk/get', { body: JSON.stringify({ keys: [key], with_ttl: true, with_revision: true }) }));
  } catch (error) {
    if (error.status === 404) return null;
    throw error;
  }
  const text = await textOf(answer, LARGE);
  if (text === undefined) return readLarge(key);
  const all = JSON.parse(text);
  const found = inPath(key) ? all.data : all.data[key];
  if (found.status === 'error') return null;
  // The value exactly as it was put: parsed numbers would lose digits. What follows it is known.
  const ttl = found.ttl === undefined ? '' : `,"ttl":${found.ttl}`;
  const after = `${ttl},"revision":${found.revision}}${inPath(key) ? '' : '}'},"revision":${all.revision}}`;
  const json = text.slice(text.indexOf('"value":') + 8, -after.length);
  return { key, json, revision: found.revision, deadline: deadlineOf(found.ttl) };
}

/** Reads what is known of an entry besides its value. */
async function readLarge(key) {
  // The first key that begins like this is the key itself.
  const query = new URLSearchParams({ prefix: key, limit: 1, keys_only: true, with_ttl: true, with_revision: true });
  const found = (await (await call('GET', `api/v1/kv?${query}`)).json()).data[key];
  if (!found) return null;
  const bytes = inPath(key) && (await call('HEAD', rawPathOf(key))).headers.get('Content-Length');
  return { key, large: bytes ? size(Number(bytes)) : 'large', revision: found.revision, deadline: deadlineOf(found.ttl) };
}

/** The text of an answer; `undefined`, without reading on, if it is longer than `most`. */
async function textOf(answer, most) {
  const reader = answer.body.pipeThrough(new TextDecoderStream()).getReader();
  let text = '';
  for (;;) {
    const { value, done } = await reader.read();
    if (done) return text;
    text += value;
    if (text.length > most) return void reader.cancel();
  }
}

/** Puts a value, given as JSON, or deletes the key if there is none, if it still has that revision. Returns the new revision. */
async function write(key, json, ttl, revision) {
  const fields = (json === undefined ? '' : `"value":${json}`) + (ttl ? `,"ttl":${ttl}` : '');
  let answer;
  if (inPath(key)) {
    const method = json === undefined ? 'DELETE' : 'PUT';
    const headers = revision ? { 'If-Match': `"${revision}"` } : { 'If-None-Match': '*' };
    answer = await call(method, `${pathOf(key)}?with_revision=true`, { headers, body: json && `{${fields}}` });
  } else {
    const operation = json === undefined ? '"op":"delete"' : `"op":"put",${fields}`;
    const body = `{"with_revision":true,"operations":[{"key":"${key}","if_revision":${revision},${operation}}]}`;
    answer = await call('POST', 'api/v1/kv/bulk', { body });
  }
  return (await answer.json()).revision;
}

/** How a value is shown and edited: a text as text, anything else as its JSON. A text with unseen characters is a JSON string. */
function readable({ json, large }) {
  if (large) return { kind: 'text', text: '' };
  const text = json[0] === '"' ? JSON.parse(json) : undefined;
  // `search` begins at the beginning each time.
  if (text !== undefined && !CONTROL.test(text) && text.search(UNSEEN) < 0) return { kind: 'text', text };
  return { kind: 'json', text: json.replace(UNSEEN, it => `\\u${it.charCodeAt(0).toString(16).padStart(4, '0')}`) };
}

/** Opens a key, by its name in the address. */
function show(key) {
  if (location.hash === `#${key}`) attempt(() => open(key));
  else location.hash = key;
}

function openByAddress() {
  return attempt(async () => {
    let key;
    try {
      key = decodeURIComponent(location.hash.slice(1));
    } catch {
      throw new Failure(400, 'The address names no key.');
    }
    if (key && key !== entry?.key) await open(key);
  });
}

/** Whether the form may show something else. */
async function mayLeave() {
  return !isDirty() || sure(`Drop your changes to ${entry.key || 'the new key'}?`, 'Drop my changes', 'Keep editing');
}

async function open(key) {
  if (!(await mayLeave())) return history.replaceState(null, '', `#${entry.key}`);
  wanted = key;
  latest = undefined;
  let found;
  try {
    found = await read(key);
  } catch (error) {
    if (wanted === key) wanted = entry?.key;
    throw error;
  }
  if (wanted !== key) return; // another key has been asked for since
  present(found ?? { key, json: '""', revision: 0, deadline: null });
  say(found ? `${key} is open.` : `There is no key ${key}.`);
  if (matchMedia('(max-width: 48rem)').matches) $('entry-title').scrollIntoView();
}

/** Shows an entry in the form. */
function present(found) {
  entry = found;
  wanted = entry.key;
  conflict = null;
  const { kind, text } = readable(entry);
  const form = $('form').elements;
  form.key.value = entry.key;
  form.key.readOnly = entry.key !== '';
  form.kind.value = kind;
  form.value.value = text;
  form.expiry.value = entry.revision ? 'keep' : 'never';
  form.expiry.options[0].disabled = !entry.revision;
  form.seconds.value = '';
  $('editor').hidden = $('save').hidden = $('undo').hidden = Boolean(entry.large);
  const isEscaped = kind === 'json' && entry.json[0] === '"';
  $('kind-hint').textContent = isEscaped ? 'A text with characters that cannot be seen, as a JSON string.' : '';
  $('raw').hidden = !entry.revision || !inPath(entry.key);
  $('raw').href = rawPathOf(entry.key);
  $('raw').textContent = `${token ? 'Download the value' : 'Open the value by itself'}${entry.large ? ` (${entry.large})` : ''}`;
  $('delete').hidden = !entry.revision;
  shown = { key: entry.key, kind, value: form.value.value, expiry: form.expiry.value };
  document.title = `${entry.key || 'New key'} – threadkv`;
  markChosen(entry.key);
  refresh();
}

function close() {
  entry = wanted = conflict = null;
  history.replaceState(null, '', '#');
  document.title = 'threadkv';
  markChosen();
  refresh();
  (current ?? $('prefix')).focus();
}

function isDirty() {
  if (!entry || entry.large) return false;
  const form = $('form').elements;
  return Object.entries(shown).some(([name, value]) => form[name].value !== value);
}

/** Shows what depends on the time, on changes, and on what has been typed. */
function refresh() {
  $('none').hidden = Boolean(entry);
  $('form').hidden = !entry;
  $('conflict').hidden = !conflict;
  const seen = conflict ? conflict.found?.revision ?? conflict.revision : entry?.revision;
  const isStale = entry && !isSaving && latest && latest.revision > seen;
  $('notice').hidden = !isStale;
  if (isStale) {
    $('notice-text').textContent = latest.isGone
      ? 'This key is gone: somebody has deleted it, or it has expired.'
      : `Somebody has changed this entry: it has revision ${latest.revision} now.`;
  }
  if (!entry) return;
  $('about').textContent = aboutOf(entry);
  $('value').readOnly = isSaving;
  $('undo').disabled = !isDirty();
  const timed = $('expiry').value === 'in';
  $('seconds-label').className = timed ? '' : 'off';
  $('seconds').required = timed;
  $('seconds').disabled = !timed;
}

function aboutOf({ revision, deadline, json, large }) {
  if (!revision) return 'It is not there yet: Save makes it.';
  const left = deadline && Math.ceil((deadline - Date.now()) / 1000);
  const expiry = left ? `expires in ${duration(left)}` : 'never expires';
  const bytes = large ?? size(new TextEncoder().encode(json[0] === '"' ? JSON.parse(json) : json).length);
  return `${bytes}${large ? ', too large to be edited here' : ''} · ${expiry} · revision ${revision}`;
}

/** The seconds that the form asks for; `null` for no expiry. */
function ttlWanted() {
  if ($('expiry').value === 'in') return Number($('seconds').value);
  if ($('expiry').value === 'never' || !entry.deadline) return null;
  return Math.max(1, Math.ceil((entry.deadline - Date.now()) / 1000));
}

async function save() {
  if (isSaving) return;
  const [key, text] = [$('key').value, $('value').value];
  let json = JSON.stringify(text);
  if ($('form').elements.kind.value === 'json') {
    try {
      JSON.parse(text); // so that nothing but a value gets into the request
    } catch (error) {
      throw new Failure(0, `This is no JSON: ${error.message}`);
    }
    json = text.trim();
  }
  const ttl = ttlWanted();
  isSaving = true;
  refresh();
  try {
    const revision = await write(key, json, ttl, entry.revision);
    present({ key, json, revision, deadline: deadlineOf(ttl) });
    history.replaceState(null, '', `#${key}`);
    say(`${key} is saved.`);
  } catch (error) {
    if (error.status !== 412) throw error;
    entry.key = wanted = key;
    await showConflict('Somebody else was faster, so nothing has been saved.');
  } finally {
    isSaving = false;
    refresh();
  }
}

/** Shows what is there now beside what has been typed. */
async function showConflict(why) {
  const found = await read(entry.key);
  conflict = { found, revision: latest?.revision ?? 0 };
  $('conflict-text').textContent = why;
  $('conflict-there').textContent = found ? `There now: ${aboutOf(found)}` : 'The key is gone.';
  $('conflict-value').hidden = !found || Boolean(found.large);
  $('conflict-value').textContent = found ? readable(found).text : '';
  $('conflict-mine').textContent = found ? 'Save mine over it' : 'Save mine as a new entry';
  $('conflict-theirs').textContent = found ? 'Drop mine, take what is there' : 'Drop mine';
  say('');
  refresh();
  $('conflict').focus();
}

/** Takes what is there, and drops what has been typed. */
function take(found) {
  if (!found) return close();
  present(found);
  $(found.large ? 'raw' : 'value').focus();
}

/** Tells the form that a key has been changed elsewhere, or by this page. */
function entryChanged(key, revision, isGone) {
  if (key === wanted) latest = { revision, isGone };
}

/** Looks whether the entry has changed, where changes may have been missed. */
async function checkEntry() {
  if (!entry?.key || isSaving) return;
  const { key, revision } = entry;
  const found = await read(key);
  if (found || revision) entryChanged(key, found?.revision ?? Infinity, !found);
  refresh();
}

$('form').onsubmit = event => {
  event.preventDefault();
  attempt(save);
};
$('form').oninput = refresh;
$('undo').onclick = () => {
  present(entry);
  $('value').focus();
};
$('notice-show').onclick = () => attempt(async () => {
  if (isDirty()) await showConflict('Somebody has changed this entry while you were editing it.');
  else take(await read(entry.key));
});
$('conflict-theirs').onclick = () => take(conflict.found);
$('conflict-mine').onclick = () => attempt(async () => {
  const { found } = conflict;
  Object.assign(entry, { revision: found?.revision ?? 0, deadline: found?.deadline ?? null });
  conflict = null;
  await save();
  $('value').focus();
});
$('delete').onclick = () => attempt(async () => {
  const { key, revision } = entry;
  if (!(await sure(`Delete ${key}?`, 'Delete it', 'Keep it'))) return;
  try {
    await write(key, undefined, null, revision);
    close();
    say(`${key} is deleted.`);
  } catch (error) {
    if (error.status !== 412) throw error;
    const why = 'Somebody has changed this entry meanwhile, so it has not been deleted.';
    if (isDirty()) return showConflict(why);
    take(await read(key));
    say(entry ? `${why} This is what is there now.` : `${key} was gone already.`, true);
  }
});
$('new').onclick = () => attempt(async () => {
  if (!(await mayLeave())) return;
  history.replaceState(null, '', '#');
  latest = undefined;
  present({ key: '', json: '""', revision: 0, deadline: null });
  $('key').focus();
});
$('raw').onclick = event => {
  if (!token) return; // the browser opens it
  event.preventDefault();
  attempt(async () => {
    const link = document.createElement('a');
    link.href = URL.createObjectURL(await (await call('GET', rawPathOf(entry.key))).blob());
    link.download = `${entry.key.replaceAll(':', '_')}.txt`;
    link.click();
    setTimeout(() => URL.revokeObjectURL(link.href), 60_000);
  });
};
addEventListener('hashchange', openByAddress);
addEventListener('beforeunload', event => isDirty() && event.preventDefault());
setInterval(refresh, 1000);
