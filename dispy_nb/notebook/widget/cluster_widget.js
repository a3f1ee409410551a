// The view of one cluster: it draws what the kernel says, and sends what the user wishes.
//
// A browser gets this file behind `widget_elements.js` and `cluster_head.js`, as one module: so it
// needs no network but the kernel's own channel.  Parts are what `cluster_head.js` says.

function nodes(wishes, link) {
  const { root, title, summary, body } = section('nodes', true);
  const heads = [
    ['Node'], ['Address'], ['Use', 'dispy-right'], ['Busy', 'dispy-right'], ['CPU', 'dispy-right'],
    ['Memory', 'dispy-right'], ['Jobs', 'dispy-right'], ['s/job', 'dispy-right'], ['Share of jobs'],
  ];
  const grid = table(heads, 'Nodes');
  const more = make('div', { class: 'dispy-more' });
  body.append(grid.root, more);
  const draw = rowsIn(grid.body, (row) => row.id, () => nodeRow(wishes), summary);
  return {
    root,
    needs: ['nodes', 'figures', 'said'],
    draw({ nodes: { rows, count, cpus, busy }, figures, said }) {
      root.hidden = !rows.length;
      setText(title, `${plural(count, 'node')}, ${busy} of ${plural(cpus, 'cpu')} busy`);
      const isFixed = figures.closed || !link.isUp();
      draw(rows.map((row) => ({ ...row, isFixed: isFixed || row.gone, said })));
      setText(more, count > rows.length ? `and ${plural(count - rows.length, 'more node')}` : '');
    },
  };
}

function nodeRow(wishes) {
  const kinds = ['', '', 'dispy-right', 'dispy-right', 'dispy-right', 'dispy-right', 'dispy-right'];
  const { root, cells } = cellsOf([...kinds, 'dispy-right', 'dispy-share']);
  const input = make('input', { type: 'number', min: 0, step: 1, class: 'dispy-input' });
  const offered = make('span');
  const fill = make('div', { class: 'dispy-fill' });
  const share = make('span');
  cells[2].append(input, offered);
  cells[8].append(make('div', { class: 'dispy-strip', 'aria-hidden': 'true' }, fill), share);
  let row = {};
  let drawn = ''; // what the input was given; anything else in it is the user's
  let timer = 0; // some click several times to get where they want
  let held = 0; // until when the user's number stays, though the kernel tells of another
  const send = () => {
    timer = 0;
    if (drawn === String(row.cpus)) return;
    held = Infinity;
    wishes.send('cpus', { node: row.id, cpus: Number(drawn) });
  };
  const commit = () => {
    const cpus = Number(input.value);
    if (input.value === drawn) return;
    if (input.value !== '' && Number.isInteger(cpus) && cpus >= 0 && cpus <= row.offered) {
      drawn = input.value;
      clearTimeout(timer);
      timer = setTimeout(send, 300);
    } else {
      wishes.refuse(`${row.name} has ${plural(row.offered, 'cpu')}: give a number from 0 to ${row.offered}.`);
      drawn = input.value = String(row.cpus);
    }
  };
  input.addEventListener('change', commit);
  // a step by arrow is no `change` where it leads back to what was there at first
  input.addEventListener('input', (event) => event.inputType || commit());
  input.addEventListener('keydown', (event) => event.key === 'Enter' && commit());
  const drawInput = (before) => {
    const isNews = row.cpus !== before.cpus;
    const isAnswer = row.said.number !== before.said?.number;
    if (isAnswer && held) held = row.said.is_error ? 0 : Date.now() + 2000;
    if (isNews) held = 0;
    const isFree = !timer && Date.now() > held && input.value === drawn;
    if (isFree && (isNews || isAnswer || !input.matches(':focus'))) {
      drawn = input.value = String(row.cpus);
    }
  };
  return {
    root,
    draw(now) {
      const before = row;
      row = now;
      root.classList.toggle('dispy-gone', row.gone);
      setText(cells[0], row.gone ? `${row.name} (gone)` : row.name);
      setText(cells[1], row.address);
      setAttribute(input, 'aria-label', `Cpus of ${row.name} to use`);
      setAttribute(input, 'max', row.offered);
      setProperty(input, 'disabled', row.isFixed);
      drawInput(before);
      setText(offered, ` of ${row.offered}`);
      [row.busy, row.load, row.memory, row.jobs, row.mean].forEach((text, at) => {
        setText(cells[at + 3], text);
      });
      fill.style.width = `${(100 * row.bar).toFixed(1)}%`;
      setText(share, row.share);
    },
  };
}

