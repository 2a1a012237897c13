'use strict';
// A mask is one byte a pixel, so that what is saved has hard edges, whatever a browser does to lines.

const at = (id) => document.getElementById(id);
const UNDO = 40;
const state = {
  maps: [], here: null, width: 0, height: 0, mask: null, heat: null, past: [], dirty: false, edits: 0, erase: false,
  last: null, hidden: false, versions: {}, entries: {}, asked: 0, saving: null,
};

const radius = () => Math.max(0.5, Math.max(state.width, state.height) / 8 * (at('size').value / 100) ** 2);
const brief = (trust) => trust === null ? 'trust unknown' : `trust ${trust.toFixed(2)}`;

// ---- the list

function shown() {
  const filter = at('filter').value;
  const fits = {
    all: () => true, defective: (map) => map.defective, edited: (map) => map.edited,
    left: (map) => map.defective && !map.edited,
  }[filter];
  return state.maps.filter((map) => fits(map) || map === state.here);
}

function list() {
  const maps = shown(), edited = state.maps.filter((map) => map.edited).length;
  at('count').textContent = `${maps.length} of ${state.maps.length} maps; ${edited} edited by hand`;
  const items = maps.map(entry), kept = new Set(items), there = at('list').children; // what stays keeps the focus
  for (const item of [...there]) if (!kept.has(item)) item.remove();
  items.forEach((item, i) => { if (there[i] !== item) at('list').insertBefore(item, there[i] || null); });
}

function entry(map) {
  const item = state.entries[map.number] ||= made(map);
  const button = item.firstChild, image = button.firstChild, facts = button.lastChild.lastChild;
  const source = `/api/maps/${map.number}/thumbnail?v=${state.versions[map.number] || 0}`;
  if (image.getAttribute('src') !== source) image.src = source;
  facts.textContent = map.edited ? 'edited by hand' : `${map.defective ? '' : 'good, '}${brief(map.trust)}`;
  facts.className = map.edited ? 'edited' : '';
  button.setAttribute('aria-current', map === state.here);
  return item;
}

function made(map) {
  const item = document.createElement('li'), button = document.createElement('button');
  const image = document.createElement('img'), words = document.createElement('span');
  const name = document.createElement('b'), facts = document.createElement('span');
  image.loading = 'lazy';
  image.alt = '';
  name.append(...map.name.split(/(?<=[/_-])/).flatMap((part) => [part, document.createElement('wbr')]));
  words.append(name, facts);
  button.type = 'button';
  button.title = map.name;
  button.append(image, words);
  button.onclick = () => open(map);
  item.append(button);
  return item;
}

function turn(step) {
  const maps = shown(), place = maps.indexOf(state.here) + step;
  if (maps[place]) open(maps[place]);
}

// ---- one map

async function bitmap(number, what) {
  const answer = await fetch(`/api/maps/${number}/${what}`);
  if (!answer.ok) throw new Error((await answer.json()).error);
  return createImageBitmap(await answer.blob(), {colorSpaceConversion: 'none'});
}

function bytes(image) {
  const canvas = document.createElement('canvas');
  [canvas.width, canvas.height] = [image.width, image.height];
  const pen = canvas.getContext('2d', {willReadFrequently: true});
  pen.drawImage(image, 0, 0);
  const data = pen.getImageData(0, 0, image.width, image.height).data;
  return Uint8Array.from({length: image.width * image.height}, (_, i) => data[4 * i]);
}

const leaves = () => !state.dirty || confirm(`${state.here.name} is not saved. Leave it as it was?`);

// Edits up to that number may be lost without a question.
async function open(map, given = null) {
  if (given === null) await state.saving;
  if (given === null && !leaves()) return;
  const asked = ++state.asked, edits = given ?? state.edits;
  let parts;
  try {
    parts = await Promise.all(['image', 'heat', 'mask'].map((what) => bitmap(map.number, what)));
  } catch (error) {
    say(String(error.message || error), true);
    return;
  }
  if (asked !== state.asked) return; // another one was asked for since
  if (state.edits !== edits && !leaves()) return; // painted while it loaded
  const [image, heat, mask] = parts;
  state.here = map;
  [state.width, state.height] = [image.width, image.height];
  for (const id of ['base', 'over', 'top']) [at(id).width, at(id).height] = [image.width, image.height];
  at('base').getContext('2d').drawImage(image, 0, 0);
  state.heat = bytes(heat);
  state.mask = bytes(mask).map((value) => value > 127 ? 1 : 0);
  state.past = [];
  state.last = null;
  state.dirty = false;
  colour();
  draw();
  zoom();
  buttons();
  list();
  history.replaceState(null, '', `#${map.number}`);
  at('name').textContent = map.name;
  say(describe());
  document.querySelector('#list [aria-current=true]')?.scrollIntoView({block: 'nearest'});
}

