
// The maps: a heat map of layers and heads by positions; beside it, for each head, the rows that it holds and the attention
// that they catch.
const lineHeight = Math.min(18, Math.max(2, Math.floor(300 / rows)));  // CSS pixels, as all lengths here
const layerGap = rows > 1 ? 1 : 0;
const rowTop = (row) => row * lineHeight + Math.floor(row / heads) * layerGap;
const mapHeight = rowTop(rows - 1) + lineHeight;
const profileHeight = 48, scaleHeight = 44;
const small = '11.5px ui-sans-serif, system-ui, "DejaVu Sans", sans-serif';
const view = {from: 0, to: width};
const cursor = {policy: null, position: -1, row: -1};
const maps = [];
const heldRows = (policy, row) => policy.heads.kept[row] + policy.heads.recall_slots[row];
const barScale = (() => {  // share of all tokens at the end of the budget bars: the same for all maps
  let most = 0;
  for (const policy of policies) {
    for (let row = 0; row < rows; ++row) most = Math.max(most, heldRows(policy, row) / policy.tokens);
  }
  return most <= 0.25 ? 0.25 : most <= 0.5 ? 0.5 : 1;
})();

// Puts the canvases on whole pixels, so that the browser mixes none, and says where they lie on the page. In the order
// in which they stand, because each may push the next.
const place = () => {
  const all = maps.flatMap((map) => map.heights);
  for (const [canvas, height] of all) canvas.style.height = `${height}px`;
  for (const [canvas] of all) {
    canvas.style.margin = '0';
    const box = canvas.getBoundingClientRect(), x = box.left + window.scrollX, y = box.top + window.scrollY;
    const left = Math.ceil(x - 0.01), top = Math.ceil(y - 0.01), w = Math.max(1, Math.floor(x + canvas.parentElement.clientWidth - left));
    Object.assign(canvas.style, {marginLeft: `${left - x}px`, marginTop: `${top - y}px`, width: `${w}px`});
    Object.assign(canvas.dataset, {left, top, w});
  }
};
// A context in CSS pixels, with a pixel of the canvas for each of the device.
const prepare = (canvas, height) => {
  const scale = window.devicePixelRatio || 1, w = Number(canvas.dataset.w);
  canvas.width = Math.max(1, Math.round(w * scale));
  canvas.height = Math.max(1, Math.round(height * scale));
  const context = canvas.getContext('2d');
  context.setTransform(scale, 0, 0, scale, 0, 0);
  context.font = small;
  return {context, w, scale};
};

const drawHeat = (map) => {
  const {policy, heat} = map, n = policy.tokens;
  const {context, w, scale} = prepare(heat, mapHeight);
  const pixels = heat.width, span = view.to - view.from;
  const image = context.createImageData(pixels, heat.height);
  const first = new Int32Array(pixels), last = new Int32Array(pixels);  // positions of each column of pixels
  for (let x = 0; x < pixels; ++x) {
    const a = view.from + x * span / pixels, b = view.from + (x + 1) * span / pixels;
    first[x] = b - a <= 1 ? Math.floor((a + b) / 2) : Math.floor(a);
    last[x] = b - a <= 1 ? first[x] : Math.min(n, Math.ceil(b)) - 1;
  }
  const line = new Uint8ClampedArray(4 * pixels);
  for (let row = 0; row < rows; ++row) {
    line.fill(0);
    for (let x = 0; x < pixels; ++x) {
      if (first[x] >= n) break;
      let r = 0, g = 0, b = 0;
      for (let i = first[x]; i <= last[x]; ++i) {
        const at = 3 * policy.codes[row * n + i];
        r += colours.ofCode[at];
        g += colours.ofCode[at + 1];
        b += colours.ofCode[at + 2];
      }
      const many = last[x] - first[x] + 1;
      line.set([r / many, g / many, b / many, 255], 4 * x);
    }
    const begin = Math.round(rowTop(row) * scale), end = Math.round((rowTop(row) + lineHeight) * scale);
    for (let y = begin; y < end; ++y) image.data.set(line, 4 * pixels * y);
  }
  context.putImageData(image, 0, 0);
  drawCursor(map, context, w);
};

