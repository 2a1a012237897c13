'use strict';
// Verdicts are those of kgl_mm/inspection/result.py, so that moving the threshold asks nobody.

const at = (id) => document.getElementById(id);
const EDGE = 9; // log-odds at the ends of the slider, beyond which there are only 0 and 1
const AT_ONCE = 2; // one on its way while another is looked at
const MOST_DROPPED = 20000; // files of folders are looked for
const state = {model: null, items: [], threshold: 0.5, waiting: [], busy: 0, shown: null, round: 0};

function make(name, attributes = {}, ...children) {
  const svg = ['svg', 'polygon', 'line'].includes(name);
  const element = svg ? document.createElementNS('http://www.w3.org/2000/svg', name) : document.createElement(name);
  for (const key in attributes) element.setAttribute(key, attributes[key]);
  element.append(...children);
  return element;
}

const isBad = (found) => state.model.has_good ? found.score >= state.threshold : null;

function label(found) {
  let best = -1;
  const bad = isBad(found);
  found.pred_scores.forEach((p, i) => {
    const allowed = bad === null || (bad ? i > 0 : i === 0);
    if (allowed && (best < 0 || p > found.pred_scores[best])) best = i;
  });
  return state.model.classes[best];
}

const regions = (found) => isBad(found) === false ? [] : found.places;
const exact = (p) => (p > 0 && p < 0.0005) || (p < 1 && p > 0.9995) ? String(Number(p.toPrecision(6))) : p.toFixed(3);
const short = (p) => p > 0 && p < 0.0005 ? '< 0.001' : p < 1 && p > 0.9995 ? '> 0.999' : p.toFixed(3);

function kind(item) {
  if (item.error) return 'error';
  if (!item.found) return 'waiting';
  const bad = isBad(item.found);
  return bad === null ? 'class:' + label(item.found) : bad ? 'bad' : 'good';
}

// ---- images in

async function take(files) {
  const free = Math.max(0, state.model.most_files - state.items.length);
  for (const [name, file] of files.slice(0, free)) {
    // what turns the direction of writing could make one name look like another
    const item = {name: name.replace(/[\p{Cc}\p{Cf}]/gu, '?'), file, found: null, error: null};
    state.items.push(item);
    state.waiting.push(item);
    at('cards').append(card(item));
  }
  at('limits').classList.toggle('fault', files.length > free);
  at('limits').textContent = limits() + (files.length > free ?
    ` ${files.length - free} of ${files.length} were left out: clear the page and drop them again.` : '');
  at('results').hidden = !state.items.length;
  refresh();
  while (state.busy < AT_ONCE && state.waiting.length) next();
}

async function next() {
  const item = state.waiting.shift(), round = state.round;
  if (!item) return;
  state.busy++;
  try {
    await ask(item);
  } catch (error) {
    item.error = error instanceof TypeError ? 'the file cannot be read, or the server is gone' : String(error.message || error);
  }
  item.file = null;
  state.busy--;
  if (round === state.round) {
    item.element.replaceWith(card(item));
    refresh();
  }
  next();
}

async function ask(item) {
  if (item.file.size > state.model.most_bytes) {
    throw new Error(`larger than ${state.model.most_bytes / 2 ** 20} MiB`);
  }
  for (;;) {
    const answer = await fetch('/api/inspect?pictures=1&name=' + encodeURIComponent(item.name),
      {method: 'POST', body: item.file, headers: {'Content-Type': 'application/octet-stream'}});
    if (answer.status === 503) {
      await new Promise((done) => setTimeout(done, 500));
      continue;
    }
    const said = await answer.json();
    if (answer.ok) item.found = said; else item.error = said.error;
    return;
  }
}

