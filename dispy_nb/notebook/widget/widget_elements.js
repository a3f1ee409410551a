// Elements of widgets.  They are changed in place, so that focus, selection, scroll positions and open
// sections stay.  Texts come from jobs and nodes: they are set as text, never as markup.

const opened = (globalThis.dispyOpenSections ||= {}); // by title: a new view begins like the last

function make(tag, attributes = {}, ...children) {
  const node = document.createElement(tag);
  for (const [name, value] of Object.entries(attributes)) node.setAttribute(name, value);
  node.append(...children);
  return node;
}

function setText(node, text) {
  text = String(text);
  if (node.textContent !== text) node.textContent = text;
}

function setAttribute(node, name, value) {
  value = String(value);
  if (node.getAttribute(name) !== value) node.setAttribute(name, value);
}

function setProperty(node, name, value) {
  if (node[name] !== value) node[name] = value;
}

function button(text, act, kind = '') {
  const node = make('button', { type: 'button', class: `dispy-button ${kind}` }, text);
  node.addEventListener('click', act);
  return node;
}

function plural(count, word) {
  return `${count.toLocaleString('en')} ${word}${count === 1 ? '' : 's'}`;
}

// A section that opens and closes; `aside` stands in its title, on the right.
function section(name, isOpen) {
  const title = make('span');
  const body = make('div', { class: 'dispy-body' });
  const summary = make('summary', {}, title);
  const root = make('details', { class: 'dispy-section' }, summary, body);
  root.open = opened[name] ?? isOpen;
  root.hidden = true;
  root.addEventListener('toggle', () => { opened[name] = root.open; });
  return { root, title, summary, body };
}

// Have a row for each datum: known ones are changed, others made or removed; focus stays near.
function rowsIn(parent, keyOf, makeRow, whereElse) {
  const known = new Map();
  return (data) => {
    const focused = parent.contains(document.activeElement) ? document.activeElement : null;
    const wanted = new Set(data.map(keyOf));
    for (const [key, row] of known) {
      if (!wanted.has(key)) {
        row.root.remove();
        known.delete(key);
      }
    }
    let next = parent.firstChild;
    for (const datum of data) {
      const key = keyOf(datum);
      if (!known.has(key)) known.set(key, makeRow(datum));
      const row = known.get(key);
      row.draw(datum);
      if (row.root === next) next = next.nextSibling;
      else parent.insertBefore(row.root, next);
    }
    if (focused && document.activeElement !== focused) {
      (focused.isConnected ? focused : whereElse).focus({ preventScroll: true });
    }
  };
}

function table(heads, caption) {
  const body = make('tbody');
  const cells = heads.map(([text, kind]) => make('th', { scope: 'col', class: kind ?? '' }, text));
  const root = make(
    'table', { 'aria-label': caption }, make('thead', {}, make('tr', {}, ...cells)), body,
  );
  const scroller = make('div', { class: 'dispy-scroll' }, root);
  return { root: scroller, body };
}

function cellsOf(kinds) {
  const cells = kinds.map((kind) => make('td', { class: kind }));
  return { root: make('tr', {}, ...cells), cells };
}

