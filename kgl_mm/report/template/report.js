'use strict';
// Counts and costs are those of kgl_mm/evaluation/functional.py and thresholds.py, in the same operations and order, so
// that both give the same numbers to the last bit.

const NOTHING = 1 + Number.EPSILON; // above every probability
const EDGE = 10; // log-odds beyond which scores are drawn at the edge

function counts(stage, threshold) {
  let hits = 0, alarms = 0, defective = 0;
  for (let i = 0; i < stage.scores.length; i++) {
    const called = stage.scores[i] >= threshold;
    defective += stage.defect[i];
    if (called && stage.defect[i]) hits++;
    if (called && !stage.defect[i]) alarms++;
  }
  const good = stage.scores.length - defective;
  return {FP: alarms, FN: defective - hits, hits, good, defective};
}

function costOf(misses, alarms, good, defective, miss, alarm, share) {
  if (share === null) share = defective / (good + defective);
  return 1000 * (share * (misses / defective) * miss + (1 - share) * (alarms / good) * alarm);
}

function cost(stage, threshold, miss, alarm, share) {
  const found = counts(stage, threshold);
  return costOf(found.FN, found.FP, found.good, found.defective, miss, alarm, share);
}

function halfway(here, lower) {
  const middle = here / 2 + lower / 2;
  return middle > lower ? middle : here;
}

function cheapest(stage, miss, alarm, share) {
  const order = [...stage.scores.keys()].sort((a, b) => stage.scores[b] - stage.scores[a]);
  const {good, defective} = counts(stage, NOTHING);
  const top = stage.scores[order[0]];
  let best = top < 1 ? halfway(1, top) : NOTHING;
  let lowest = costOf(defective, 0, good, defective, miss, alarm, share);
  let hits = 0, alarms = 0;
  for (let i = 0; i < order.length; i++) {
    const here = stage.scores[order[i]];
    if (stage.defect[order[i]]) hits++; else alarms++;
    const lower = i + 1 < order.length ? stage.scores[order[i + 1]] : here;
    if (lower === here && i + 1 < order.length) continue; // equal scores move together
    const price = costOf(defective - hits, alarms, good, defective, miss, alarm, share);
    if (price < lowest) [best, lowest] = [halfway(here, lower), price];
  }
  return [best, lowest];
}

