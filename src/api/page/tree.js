// The keys as a tree. Each level is a listing that is asked for page by page, as somebody opens it, and kept true by the changes that come.

/** How many keys and groups are asked for at a time. */
const PAGE = 100;

/** What is shown; its rows are those of `#tree`. */
let root;
/** What is being loaded to replace it. */
let coming;
/** The row that the Tab key leads to. */
let current;
const itemOf = new WeakMap();

/** The keys that begin with a prefix, up to the next `:`. */
class Level {
  constructor(prefix, list, group) {
    Object.assign(this, { prefix, list, group, items: [], room: 0, loaded: false, loading: false, missed: [] });
    this.depth = group ? group.home.depth + 1 : 1;
    this.more = row('Show more', this.depth, { home: this, isMore: true });
    this.more.className = 'more';
  }

  /** Loads the next page. */
  async load() {
    if (this.loading) return;
    Object.assign(this, { loading: true, missed: [] });
    try {
      const query = new URLSearchParams({ prefix: this.prefix, delimiter: ':', keys_only: true, limit: PAGE });
      if (this.next) query.set('after', this.next);
      const page = await (await call('GET', `api/v1/kv?${query}`)).json();
      this.next = page.next;
      this.loaded = true;
      const names = [...Object.keys(page.data), ...page.prefixes].sort();
      this.room = this.items.length + names.length + PAGE;
      names.forEach(name => this.add(name));
      this.showMore();
    } finally {
      this.loading = false;
    }
    // What has changed meanwhile may be in the page or not.
    this.missed.forEach(change => change());
  }

  /** Where a name stands, or would. Keys are ASCII, so this is the order of the server. */
  find(name) {
    let [low, high] = [0, this.items.length];
    while (low < high) {
      const middle = (low + high) >> 1;
      if (this.items[middle].name < name) low = middle + 1;
      else high = middle;
    }
    return [low, this.items[low]?.name === name ? this.items[low] : undefined];
  }

  add(name) {
    const [at, found] = this.find(name);
    if (found || (this.next && name > this.next)) return;
    const isGroup = name.length > this.prefix.length && name.endsWith(':');
    // Below a filter names are whole, since the prefix may end within a word.
    const label = this.group && name !== this.prefix ? name.slice(this.prefix.length) : name;
    const item = { name, home: this };
    item.row = row(label, this.depth, item);
    if (isGroup) {
      const list = document.createElement('ul');
      list.role = 'group';
      list.hidden = true;
      item.row.append(list);
      item.row.ariaExpanded = 'false';
      item.level = new Level(name, list, item);
    } else {
      item.row.ariaSelected = String(name === entry?.key);
    }
    this.list.insertBefore(item.row, this.items[at]?.row ?? (this.more.isConnected ? this.more : null));
    this.items.splice(at, 0, item);
    if (this.items.length > this.room) {
      this.drop(this.items.length - 1);
      this.next = this.items.at(-1).name;
    }
  }

  /** Takes a row away, and with the last one the group. */
  drop(at) {
    const [{ row }] = this.items.splice(at, 1);
    const hadFocus = row.contains(document.activeElement);
    const next = after(row, true) ?? before(row);
    row.remove();
    if (row.contains(current)) setCurrent(next, hadFocus);
  }

  remove(name) {
    const [at, found] = this.find(name);
    if (found) this.drop(at);
  }

  /** After a change: a group without keys goes, and the last row says whether there are more. */
  showMore() {
    if (!this.next) this.more.remove();
    else if (this.list.lastChild !== this.more) this.list.append(this.more);
    if (this.loaded && !this.next && this.items.length === 0 && this.group) {
      this.group.home.remove(this.group.name);
      this.group.home.showMore();
    }
    if (this === root) showEmpty();
  }
}

/** A row of the tree. */
function row(label, depth, item) {
  const row = document.createElement('li');
  row.role = 'treeitem';
  row.tabIndex = -1;
  row.ariaLevel = depth;
  row.ariaLabel = label;
  const text = document.createElement('span');
  text.className = 'row';
  text.textContent = label;
  row.append(text);
  itemOf.set(row, item);
  return row;
}

function showEmpty() {
  $('empty').hidden = root.items.length > 0;
  $('empty').textContent = root.prefix ? 'No key begins like this.' : 'There are no keys yet.';
  if (!current?.isConnected) setCurrent($('tree').firstElementChild, false);
}

/** Loads everything anew, and opens the groups that are open. */
async function loadTree(prefix = root?.prefix ?? '') {
  const open = new Set([...$('tree').querySelectorAll('[aria-expanded=true]')].map(row => itemOf.get(row).name));
  const level = new Level(prefix, document.createElement('ul'));
  coming = level;
  $('tree').ariaBusy = 'true';
  try {
    await level.load();
  } finally {
    if (coming === level) $('tree').ariaBusy = 'false';
  }
  if (coming !== level) return;
  const hadFocus = $('tree').contains(document.activeElement);
  $('tree').replaceChildren(...level.list.children);
  level.list = $('tree');
  root = level;
  coming = undefined;
  setCurrent($('tree').firstElementChild, hadFocus);
  showEmpty();
  const reopen = async ({ items }) => {
    for (const item of items.filter(item => item.level && open.has(item.name))) {
      await expand(item);
      await reopen(item.level);
    }
  };
  await reopen(level);
}

