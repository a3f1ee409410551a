// The upper half of a cluster's view: name and buttons, bar, numbers, and what is said.
//
// Each part has a `root`, the names of the traits it `needs`, and `draw(state)`; some have an `end`.

const SILENCE = 6; // seconds without news, while jobs are pending, after which it is said
const STATUSES = ['finished', 'failed', 'cancelled', 'running']; // as they follow in the bar

function wishing(model) {
  const text = make('span', { class: 'dispy-said', role: 'status', 'aria-live': 'polite' });
  let timer = 0;
  const show = (words, isError) => {
    setText(text, words);
    text.classList.toggle('dispy-error', isError);
  };
  const late = () => show('No answer yet: the kernel is busy with a cell, or gone.', true);
  return {
    root: text,
    needs: ['said'],
    draw({ said }) {
      clearTimeout(timer);
      show(said.text ?? '', Boolean(said.is_error));
    },
    send(wish, more = {}) {
      clearTimeout(timer);
      timer = setTimeout(late, SILENCE * 1000);
      model.send({ wish, ...more });
    },
    refuse: (words) => show(words, true),
    end: () => clearTimeout(timer),
  };
}

// the parts

function head(wishes, link) {
  const name = make('span', { class: 'dispy-name' });
  const state = make('span', { class: 'dispy-state' });
  const cancel = button('Cancel all', () => wishes.send('cancel_all'));
  const close = closing(wishes);
  const root = make(
    'div', { class: 'dispy-head' },
    make('span', { class: 'dispy-title' }, name, state),
    make('span', { class: 'dispy-actions' }, cancel, ...close.roots),
  );
  return {
    root,
    needs: ['figures'],
    draw({ figures }) {
      const pending = figures.waiting + figures.running;
      setText(name, figures.name);
      setText(state, figures.closed ? 'closed' : link.isUp() ? '' : 'the kernel is gone');
      setAttribute(cancel, 'aria-label', `Cancel all pending jobs of ${figures.name}`);
      setProperty(cancel, 'disabled', !pending || figures.closed || !link.isUp());
      close.draw(figures, pending, !figures.closed && link.isUp());
    },
  };
}

// The button that closes the cluster asks first if jobs are pending.
function closing(wishes) {
  let pending = 0;
  const ask = button('Close cluster', () => (pending ? turn(true) : send('wait')));
  const after = button('Close after its jobs', () => send('wait'));
  const now = button('Cancel them and close', () => send('cancel'), 'dispy-danger');
  const back = button('Back', () => turn(false));
  const group = make('span', { class: 'dispy-ask', role: 'group' }, after, now, back);
  group.hidden = true;
  function turn(asking) {
    group.hidden = !asking;
    ask.hidden = asking;
    (asking ? after : ask).focus();
  }
  function send(what) {
    if (!group.hidden) turn(false);
    wishes.send('close', { pending: what });
  }
  group.addEventListener('keydown', (event) => {
    if (event.key !== 'Escape') return;
    event.stopPropagation();
    turn(false);
  });
  return {
    roots: [ask, group],
    draw(figures, count, can) {
      pending = count;
      setAttribute(ask, 'aria-label', `Close cluster ${figures.name}`);
      setAttribute(group, 'aria-label', `Close cluster ${figures.name} with pending jobs`);
      setText(after, `Close after ${plural(count, 'job')}`);
      for (const each of [ask, after, now]) setProperty(each, 'disabled', !can);
      if (!group.hidden && (!can || !count)) turn(false);
    },
  };
}

function bar() {
  const parts = STATUSES.map((status) => make('div', { class: `dispy-part dispy-${status}` }));
  const root = make('div', { class: 'dispy-bar', role: 'progressbar', 'aria-valuemin': 0 }, ...parts);
  return {
    root,
    needs: ['figures'],
    draw({ figures }) {
      const { created, waiting } = figures;
      const ended = figures.finished + figures.failed + figures.cancelled;
      STATUSES.forEach((status, at) => {
        const share = created ? (100 * figures[status]) / created : 0;
        parts[at].style.width = `${share.toFixed(2)}%`;
        parts[at].title = `${figures[status]} ${status}`;
      });
      const words = STATUSES.map((status) => `${figures[status]} ${status}`).join(', ');
      setAttribute(root, 'aria-label', `Progress of ${figures.name}`);
      setAttribute(root, 'aria-valuemax', Math.max(created, 1));
      setAttribute(root, 'aria-valuenow', ended);
      setAttribute(
        root, 'aria-valuetext', `${ended} of ${created} jobs ended: ${words}, ${waiting} waiting`,
      );
    },
  };
}

function numbers() {
  const names = ['created', 'waiting', 'running', 'finished', 'failed', 'cancelled'];
  const counts = names.map((name) => make('li', { class: `dispy-count dispy-of-${name}` }));
  const others = ['rate', 'elapsed', 'remaining'].map((name) => make('li', { class: `dispy-${name}` }));
  const root = make('ul', { class: 'dispy-numbers', 'aria-label': 'Numbers' }, ...counts, ...others);
  return {
    root,
    needs: ['figures'],
    draw({ figures }) {
      names.forEach((name, at) => {
        setText(counts[at], `${figures[name].toLocaleString('en')} ${name}`);
        counts[at].classList.toggle('dispy-none', !figures[name]);
      });
      setText(others[0], figures.rate);
      setText(others[1], `${figures.elapsed} passed`);
      setText(others[2], figures.remaining);
      others[2].hidden = !figures.remaining;
    },
  };
}

// Why nothing happens, in the scheduler's words; or that the kernel itself says nothing any more.
function notice() {
  const text = make('div', { class: 'dispy-notice', 'aria-live': 'polite' });
  const silence = make('div', { class: 'dispy-notice', 'aria-live': 'polite' });
  text.hidden = silence.hidden = true;
  let heard = Date.now();
  let latest = null;
  let isWaiting = false;
  const look = () => {
    const seconds = Math.floor((Date.now() - heard) / 1000);
    silence.hidden = !isWaiting || seconds < SILENCE;
    if (!silence.hidden) {
      setText(silence, 'No news from the kernel: it is busy or gone, and these figures are old.');
    }
  };
  const timer = setInterval(look, 1000);
  return {
    root: make('div', {}, text, silence),
    needs: ['figures'],
    draw({ figures }) {
      if (figures !== latest) heard = Date.now(); // else it is drawn again for another reason
      latest = figures;
      isWaiting = !figures.closed && figures.waiting + figures.running > 0;
      setText(text, figures.notice);
      text.hidden = !figures.notice;
      look();
    },
    end: () => clearInterval(timer),
  };
}