const xOf = (position, w) => (position - view.from) * w / (view.to - view.from);
const drawRowCursor = (map, context, w) => {
  if (cursor.row < 0 || cursor.policy !== map.policy) return;
  context.fillStyle = css(colours.ink);
  context.fillRect(0, rowTop(cursor.row) - 1, w, 1);
  context.fillRect(0, rowTop(cursor.row) + lineHeight, w, 1);
};
const drawCursor = (map, context, w) => {
  drawRowCursor(map, context, w);
  if (cursor.position < view.from || cursor.position >= view.to) return;
  const a = xOf(cursor.position, w), b = Math.max(a + 1.5, xOf(cursor.position + 1, w));
  context.strokeStyle = css(colours.ink);
  context.lineWidth = 1;
  context.strokeRect(a - 0.5, 0.5, b - a + 1, mapHeight - 1);
};

const drawProfile = (map) => {
  const {policy} = map, n = policy.tokens, chosen = map.chosen;
  const {context, w} = prepare(map.profile, profileHeight);
  if (map.sharesOf !== chosen) {
    map.sharesOf = chosen;
    map.shares = [];
    for (let i = 0; i < n; ++i) map.shares.push(tally(policy, i, chosen).map((c) => c / chosen.length));
  }
  context.fillStyle = css(colours.line);
  context.fillRect(0, profileHeight - 1, w, 1);
  // Sharp edges: a column of whole pixels for each step.
  const span = view.to - view.from, step = Math.max(1, Math.ceil(span / w));
  for (let i = Math.floor(view.from / step) * step; i < Math.min(view.to, n); i += step) {
    let base = profileHeight - 1;
    const many = Math.min(step, n - i), x = Math.round(xOf(i, w)), end = Math.round(xOf(i + many, w));
    for (const [fate, name] of FATES) {
      if (fate === EVICTED) continue;
      let share = 0;
      for (let k = i; k < i + many; ++k) share += map.shares[k][fate] / many;
      const height = share * (profileHeight - 3);
      context.fillStyle = css(colours[name]);
      context.fillRect(x, base - height, Math.max(1, end - x), height);
      base -= height;
    }
  }
};

const tickStep = (span, most) => {  // 1, 2 or 5 times a power of ten, for at most so many ticks
  const least = Math.max(1, span / most), power = 10 ** Math.floor(Math.log10(least));
  return [1, 2, 5, 10].map((factor) => factor * power).find((step) => step >= least);
};

// Positions, and below them which part of the text they are.
const drawScale = (map) => {
  const {context, w} = prepare(map.scale, scaleHeight), n = map.policy.tokens;
  context.textBaseline = 'alphabetic';
  context.fillStyle = css(colours.soft);
  const step = tickStep(view.to - view.from, w / 70);
  for (let i = Math.ceil(view.from / step) * step; i < view.to; i += step) {
    const label = number.format(i), size = context.measureText(label).width, x = xOf(i + 0.5, w);
    context.fillRect(Math.round(x - 0.5), 0, 1, 4);
    context.fillText(label, Math.min(w - size, Math.max(0, x - size / 2)), 15);
  }
  const parts = [['text', 0, data.prompt_tokens], ['question', data.prompt_tokens, given], ['answer', given, n]]
      .map(([name, from, to]) => ({a: Math.max(0, xOf(from, w)), b: Math.min(w, xOf(to, w)), label: `${name} ${number.format(to - from)}`}))
      .filter(({a, b}) => b > a);
  let end = w;  // from the right, so that short parts at the end push the label before them aside
  for (const part of parts.reverse()) {
    part.size = context.measureText(part.label).width;
    part.x = Math.min(part.a, end - part.size);
    end = part.x - 12;
  }
  parts.forEach(({a, b, x, label}, index) => {
    const left = Math.round(a), right = index === 0 ? Math.round(b) : Math.round(b) - 2;
    context.fillRect(left, 23, Math.max(1, right - left), 2);
    if (x >= 0) context.fillText(label, x, 38);
  });
};

const drawAxis = (map) => {
  const {context, w} = prepare(map.axis, mapHeight);
  context.textAlign = 'right';
  context.textBaseline = 'middle';
  context.fillStyle = css(colours.soft);
  const each = heads * lineHeight + layerGap;
  let step = Math.max(1, Math.ceil(14 / each));
  if (step > 2) step = Math.ceil(step / 5) * 5;
  for (let layer = 0; layer < layers; layer += step) {
    const y = rowTop(layer * heads) + heads * lineHeight / 2;
    context.fillText(String(layer), w - 9, Math.min(mapHeight - 6, Math.max(6, y)));
    context.fillRect(w - 5, Math.round(y), 4, 1);
  }
};