// All files of what is dropped, also of folders in folders, which come in portions.
async function dropped(transfer) {
  // all at once, since what was dropped is gone after the first pause
  const items = [...transfer.items].filter((item) => item.kind === 'file').map((item) => [item.webkitGetAsEntry(), item.getAsFile()]);
  const found = [];
  async function walk(entry, folder) {
    if (found.length >= MOST_DROPPED) return;
    if (entry.isFile) {
      found.push([folder + entry.name, await new Promise((done) => entry.file(done, () => done(null)))]);
      return;
    }
    const reader = entry.createReader();
    for (;;) {
      const part = await new Promise((done) => reader.readEntries(done, () => done([])));
      if (!part.length) return;
      for (const inner of part) await walk(inner, folder + entry.name + '/');
    }
  }
  for (const [entry, file] of items) {
    if (entry) await walk(entry, ''); else if (file) found.push([file.name, file]);
  }
  return found.sort((a, b) => a[0] < b[0] ? -1 : a[0] > b[0] ? 1 : 0);
}

// ---- what is shown

// As wide as there is room, and no higher than so many of these units.
function stack(found, high, unit) {
  const shown = make('span', {class: 'stack'}, make('img', {src: found.picture, alt: ''}));
  shown.style.width = `min(100%, ${(high * found.size[0] / found.size[1]).toFixed(2)}${unit})`;
  if (found.heat) shown.append(make('img', {class: 'heat', src: found.heat, alt: ''}));
  const drawing = make('svg', {viewBox: `0 0 ${found.size[0]} ${found.size[1]}`, preserveAspectRatio: 'none'});
  for (const place of regions(found)) drawing.append(make('polygon', {points: place.polygon.map((p) => p.join(',')).join(' ')}));
  shown.append(drawing);
  return shown;
}

function card(item) {
  item.element = make('li');
  fill(item);
  return item.element;
}

function fill(item) {
  const what = kind(item);
  item.drawn = what;
  item.element.className = what === 'bad' || what === 'good' ? what : '';
  const said = make('span', {class: 'said'});
  const text = document.createElement('b');
  text.textContent = item.error ? 'cannot be inspected' : item.found ? `${label(item.found)} ${short(item.found.score)}` : 'waiting';
  const name = document.createElement('span');
  name.textContent = item.name;
  name.className = 'name';
  said.append(text, name);
  said.style.display = 'block';
  const open = make('button', {type: 'button', title: item.name});
  if (item.found) {
    open.append(stack(item.found, 12, 'rem'), said);
    open.onclick = () => show(item);
  } else {
    const none = make('span', {class: item.error ? 'none fault' : 'none'});
    none.textContent = item.error || '...';
    open.append(none, said);
    open.disabled = true;
    open.style.opacity = 1;
  }
  item.element.replaceChildren(open);
}

function refresh() {
  const counts = {}, filter = at('filter').value;
  for (const item of state.items) {
    const what = kind(item);
    counts[what] = (counts[what] || 0) + 1;
    if (item.drawn !== what) fill(item);
    item.element.hidden = filter !== 'all' && filter !== what;
  }
  const words = {bad: 'defective', good: 'good', error: 'could not be inspected', waiting: 'waiting'};
  const parts = Object.keys(counts).sort().map((what) => `${counts[what]} ${words[what] || what.slice(6)}`);
  at('summary').textContent = `${state.items.length} ${state.items.length === 1 ? 'image' : 'images'}: ${parts.join(', ')}`;
  const done = state.items.length - (counts.waiting || 0);
  at('progress').value = state.items.length ? done / state.items.length : 0;
  at('progress').hidden = done === state.items.length;
  const cards = ordered().map((item) => item.element);
  if (cards.some((card, i) => card !== at('cards').children[i])) at('cards').append(...cards); // else one keeps the focus
  strip();
}

function ordered() {
  const score = (item) => item.found ? item.found.score : -1;
  return at('order').value === 'score' ? [...state.items].sort((a, b) => score(b) - score(a)) : state.items;
}

const xOf = (p) => 1000 * Math.max(0, Math.min(1, (Math.log(p) - Math.log1p(-p) + EDGE) / (2 * EDGE)));

function ofSlider(value) {
  return value <= 0 ? 0 : value >= 1000 ? 1 : 1 / (1 + Math.exp(EDGE - 2 * EDGE * value / 1000));
}