function failures() {
  const { root, title, summary, body } = section('failures', true);
  const list = make('div');
  const more = make('div', { class: 'dispy-more' });
  body.append(list, more);
  const draw = rowsIn(list, (row) => row.place, failureRow, summary);
  return {
    root,
    needs: ['failures', 'figures'],
    draw({ failures: { rows }, figures }) {
      const shown = rows.filter((row) => row.status !== 'cancelled').length;
      const left = Math.max(0, figures.failed - shown);
      root.hidden = !rows.length;
      setText(title, plural(rows.length + left, 'failure') + (left ? ', the first ones' : ''));
      draw(rows.map((row, place) => ({ ...row, place })));
      setText(more, left ? `and ${left.toLocaleString('en')} more` : '');
    },
  };
}

function failureRow() {
  const id = make('b');
  const call = make('span', { class: 'dispy-call' });
  const text = make('span', { class: 'dispy-last' });
  const detail = make('pre', { tabindex: 0, 'aria-label': 'Traceback' });
  const summary = make('summary', {}, id, call, text);
  return {
    root: make('details', { class: 'dispy-failure' }, summary, detail),
    draw(row) {
      setText(id, `job ${row.id}`);
      setText(call, row.arguments ? ` (${row.arguments})` : '');
      setText(text, ` ${row.status}: ${row.text}`);
      setText(detail, row.detail || row.text);
    },
  };
}

function results() {
  const { root, title, summary, body } = section('results', true);
  const heads = [['Job'], ['Count', 'dispy-right'], ['When', 'dispy-right'], ['Last value', 'dispy-wide']];
  const grid = table(heads, 'Provisional results');
  body.append(grid.root);
  // by place: several jobs may have the same id
  const draw = rowsIn(grid.body, (row) => row.place, () => {
    const { root: line, cells } = cellsOf(['', 'dispy-right', 'dispy-right', 'dispy-wide']);
    return {
      root: line,
      draw(row) {
        const when = new Date(1000 * row.at).toLocaleTimeString('en-GB');
        [row.id, row.count, when, row.text].forEach((text, at) => setText(cells[at], text));
      },
    };
  }, summary);
  return {
    root,
    needs: ['results'],
    draw({ results: { rows, count } }) {
      root.hidden = !rows.length;
      setText(title, `${plural(count, 'provisional result')}, the latest by job`);
      draw(rows.map((row, place) => ({ ...row, place })));
    },
  };
}

function jobs(wishes, link) {
  const { root, title, summary, body } = section('jobs', false);
  const ticked = new Set(); // numbers of jobs
  let shown = [];
  const cancel = button('Cancel selected', () => {
    wishes.send('cancel', { jobs: [...ticked] });
    ticked.clear();
    again();
  });
  const all = make('input', { type: 'checkbox', 'aria-label': 'Select all jobs shown' });
  const heads = [[''], ['Job'], ['Status'], ['Node'], ['Time', 'dispy-right'], ['Arguments', 'dispy-wide'], ['']];
  const grid = table(heads, 'Pending jobs');
  grid.root.querySelector('th').append(all);
  const more = make('span', { class: 'dispy-more' });
  body.append(grid.root, make('div', { class: 'dispy-below' }, cancel, more));
  const draw = rowsIn(grid.body, (row) => row.number, () => jobRow(wishes, tick), summary);
  let state = null;
  function tick(number, isTicked) {
    if (isTicked) ticked.add(number);
    else ticked.delete(number);
    again();
  }
  all.addEventListener('change', () => {
    for (const { number } of shown) tick(number, all.checked);
  });
  function again() {
    const { jobs: { rows }, figures, output } = state;
    const pending = figures.waiting + figures.running;
    const isFixed = figures.closed || !link.isUp();
    shown = rows;
    const there = new Set(rows.map((row) => row.number));
    for (const number of ticked) if (!there.has(number)) ticked.delete(number);
    root.hidden = !rows.length;
    setText(title, plural(pending, 'pending job'));
    draw(rows.map((row) => ({
      ...row, isTicked: ticked.has(row.number), isWatched: row.number === output.job, isFixed,
    })));
    all.checked = rows.length > 0 && ticked.size === rows.length;
    all.indeterminate = ticked.size > 0 && !all.checked;
    setText(cancel, ticked.size ? `Cancel selected (${ticked.size})` : 'Cancel selected');
    setProperty(cancel, 'disabled', !ticked.size || isFixed);
    const left = pending - rows.length;
    setText(more, left > 0 ? `and ${plural(left, 'more job')}` : '');
  }
  return {
    root,
    needs: ['jobs', 'figures', 'output'],
    draw(now) {
      state = now;
      again();
    },
  };
}

