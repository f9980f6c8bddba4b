'use strict';
// Fetches this page again and applies what changed, node by node: focus, selection and scroll position stay.
(() => {
  const EVERY_MS = 2000;
  const live = document.getElementById('live');
  const part = id => document.getElementById(id);
  let paused = false, timer = 0, last = Date.now(), shown = '';
  const time = when => new Date(when).toISOString().slice(0, 19).replace('T', ' ') + ' UTC';

  function apply(mine, theirs) {
    if (mine.nodeType !== theirs.nodeType || mine.nodeName !== theirs.nodeName) { mine.replaceWith(theirs); return; }
    if (mine.nodeType !== Node.ELEMENT_NODE) {
      if (mine.nodeValue !== theirs.nodeValue) mine.nodeValue = theirs.nodeValue;
      return;
    }
    if (mine.id === 'pause' || mine.id === 'freshness') return;
    for (const {name} of [...mine.attributes]) if (!theirs.hasAttribute(name) && name !== 'open') mine.removeAttribute(name);
    for (const {name, value} of theirs.attributes) if (mine.getAttribute(name) !== value) mine.setAttribute(name, value);
    const [old, fresh] = [[...mine.childNodes], [...theirs.childNodes]];
    fresh.forEach((node, at) => at < old.length ? apply(old[at], node) : mine.append(node));
    old.slice(fresh.length).forEach(node => node.remove());
  }

  function announce(words) {
    // Only when it changed: a screen reader must not announce the time every two seconds.
    if (words !== shown) part('freshness').textContent = shown = words;
  }

  function old(words) {
    document.body.classList.add('stale');
    if (part('sentence').textContent !== words) part('sentence').textContent = words;
  }

  function unanswered() {
    if (part('banner').dataset.state === 'ended') { announce('The daemon has stopped.'); return; }
    announce('Asked for every 2 seconds.');
    old('No answer from the daemon since ' + time(last) + ': all below is from then');
    part('age').textContent = ' (' + Math.max(0, Math.round((Date.now() - last) / 1000)) + ' s ago)';
  }

  async function refresh() {
    clearTimeout(timer);
    if (paused || document.hidden) return;
    try {
      const answer = await fetch(location.origin + location.pathname, {cache: 'no-store', signal: AbortSignal.timeout(5000)});
      if (!answer.ok) throw new Error(answer.status);
      const page = new DOMParser().parseFromString(await answer.text(), 'text/html');
      const theirs = page.getElementById('live');
      if (!theirs) throw new Error('no figures');
      if (paused) return;
      apply(live, document.adoptNode(theirs));
      document.title = page.title;
      document.body.classList.remove('stale');
      last = Date.now();
      announce('Live: refreshed every 2 seconds.');
    } catch {
      if (!paused) unanswered();
    }
    timer = setTimeout(refresh, EVERY_MS);
  }

  document.addEventListener('click', event => {
    if (event.target.id !== 'pause') return;
    paused = !paused;
    event.target.textContent = paused ? 'Resume' : 'Pause';
    if (!paused) { refresh(); return; }
    announce('Paused.');
    old('Paused at ' + time(last) + ': all below is from then');
  });
  document.addEventListener('visibilitychange', refresh);
  document.getElementById('pause').hidden = false;
  refresh();
})();