function strip() {
  if (!state.model.has_good) return;
  const line = (p, kind, top) => make('line', {class: kind, x1: xOf(p), x2: xOf(p), y1: top, y2: 26, 'vector-effect': 'non-scaling-stroke'});
  const found = state.items.filter((item) => item.found).map((item) => line(item.found.score, isBad(item.found) ? 'bad' : 'good', 10));
  at('strip').replaceChildren(...found, line(Math.min(1, state.threshold), 'cut', 0));
}

function move(threshold, from) {
  const own = state.model.threshold; // which is above 1 where calling nothing defective is cheapest
  if (!(threshold >= 0 && threshold <= 1) && threshold !== own.value) return;
  state.threshold = threshold;
  if (from !== 'slider') at('slider').value = Math.round(xOf(Math.min(1, threshold)));
  if (from !== 'exact') at('exact').value = from === 'slider' ? Number(threshold.toPrecision(4)) : threshold;
  at('origin').textContent = `A score of ${exact(threshold)} or more is called defective.` +
    (threshold === own.value ? ` This is the threshold of the model, ${own.text}.` : ` That of the model is ${own.text}.`);
  refresh();
  if (state.shown) show(state.shown);
}

// ---- one image

function show(item) {
  const found = item.found;
  state.shown = item;
  at('name').textContent = item.name;
  at('verdict').textContent = `${label(found)}, score ${exact(found.score)}` +
    (state.model.has_good ? `, threshold ${exact(state.threshold)}` : '') + `; ${found.size[0]} x ${found.size[1]} pixels`;
  at('large').replaceChildren(stack(found, 55, 'vh'), ...(found.heat ? [] : [text('p', 'This model has no heat maps.')]));
  const classes = found.pred_scores.map((p, i) => [state.model.classes[i], exact(p)]);
  const where = regions(found).map((r) => [r.box.join(', '), `${Math.round(r.area)}`, short(r.peak)]);
  at('numbers').replaceChildren(table(['Class', 'Probability'], classes),
    ...(where.length ? [table(['Region: left, top, right, bottom', 'Area', 'Peak'], where)] : []));
  if (!at('dialog').open) at('dialog').showModal();
}

function text(name, words) {
  const element = document.createElement(name);
  element.textContent = words;
  return element;
}

function table(head, rows) {
  const body = make('tbody');
  for (const row of rows) body.append(make('tr', {}, ...row.map((cell) => text('td', cell))));
  return make('table', {}, make('thead', {}, make('tr', {}, ...head.map((cell) => text('th', cell)))), body);
}

function turn(step) {
  const there = ordered().filter((item) => item.found && !item.element.hidden);
  const place = there.indexOf(state.shown);
  if (there.length) show(there[(place + step + there.length) % there.length]);
}

async function picture() {
  const found = state.shown.found, name = state.shown.name;
  const loaded = async (uri) => {
    const image = new Image();
    image.src = uri;
    await image.decode();
    return image;
  };
  const base = await loaded(found.picture), canvas = document.createElement('canvas'), pen = canvas.getContext('2d');
  canvas.width = base.width;
  canvas.height = base.height + 24;
  pen.fillStyle = '#202020';
  pen.fillRect(0, 0, canvas.width, 24);
  pen.fillStyle = '#fff';
  pen.font = '14px sans-serif';
  pen.fillText(at('verdict').textContent, 6, 17);
  pen.translate(0, 24);
  pen.drawImage(base, 0, 0);
  if (found.heat) {
    pen.globalAlpha = Number(at('heat').value);
    pen.drawImage(await loaded(found.heat), 0, 0, base.width, base.height);
    pen.globalAlpha = 1;
  }
  pen.strokeStyle = '#fa78e6';
  for (const place of regions(found)) {
    pen.beginPath();
    for (const [x, y] of place.polygon) pen.lineTo(x * base.width / found.size[0], y * base.height / found.size[1]);
    pen.closePath();
    pen.stroke();
  }
  canvas.toBlob((blob) => save(blob, name.split('/').pop() + '.png'));
}

// ---- results out

function save(blob, name) {
  const link = make('a', {download: name, href: URL.createObjectURL(blob)});
  link.click();
  setTimeout(() => URL.revokeObjectURL(link.href), 10000);
}