function describe() {
  const map = state.here, marked = state.mask.reduce((sum, value) => sum + value, 0) / state.mask.length;
  const share = marked ? `${(100 * marked).toPrecision(2)} % of the image is marked` : 'nothing is marked';
  if (!map.defective) return `A good image: its target is empty, whatever is painted. ${brief(map.trust)}.`;
  const hint = marked ? '' : ': this image will not teach where its defect is';
  return `${map.edited ? 'Edited by hand' : `The map of the source, ${brief(map.trust)}`}; ${share}${hint}.`;
}

function say(words, fault = false) {
  at('said').textContent = words;
  at('said').classList.toggle('fault', fault);
}

function buttons() {
  at('undo').disabled = !state.past.length;
  at('save').disabled = !state.dirty;
  at('revert').disabled = !state.here?.revertible;
}

// ---- drawing: the map as in kgl_mm/visualization/overlay.py, the mask in the colour of true defects there

function colour() {
  const pen = at('over').getContext('2d'), picture = pen.createImageData(state.width, state.height);
  state.heat.forEach((level, i) => picture.data.set([255, 255 - level, 0, level], 4 * i));
  pen.putImageData(picture, 0, 0);
}

function draw(left = 0, top = 0, right = state.width, bottom = state.height) {
  const {width, height, mask} = state;
  [left, top] = [Math.max(0, left - 1), Math.max(0, top - 1)];
  [right, bottom] = [Math.min(width, right + 1), Math.min(height, bottom + 1)];
  if (right <= left || bottom <= top) return;
  const pen = at('top').getContext('2d'), picture = pen.createImageData(right - left, bottom - top);
  let place = 0;
  for (let y = top; y < bottom; y++) {
    for (let x = left; x < right; x++, place += 4) {
      const i = y * width + x;
      if (!mask[i]) continue;
      const inner = x > 0 && mask[i - 1] && x < width - 1 && mask[i + 1] && y > 0 && mask[i - width] && y < height - 1 && mask[i + width];
      picture.data.set([0, 220, 230, inner ? 70 : 255], place);
    }
  }
  pen.putImageData(picture, left, top);
}

function zoom() {
  const view = at('view'), {width, height} = state;
  const room = Math.max(240, window.innerHeight - 220);
  const scale = Math.min((view.clientWidth - 2) / width, room / height, 8) * Number(at('zoom').value);
  Object.assign(at('canvases').style, {width: `${Math.round(width * scale)}px`, height: `${Math.round(height * scale)}px`});
  for (const id of ['base', 'over', 'top']) at(id).style.imageRendering = scale > 1.5 ? 'pixelated' : 'auto';
  cursor();
}

// The pointer is a circle as large as the brush.
function cursor() {
  const scale = at('top').getBoundingClientRect().width / state.width || 1;
  const r = Math.min(60, Math.max(3, radius() * scale)), side = Math.ceil(2 * r + 4), c = side / 2;
  const ring = (colour, w) => `<circle cx="${c}" cy="${c}" r="${r}" fill="none" stroke="${colour}" stroke-width="${w}"/>`;
  const svg = `<svg xmlns="http://www.w3.org/2000/svg" width="${side}" height="${side}">${ring('black', 3)}${ring(state.erase ? 'orange' : 'white', 1.5)}</svg>`;
  at('top').style.cursor = `url("data:image/svg+xml,${encodeURIComponent(svg)}") ${Math.round(c)} ${Math.round(c)}, crosshair`;
}

// ---- painting

function remember() {
  state.past.push(state.mask.slice());
  if (state.past.length > UNDO) state.past.shift();
}

function changed() {
  state.dirty = true;
  state.edits++;
  buttons();
  say(`${describe()} Not saved.`);
}

function stroke(from, to, value) {
  const {width, height, mask} = state, r = radius();
  state.edits++;
  const [left, right] = [Math.min(from[0], to[0]) - r, Math.max(from[0], to[0]) + r];
  const [top, bottom] = [Math.min(from[1], to[1]) - r, Math.max(from[1], to[1]) + r];
  const [x0, x1] = [Math.max(0, Math.floor(left)), Math.min(width, Math.ceil(right))];
  const [y0, y1] = [Math.max(0, Math.floor(top)), Math.min(height, Math.ceil(bottom))];
  const [dx, dy] = [to[0] - from[0], to[1] - from[1]], length = dx * dx + dy * dy;
  for (let y = y0; y < y1; y++) {
    for (let x = x0; x < x1; x++) {
      const [px, py] = [x + 0.5 - from[0], y + 0.5 - from[1]];
      const t = length ? Math.max(0, Math.min(1, (px * dx + py * dy) / length)) : 0;
      if ((px - t * dx) ** 2 + (py - t * dy) ** 2 <= Math.max(r * r, 0.5)) mask[y * width + x] = value;
    }
  }
  draw(x0, y0, x1, y1);
}

function place(event) {
  const box = at('top').getBoundingClientRect();
  return [(event.clientX - box.left) / box.width * state.width, (event.clientY - box.top) / box.height * state.height];
}

const value = (event) => state.erase || event.buttons & 2 ? 0 : 1;

function down(event) {
  if (!state.here || event.button === 1) return;
  event.preventDefault();
  at('top').setPointerCapture(event.pointerId);
  remember();
  state.last = place(event);
  stroke(state.last, state.last, value(event));
}