function start() {
  const data = JSON.parse(document.getElementById('data').textContent);
  const tool = document.getElementById('tool');
  if (!tool || !data.stages.length) return;
  const at = (id) => document.getElementById(id);
  const state = {stage: null, threshold: 0.5, share: null, low: -3, high: 3};
  const plot = {left: 44, right: 948, top: 12, bottom: 268, middle: 140, bins: 60};

  const logit = (p) => Math.max(-EDGE, Math.min(EDGE, Math.log(p) - Math.log1p(-p)));
  const xOf = (p) => plot.left + (logit(p) - state.low) / (state.high - state.low) * (plot.right - plot.left);
  const cut = () => Math.max(plot.left, Math.min(plot.right, xOf(Math.min(1, state.threshold))));
  const short = (p) => p > 1 ? 'above 1' : p > 0 && p < 0.001 || p < 1 && p > 0.999 ? p.toPrecision(6) : p.toFixed(3);
  const percent = (part, whole) => whole ? `${(100 * part / whole).toFixed(1)} %` : '-';

  function svg(name, attributes, text) {
    const element = document.createElementNS('http://www.w3.org/2000/svg', name);
    for (const key in attributes) element.setAttribute(key, attributes[key]);
    if (text !== undefined) element.textContent = text;
    return element;
  }

  function choose(stage) {
    state.stage = stage;
    const ends = stage.scores.map(logit);
    state.low = Math.min(-2.5, ends.reduce((a, b) => Math.min(a, b)) - 0.25);
    state.high = Math.max(2.5, ends.reduce((a, b) => Math.max(a, b)) + 0.25);
    at('costs').hidden = !stage.both;
    if (state.share === null) testShare();
    move(stage.threshold);
  }

  function testShare() {
    state.share = null;
    const {good, defective} = counts(state.stage, NOTHING);
    at('share').value = (100 * defective / (good + defective)).toPrecision(4);
  }

  // The slider's ends are no finite log-odds: there everything or nothing is called defective.
  function ofSlider(value) {
    if (value <= 0) return 0;
    if (value >= 1000) return NOTHING;
    const odds = state.low + (state.high - state.low) * value / 1000;
    return 1 / (1 + Math.exp(-odds));
  }

  function move(threshold, from) {
    state.threshold = threshold;
    if (from !== 'slider') {
      at('slider').value = threshold <= 0 ? 0 : threshold > 1 ? 1000 :
        Math.round(1000 * (logit(threshold) - state.low) / (state.high - state.low));
    }
    if (from !== 'exact') at('exact').value = Math.min(1, threshold);
    at('slider').setAttribute('aria-valuetext', short(threshold));
    draw();
  }

  function draw() {
    const stage = state.stage, found = counts(stage, state.threshold);
    at('fp').textContent = found.good ? `${found.FP} of ${found.good}` : '-';
    at('fn').textContent = found.defective ? `${found.FN} of ${found.defective}` : '-';
    at('recall').textContent = percent(found.hits, found.defective);
    at('precision').textContent = percent(found.hits, found.hits + found.FP);
    const recorded = state.threshold === stage.threshold ? ` This is the recorded one, ${stage.origin}.` :
      ` The recorded one is ${short(stage.threshold)}, ${stage.origin}.`;
    const called = state.threshold > 1 ? 'Nothing is called defective.' : state.threshold <= 0 ?
      'Everything is called defective.' : `A score of ${short(state.threshold)} or more is called defective.`;
    at('origin').textContent = called + recorded;
    histogram(stage);
    examples(stage);
    dots(stage, found);
    prices(stage);
  }

  function histogram(stage) {
    const picture = at('histogram'), width = Math.max(240, picture.clientWidth || 960);
    picture.setAttribute('viewBox', `0 0 ${width} 308`); // a unit is a pixel, so that text keeps its size
    plot.right = width - 12;
    plot.bins = width < 560 ? 30 : 60;
    const step = (plot.right - plot.left) / plot.bins, edge = cut();
    const bars = {good: [], bad: []};
    for (const kind in bars) bars[kind] = Array.from({length: plot.bins}, () => [0, 0]);
    for (let i = 0; i < stage.scores.length; i++) {
      const bin = Math.min(plot.bins - 1, Math.max(0, Math.floor((xOf(stage.scores[i]) - plot.left) / step)));
      const called = stage.scores[i] >= state.threshold;
      bars[stage.defect[i] ? 'bad' : 'good'][bin][called ? 1 : 0]++;
    }
    const parts = [];
    for (const kind in bars) {
      const up = kind === 'good', half = plot.middle - plot.top;
      const most = Math.max(1, ...bars[kind].map((pair) => pair[0] + pair[1]));
      const label = up ? plot.top + 10 : plot.bottom - 4;
      parts.push(svg('text', {class: 'tick', x: plot.left - 6, y: label, 'text-anchor': 'end'}, most));
      parts.push(svg('text', // where scores of this kind are rare
        {class: 'tick', x: up ? plot.right : plot.left + 4, y: label, 'text-anchor': up ? 'end' : 'start'},
        up ? 'good' : 'defective'));
      bars[kind].forEach((pair, bin) => {
        let reach = 0;
        for (const called of [0, 1]) {
          const height = half * pair[called] / most;
          if (!height) continue;
          const y = up ? plot.middle - reach - height : plot.middle + reach;
          const wrong = (called === 1) === up;
          parts.push(svg('rect', {
            class: `${kind} ${wrong ? 'wrong' : 'right'}`, x: plot.left + bin * step + 0.5, y, width: step - 1, height,
          }));
          reach += height;
        }
      });
    }
    parts.push(svg('line', {class: 'axis', x1: plot.left, x2: plot.right, y1: plot.middle, y2: plot.middle}));
    const marks = [0.0001, 0.001, 0.01, 0.1, 0.5, 0.9, 0.99, 0.999, 0.9999];
    let last = -Infinity;
    for (const p of marks) {
      const x = xOf(p);
      if (x < plot.left || x > plot.right - 10 || x - last < 46) continue;
      last = x;
      parts.push(svg('text', {class: 'tick', x, y: plot.bottom + 16, 'text-anchor': 'middle'}, p));
    }
    parts.push(svg('text', {class: 'tick', x: (plot.left + plot.right) / 2, y: plot.bottom + 35, 'text-anchor': 'middle'},
      'score, the probability of a defect'));
    parts.push(svg('line', {class: 'cut', x1: edge, x2: edge, y1: plot.top - 6, y2: plot.bottom + 4}));
    picture.replaceChildren(...parts);
  }

  function examples(stage) {
    const wrong = {alarms: [], misses: []};
    stage.scores.forEach((score, i) => {
      const called = score >= state.threshold;
      if (called && !stage.defect[i]) wrong.alarms.push(i);
      if (!called && stage.defect[i]) wrong.misses.push(i);
    });
    wrong.alarms.sort((a, b) => stage.scores[a] - stage.scores[b]);
    wrong.misses.sort((a, b) => stage.scores[b] - stage.scores[a]);
    for (const kind in wrong) {
      // the file has pictures of those that are wrong first, so there are some wherever anything is wrong
      const known = wrong[kind].filter((i) => stage.image[i] in data.thumbs).slice(0, 8);
      const shown = known.map((i) => tile(data.names[stage.image[i]], stage.scores[i], stage.image[i]));
      const rest = wrong[kind].length - shown.length;
      if (!shown.length) shown.push(word('None at this threshold.'));
      if (rest) shown.push(word(`and ${rest} more`));
      at(kind).replaceChildren(...shown);
    }
  }

  function word(text) {
    const item = document.createElement('li');
    item.className = 'note';
    item.textContent = text;
    return item;
  }

  function tile(name, score, image) {
    const item = document.createElement('li'), figure = document.createElement('figure');
    const caption = document.createElement('figcaption'), uri = data.thumbs[image];
    const shown = document.createElement(uri ? 'img' : 'span');
    if (uri) [shown.src, shown.alt] = [uri, name];
    else [shown.className, shown.textContent] = ['none', 'file not found'];
    caption.append(short(score), document.createElement('br'), name);
    figure.append(shown, caption);
    item.append(figure);
    return item;
  }

  function dots(stage, found) {
    const recall = found.defective ? found.hits / found.defective : null;
    const called = found.hits + found.FP, area = data.area;
    const places = {
      pr: stage.both && called ? [recall, found.hits / called] : null,
      roc: stage.both ? [found.FP / found.good, recall] : null,
    };
    for (const key in places) {
      const dot = document.querySelector(`svg[data-chart="${key}"] .here`);
      if (!dot) continue;
      dot.setAttribute('visibility', places[key] ? 'visible' : 'hidden');
      if (!places[key]) continue;
      dot.setAttribute('cx', area.left + places[key][0] * (area.right - area.left));
      dot.setAttribute('cy', area.bottom - places[key][1] * (area.bottom - area.top));
    }
  }

  function prices(stage) {
    if (!stage.both) return;
    const read = (id) => at(id).value.trim() === '' ? NaN : Number(at(id).value);
    const miss = read('price-miss'), alarm = read('price-alarm');
    const share = state.share === null ? null : read('share') / 100;
    const valid = miss >= 0 && alarm >= 0 && miss < Infinity && alarm < Infinity &&
      (share === null || share >= 0 && share <= 1);
    at('use-cheapest').disabled = !valid;
    at('cheapest').hidden = !valid;
    if (!valid) {
      at('cost').textContent = 'Give prices of 0 or more, and a share from 0 to 100 %.';
      return;
    }
    const money = (value) => value.toLocaleString('en', {minimumFractionDigits: 1, maximumFractionDigits: 1});
    const found = counts(stage, state.threshold);
    const real = share === null ? found.defective / (found.good + found.defective) : share;
    const missed = 1000 * real * found.FN / found.defective, rejected = 1000 * (1 - real) * found.FP / found.good;
    at('cost').textContent = `At this threshold 1,000 parts cost ${money(cost(stage, state.threshold, miss, alarm, share))}` +
      `: ${money(missed)} missed and ${money(rejected)} rejected for nothing.`;
    const [threshold, lowest] = cheapest(stage, miss, alarm, share);
    state.cheapest = threshold;
    at('cheapest').textContent = threshold > 1 || counts(stage, threshold).hits + counts(stage, threshold).FP === 0
      ? `Cheapest is to call nothing defective: ${money(lowest)} for 1,000 parts.`
      : `Cheapest is a threshold of ${short(threshold)}: ${money(lowest)} for 1,000 parts.`;
  }

  data.stages.forEach((stage, index) => at('stage').append(new Option(stage.name, index)));
  at('stage-label').hidden = data.stages.length < 2;
  at('stage').addEventListener('change', () => choose(data.stages[at('stage').value]));
  at('slider').addEventListener('input', () => move(ofSlider(Number(at('slider').value)), 'slider'));
  at('exact').addEventListener('input', () => {
    const value = Number(at('exact').value);
    if (at('exact').value !== '' && value >= 0 && value <= 1) move(value, 'exact');
  });
  at('recorded').addEventListener('click', () => move(state.stage.threshold));
  at('use-cheapest').addEventListener('click', () => move(state.cheapest));
  at('test-share').addEventListener('click', () => { testShare(); draw(); });
  at('share').addEventListener('input', () => { state.share = true; draw(); });
  for (const id of ['price-miss', 'price-alarm']) at(id).addEventListener('input', draw);
  const drag = (event) => {
    const box = at('histogram').getBoundingClientRect();
    const x = event.clientX - box.left;
    const value = Math.max(0, Math.min(1000, Math.round(1000 * (x - plot.left) / (plot.right - plot.left))));
    at('slider').value = value;
    move(ofSlider(value), 'slider');
  };
  at('histogram').addEventListener('pointerdown', (event) => {
    at('histogram').setPointerCapture(event.pointerId);
    drag(event);
  });
  at('histogram').addEventListener('pointermove', (event) => { if (event.buttons) drag(event); });
  window.addEventListener('resize', () => histogram(state.stage));
  at('stage').value = data.shown;
  tool.hidden = false;
  choose(data.stages[data.shown]);
  window.report = {data, state, counts, cost, cheapest};
}

start();