// A name that a spreadsheet would take for a formula gets an apostrophe before it.
const cell = (value) => '"' + String({true: 'True', false: 'False'}[value] ?? value ?? '').replace(/^[=+\-@\t\r]/, "'$&").replaceAll('"', '""') + '"';

function rows() {
  const own = state.model.threshold;
  return state.items.map((item) => item.found ? {
    image: item.name, label: label(item.found), score: item.found.score,
    threshold: own ? state.threshold : null, calibrated: own ? own.calibrated && state.threshold === own.value : null,
    defective: isBad(item.found), pred_scores: item.found.pred_scores, size: item.found.size, regions: regions(item.found),
  } : {image: item.name, error: item.error || 'waiting'});
}

function csv() {
  const columns = ['image', 'label', 'score', 'threshold', 'calibrated', 'boxes', 'error'];
  const lines = rows().map((row) => {
    const boxes = (row.regions || []).map((region) => region.box.join(' ')).join('; ');
    return columns.map((name) => cell(name === 'boxes' ? boxes : row[name])).join(',');
  });
  return [columns.join(','), ...lines, ''].join('\r\n');
}

const limits = () => `JPEG, PNG, BMP, TIFF or WebP, up to ${state.model.most_bytes / 2 ** 20} MiB each, ` +
  `${state.model.most_files} at a time. They go to the server of this page only, and are not kept.`;

async function start() {
  const model = state.model = await (await fetch('/api/model')).json();
  at('about').textContent = `${model.title}: ${model.classes.join(', ')}` +
    (model.has_good ? '' : '. None of these is good, so there is no threshold: the most probable one counts.');
  at('limits').textContent = limits();
  at('cut').hidden = at('origin').hidden = !model.has_good;
  const kinds = model.has_good ? [['bad', 'defective'], ['good', 'good']] : model.classes.map((name) => ['class:' + name, name]);
  for (const [value, name] of [['all', 'all'], ...kinds, ['error', 'not inspected']]) {
    const option = text('option', name);
    option.value = value;
    at('filter').append(option);
  }
  at('curl').textContent = `curl --data-binary @part.png '${location.origin}/api/inspect?name=part.png'`;
  if (model.has_good) move(model.threshold.value);

  at('choose').onclick = () => at('files').click();
  at('choose-folder').onclick = () => at('folder').click();
  for (const input of [at('files'), at('folder')]) {
    input.onchange = () => {
      take([...input.files].map((file) => [file.webkitRelativePath || file.name, file]));
      input.value = '';
    };
  }
  document.ondragover = (event) => {
    event.preventDefault();
    at('drop').classList.add('over');
  };
  document.ondragleave = () => at('drop').classList.remove('over');
  document.ondrop = async (event) => {
    event.preventDefault();
    at('drop').classList.remove('over');
    take(await dropped(event.dataTransfer));
  };
  at('slider').oninput = () => move(ofSlider(Number(at('slider').value)), 'slider');
  at('exact').oninput = () => move(at('exact').value === '' ? NaN : Number(at('exact').value), 'exact');
  at('chosen').onclick = () => move(model.threshold.value);
  at('filter').onchange = refresh;
  at('order').onchange = refresh;
  at('heat').oninput = () => document.body.style.setProperty('--heat', at('heat').value);
  at('csv').onclick = () => save(new Blob([csv()], {type: 'text/csv'}), 'inspected.csv');
  at('json').onclick = () => save(new Blob([JSON.stringify(rows(), null, 1)], {type: 'application/json'}), 'inspected.json');
  at('clear').onclick = () => {
    state.round++;
    state.items = [];
    state.waiting = [];
    at('cards').replaceChildren();
    at('results').hidden = true;
    take([]);
  };
  at('close').onclick = () => at('dialog').close();
  at('dialog').onclose = () => { state.shown = null; };
  at('picture').onclick = picture;
  at('before').onclick = () => turn(-1);
  at('after').onclick = () => turn(1);
  document.onkeydown = (event) => {
    if (state.shown && event.key === 'ArrowLeft') turn(-1);
    if (state.shown && event.key === 'ArrowRight') turn(1);
  };
  window.page = {state, label, csv, move};
}

start();