const drawBars = (map, canvas, mean, values) => {  // values(row): [[colour name, share of the width]...]
  const {context, w} = prepare(canvas, mapHeight);
  for (let row = 0; row < rows; ++row) {
    const inset = lineHeight > 4 ? 1 : 0, y = rowTop(row) + inset, h = lineHeight - 2 * inset;
    context.fillStyle = css(colours.evicted);
    context.fillRect(0, y, w, h);
    let x = 0;
    for (const [name, share] of values(row)) {
      context.fillStyle = css(colours[name]);
      context.fillRect(x, y, Math.min(share * w, w - x), h);
      x += share * w;
    }
  }
  context.fillStyle = css(colours.ink);
  const x = Math.min(w - 1, Math.round(mean * w));
  for (let y = 0; y < mapHeight; y += 4) context.fillRect(x, y, 1, 2);
  drawRowCursor(map, context, w);
};

const drawSide = (map) => {
  const {policy, isLater} = map, of = policy.heads, n = policy.tokens;
  drawBars(map, map.budget, map.meanHeld / barScale,
           (row) => [['kept', of.kept[row] / n / barScale], ['recalled', of.recall_slots[row] / n / barScale]]);
  drawBars(map, map.attention, map.meanAttention,
           (row) => isLater ? [['kept', of.later_kept[row]], ['recalled', of.later_recalled[row]]] : [['kept', of.prompt_attention[row]]]);
};

const drawAll = () => {
  place();
  for (const map of maps) {
    drawProfile(map);
    drawHeat(map);
    drawScale(map);
    drawAxis(map);
    drawSide(map);
  }
  byId('range').textContent = view.from === 0 && view.to === width ? `all ${count(width, 'token')}` :
      `tokens ${number.format(view.from)} to ${number.format(view.to - 1)} of ${number.format(width)}`;
};
const zoom = (from, to) => {
  const span = Math.min(width, Math.max(8, Math.round(to - from)));
  view.from = Math.max(0, Math.min(width - span, Math.round(from)));
  view.to = view.from + span;
  drawAll();
};
const zoomBy = (factor) => {
  const middle = cursor.position >= view.from && cursor.position < view.to ? cursor.position + 0.5 : (view.from + view.to) / 2;
  zoom(middle - (middle - view.from) * factor, middle + (view.to - middle) * factor);
};

const showMaps = () => {
  policies.forEach((policy, index) => {
    const canvas = (name, attributes) => make('canvas', {class: name, ...attributes});
    const box = (child) => make('div', {}, child);
    const a = policy.attention, isLater = a.later_queries > 0;
    const map = {
      policy, isLater, chosen: selectedRows(),
      meanHeld: (policy.rows.kept + policy.rows.recall_slots) / policy.rows.all,
      meanAttention: isLater ? a.later_kept + a.later_recalled : a.prompt,
      heat: canvas('heat', {id: `heat-${index}`, tabindex: 0, role: 'img', 'aria-label':
          `${policy.label}: ${percent(policy.rows.kept / policy.rows.all)} of the rows kept. Arrow keys read token by token.`}),
      profile: canvas('profile'), scale: canvas('positions'), axis: canvas('axis'),
      budget: canvas('budget', {'data-scale': barScale}), attention: canvas('attention'),
    };
    const words = `keeps ${percent(policy.rows.kept / policy.rows.all)} of the rows and ${percent(a.prompt)} of the attention` +
        (isLater ? `; later ${percent(a.later_kept)}` : '') + (a.later_recalled > 0 ? ` + ${percent(a.later_recalled)} by recall` : '');
    const head = (text, key, mean) => make('div', {class: 'head'}, text, make('b', {'data-key': key, 'data-value': mean}, `mean ${percent(mean)}`));
    const scale = (low, high) => make('div', {class: 'scale'}, make('span', {}, low), make('span', {}, high));
    byId('maps').append(make('figure', {class: 'map', 'data-policy': policy.label},
        make('figcaption', {}, make('h3', {}, policy.label), make('span', {}, words)),
        make('div', {class: 'grid'},
             make('div', {class: 'head'}, 'layer'), box(map.profile), head('rows held now', 'held', map.meanHeld),
             head(isLater ? 'attention, later' : 'attention, at the end', 'mean_attention', map.meanAttention),
             make('div', {class: 'axis'}, map.axis), box(map.heat), box(map.budget), box(map.attention),
             make('div', {class: 'unit'}, 'token'), box(map.scale), scale('0', percent(barScale)), scale('0', '100 %'))));
    map.heights = [[map.profile, profileHeight], [map.axis, mapHeight], [map.heat, mapHeight], [map.budget, mapHeight],
                   [map.attention, mapHeight], [map.scale, scaleHeight]];
    maps.push(map);
    listen(map);
  });
};