function jobRow(wishes, tick) {
  const { root, cells } = cellsOf(['', '', '', '', 'dispy-right', 'dispy-wide', '']);
  const box = make('input', { type: 'checkbox' });
  let row = {};
  box.addEventListener('change', () => tick(row.number, box.checked));
  const watch = button('Output', () => {
    wishes.send('watch', { job: row.isWatched ? null : row.number });
  }, 'dispy-small');
  cells[0].append(box);
  cells[6].append(watch);
  return {
    root,
    draw(now) {
      row = now;
      setAttribute(box, 'aria-label', `Select job ${row.id}`);
      setProperty(box, 'checked', row.isTicked);
      [row.id, row.status, row.node, row.time, row.arguments].forEach((text, at) => {
        setText(cells[at + 1], text);
      });
      setAttribute(watch, 'aria-label', `Output of job ${row.id}`);
      setAttribute(watch, 'aria-pressed', row.isWatched);
      setProperty(watch, 'disabled', row.isFixed);
    },
  };
}

function output(wishes) {
  const { root, title, body } = section('output', true);
  const out = stream('Standard output');
  const err = stream('Standard error');
  const empty = make('div', { class: 'dispy-more' });
  const hide = button('Hide', () => wishes.send('watch', { job: null }), 'dispy-small');
  hide.setAttribute('aria-label', 'Hide the output');
  body.append(empty, out.root, err.root, make('div', { class: 'dispy-below' }, hide));
  return {
    root,
    needs: ['output'],
    draw({ output: now }) {
      root.hidden = now.job === null;
      if (now.job === null) return;
      setText(title, `Output of job ${now.id}${now.status ? ` (${now.status})` : ''}, its last lines`);
      const nothing = now.status ? 'It wrote nothing.' : 'It has written nothing yet.';
      setText(empty, now.stdout || now.stderr ? '' : nothing);
      out.draw(now.stdout);
      err.draw(now.stderr);
    },
    end() {
      out.end();
      err.end();
    },
  };
}

// One stream: it follows its end unless the user has scrolled up, and waits while text is selected.
function stream(name) {
  const text = make('pre', { tabindex: 0, role: 'log', 'aria-live': 'off', 'aria-label': name });
  const root = make('div', { class: 'dispy-stream' }, make('div', { class: 'dispy-label' }, name), text);
  let latest = '';
  let follows = true;
  const follow = () => {
    if (follows) text.scrollTop = text.scrollHeight;
  };
  const show = () => {
    const selection = document.getSelection();
    if (selection && !selection.isCollapsed && text.contains(selection.anchorNode)) return;
    setText(text, latest);
    root.hidden = !latest;
    follow();
    requestAnimationFrame(follow); // a view that is new is not in the page yet
  };
  text.addEventListener('scroll', () => {
    follows = text.scrollHeight - text.scrollTop - text.clientHeight < 8;
  });
  document.addEventListener('selectionchange', show);
  return {
    root,
    draw(now) {
      latest = now;
      show();
    },
    end: () => document.removeEventListener('selectionchange', show),
  };
}

function render({ model, el }) {
  const wishes = wishing(model);
  let isUp = true; // whether the kernel can be reached, as far as the front end tells
  const link = { isUp: () => isUp };
  const parts = [
    head(wishes, link), bar(), numbers(), notice(), wishes, nodes(wishes, link), failures(),
    results(), jobs(wishes, link), output(wishes),
  ];
  const root = make('div', { class: 'dispy-cluster' }, ...parts.map((part) => part.root));
  root.setAttribute('data-lm-suppress-shortcuts', 'true'); // keys here are not JupyterLab's
  root.setAttribute('role', 'region');
  root.setAttribute('aria-label', `Cluster ${model.get('figures').name}`);
  const names = [...new Set(parts.flatMap((part) => part.needs))];
  const draw = (some) => {
    const state = Object.fromEntries(names.map((name) => [name, model.get(name)]));
    for (const part of some) part.draw(state);
  };
  const turn = (up) => {
    if (isUp === up) return;
    isUp = up;
    draw(parts);
  };
  const listeners = names.map((name) => [`change:${name}`, () => {
    turn(true);
    draw(parts.filter((part) => part.needs.includes(name)));
  }]);
  // said when the kernel is restarted; nobody says whether it can be reached, but for what it sends
  listeners.push(['comm_live_update', () => turn(false)]);
  for (const [event, listener] of listeners) model.on(event, listener);
  draw(parts);
  el.append(root);
  revive(model);
  return () => {
    for (const [event, listener] of listeners) model.off(event, listener);
    for (const part of parts) part.end?.();
    root.remove();
  };
}

export default { render };