async function expand(item) {
  item.row.ariaExpanded = 'true';
  item.level.list.hidden = false;
  if (!item.level.loaded) await item.level.load();
}

function collapse(item) {
  item.row.ariaExpanded = 'false';
  item.level.list.hidden = true;
  if (item.level.list.contains(current)) setCurrent(item.row, item.level.list.contains(document.activeElement));
}

/** A key has been put, or is gone. */
function keyChanged(key, isThere) {
  for (const top of [root, coming]) {
    let level = top && key.startsWith(top.prefix) ? top : undefined;
    while (level) {
      const [here, end] = [level, key.indexOf(':', level.prefix.length)];
      const name = end < 0 ? key : key.slice(0, end + 1);
      const change = () => {
        if (isThere) here.add(name);
        else if (end < 0) here.remove(name);
        here.showMore();
      };
      if (level.loading) level.missed.push(change);
      if (level.loaded) change();
      level = end < 0 ? undefined : level.find(name)[1]?.level;
    }
  }
}

/** All keys that begin with this are gone. */
function prefixCleared(prefix, level) {
  if (!level) return [root, coming].forEach(top => top && prefixCleared(prefix, top));
  const clear = () => {
    for (let at = level.items.length - 1; at >= 0; at--) {
      const item = level.items[at];
      if (item.name.startsWith(prefix)) level.drop(at);
      else if (item.level && prefix.startsWith(item.name)) prefixCleared(prefix, item.level);
    }
    if (level.prefix.startsWith(prefix)) level.next = undefined;
    level.showMore();
  };
  if (level.loading) level.missed.push(clear);
  if (level.loaded) clear();
}

/** Marks the row of the key that is open. */
function markChosen(key) {
  $('tree').querySelectorAll('[aria-selected=true]').forEach(row => (row.ariaSelected = 'false'));
  const row = [...$('tree').querySelectorAll('[aria-selected]')].find(row => itemOf.get(row).name === key);
  if (row) row.ariaSelected = 'true';
}

function setCurrent(row, focus) {
  if (current) current.tabIndex = -1;
  current = row;
  if (!row) return;
  row.tabIndex = 0;
  if (focus) row.focus();
}

/** The next row that is visible, or the next one beside or above. */
function after(row, skipInside) {
  const inside = !skipInside && row.ariaExpanded === 'true' && row.querySelector('li');
  if (inside) return inside;
  for (; row && row !== $('tree'); row = row.parentElement) {
    if (row.role === 'treeitem' && row.nextElementSibling) return row.nextElementSibling;
  }
}

/** The last visible row in a row, or itself. */
function lastIn(row) {
  while (row?.ariaExpanded === 'true' && row.querySelector('li')) row = row.lastElementChild.lastElementChild;
  return row;
}

function before(row) {
  return row.previousElementSibling?.role === 'treeitem' ? lastIn(row.previousElementSibling) : parentOf(row);
}

function parentOf(row) {
  return itemOf.get(row).home.group?.row;
}

async function activate(row) {
  const item = itemOf.get(row);
  if (item.isMore) {
    const last = item.home.items.at(-1)?.row;
    await item.home.load();
    const hadFocus = [row, document.body].includes(document.activeElement);
    setCurrent(last ? last.nextElementSibling : item.home.list.firstElementChild, hadFocus);
  } else if (!item.level) {
    show(item.name);
  } else if (row.ariaExpanded === 'true') {
    collapse(item);
  } else {
    await expand(item);
  }
}

$('tree').onclick = event => {
  const row = event.target.closest('[role=treeitem]');
  if (!row || !event.target.closest('.row')) return;
  setCurrent(row, true);
  attempt(() => activate(row));
};

$('tree').onkeydown = event => {
  if (event.ctrlKey || event.altKey || event.metaKey || !current) return;
  const row = current;
  const group = itemOf.get(row).level && itemOf.get(row);
  const isOpen = row.ariaExpanded === 'true';
  const keys = {
    ArrowDown: () => after(row),
    ArrowUp: () => before(row),
    Home: () => $('tree').firstElementChild,
    End: () => lastIn($('tree').lastElementChild),
    ArrowRight: () => (isOpen ? row.querySelector('li') : group && void attempt(() => expand(group))),
    ArrowLeft: () => (isOpen ? collapse(group) : parentOf(row)),
    Enter: () => void attempt(() => activate(row)),
    ' ': () => void attempt(() => activate(row)),
  };
  if (!keys[event.key]) return;
  event.preventDefault();
  const next = keys[event.key]();
  if (next) setCurrent(next, true);
};

let typing;
$('prefix').oninput = () => {
  clearTimeout(typing);
  typing = setTimeout(() => attempt(() => loadTree($('prefix').value)), 250);
};
$('filter').onsubmit = event => {
  event.preventDefault();
  clearTimeout(typing);
  attempt(() => loadTree($('prefix').value));
};
$('reload').onclick = () => attempt(async () => {
  await loadTree();
  say('The keys have been loaded again.');
});