function moved(event) {
  if (!state.last) return;
  for (const part of event.getCoalescedEvents?.().length ? event.getCoalescedEvents() : [event]) {
    const to = place(part);
    stroke(state.last, to, value(event));
    state.last = to;
  }
}

function up() {
  if (!state.last) return;
  state.last = null;
  changed();
}

function take() {
  if (!state.here) return;
  const cut = at('share').value / 100 * 255;
  if (!state.taking) remember();
  state.taking = true; // one step back for one move of the slider
  state.mask = state.heat.map((level) => level > 0 && level >= cut ? 1 : 0);
  draw();
  changed();
}

function clear() {
  if (!state.here) return;
  remember();
  state.mask.fill(0);
  draw();
  changed();
}

function undo() {
  if (!state.past.length) return;
  state.mask = state.past.pop();
  draw();
  changed();
}

function mode(erase) {
  state.erase = erase;
  for (const [id, on] of [['add', !erase], ['erase', erase]]) {
    at(id).classList.toggle('on', on);
    at(id).setAttribute('aria-pressed', on);
  }
  cursor();
}

// ---- saving

async function post(path, body) {
  const answer = await fetch(path, {method: 'POST', body, headers: body ? {'Content-Type': 'image/png'} : {}});
  const said = await answer.json();
  if (!answer.ok) throw new Error(said.error);
  Object.assign(state.maps[said.number], said);
  state.versions[said.number] = Date.now();
  return state.maps[said.number];
}

function content() {
  const canvas = document.createElement('canvas');
  [canvas.width, canvas.height] = [state.width, state.height];
  const pen = canvas.getContext('2d'), picture = pen.createImageData(state.width, state.height);
  state.mask.forEach((inside, i) => picture.data.set([255 * inside, 255 * inside, 255 * inside, 255], 4 * i));
  pen.putImageData(picture, 0, 0);
  return new Promise((done) => canvas.toBlob(done, 'image/png'));
}

function save() {
  if (state.dirty) state.saving = send();
}

async function send() {
  const map = state.here, before = state.edits;
  at('save').disabled = true;
  try {
    await post(`/api/maps/${map.number}`, await content());
    if (state.here === map) {
      state.dirty = state.edits !== before; // strokes while it was on its way
      say(`Saved. ${describe()}`);
    }
  } catch (error) {
    say(`Not saved: ${error instanceof TypeError ? 'the server is gone' : error.message}`, true);
  }
  buttons();
  list();
}

async function revert() {
  const map = state.here, edits = state.edits;
  try {
    const found = await post(`/api/maps/${map.number}/revert`);
    if (state.here === map) await open(found, edits);
    else list();
  } catch (error) {
    say(String(error.message || error), true);
  }
}

async function start() {
  const found = await (await fetch('/api/maps')).json();
  state.maps = found.maps;
  at('about').textContent = `${found.title}: ${found.maps.length} maps.`;
  at('command').textContent = found.command;
  if (!state.maps.some((map) => map.defective)) at('filter').value = 'all';
  at('filter').onchange = list;
  at('add').onclick = () => mode(false);
  at('erase').onclick = () => mode(true);
  at('size').value = 40;
  at('size').oninput = cursor;
  at('heat').oninput = () => { at('over').style.opacity = at('heat').value; };
  at('heat').oninput();
  at('share').oninput = take;
  at('share').onchange = () => { state.taking = false; };
  at('zoom').onchange = zoom;
  at('undo').onclick = undo;
  at('clear').onclick = clear;
  at('revert').onclick = revert;
  at('save').onclick = save;
  const top = at('top');
  top.onpointerdown = down;
  top.onpointermove = moved;
  top.onpointerup = top.onpointercancel = up;
  top.oncontextmenu = (event) => event.preventDefault();
  window.onresize = () => state.here && zoom();
  window.onbeforeunload = (event) => { if (state.dirty) event.preventDefault(); };
  const size = (step) => {
    at('size').value = Number(at('size').value) + step;
    cursor();
  };
  const keys = {
    a: () => mode(false), e: () => mode(true), z: undo, s: save, n: () => turn(1), p: () => turn(-1),
    '[': () => size(-5), ']': () => size(5),
    h: () => {
      state.hidden = !state.hidden;
      at('top').style.opacity = state.hidden ? 0 : 1;
      at('over').style.visibility = state.hidden ? 'hidden' : 'visible';
    },
  };
  document.onkeydown = (event) => {
    if (event.target.matches('select, input:not([type=range])') || event.altKey || (event.ctrlKey || event.metaKey) && !'zs'.includes(event.key)) return;
    const act = keys[event.key.toLowerCase()];
    if (!act) return;
    event.preventDefault();
    act();
  };
  mode(false);
  list();
  const wanted = state.maps[Number(location.hash.slice(1) || NaN)];
  if (state.maps.length) open(wanted || shown()[0] || state.maps[0]);
  window.page = {state, open, radius};
}

start();
