
'use strict';
// Draws the data element of this page (docs/inspect.md). Texts of the prompt only ever become text nodes.
(() => {
  const data = JSON.parse(document.getElementById('data').textContent);
  const policies = data.policies, layers = data.model.layers, heads = data.model.kv_heads, rows = layers * heads;
  const given = data.prompt_tokens + data.question_tokens;
  const width = Math.max(...policies.map((policy) => policy.tokens));
  const EVICTED = 0, MERGED = 1, RECALLED = 2, KEPT = 3;
  const FATES = [[KEPT, 'kept'], [RECALLED, 'recalled'], [MERGED, 'merged'], [EVICTED, 'evicted']];
  const FIRST_STEPS = 3;  // codes above KEPT: recalled in code - FIRST_STEPS steps

  // --- Numbers and elements -----------------------------------------------------------------------------------------

  const byId = (id) => document.getElementById(id);
  const number = new Intl.NumberFormat('en', {maximumFractionDigits: 0});
  const count = (n, one, many) => `${number.format(n)} ${n === 1 ? one : many || one + 's'}`;
  const percent = (share) => `${(100 * share).toFixed(share > 0 && share < 0.0995 ? 1 : share > 0.995 && share < 1 ? 1 : 0)} %`;
  const bytes = (n) => {
    const units = ['B', 'KiB', 'MiB', 'GiB', 'TiB'];
    let unit = 0;
    for (; n >= 1024 && unit < 4; ++unit) n /= 1024;
    return `${unit === 0 ? n : n.toFixed(n < 10 ? 1 : 0)} ${units[unit]}`;
  };
  const make = (name, attributes, ...children) => {
    const element = document.createElement(name);
    for (const [key, value] of Object.entries(attributes || {})) element.setAttribute(key, value);
    element.append(...children);
    return element;
  };
  const unpack = (base64) => Uint8Array.from(atob(base64), (c) => c.charCodeAt(0));

  // What would not be seen, or would change how its neighbours are shown, is written out.
  const isHidden = (code) => code < 32 || (code >= 0x7f && code < 0xa0) || code === 0xad || (code >= 0x200b && code <= 0x200f) ||
      (code >= 0x2028 && code <= 0x202e) || (code >= 0x2060 && code <= 0x206f) || code === 0xfeff || (code >= 0xfff9 && code <= 0xfffb);
  const visible = (piece) => {  // [text, is a mark][]
    const parts = [];
    for (const c of piece) {
      const code = c.codePointAt(0);
      if (c === ' ') parts.push(['\u00b7', true]);
      else if (c === '\n') parts.push(['\u21b5', true], ['\n', false]);
      else if (c === '\t') parts.push(['\u21e5\t', true]);
      else if (isHidden(code)) parts.push([`U+${code.toString(16).toUpperCase().padStart(4, '0')}`, true]);
      else if (parts.length && !parts[parts.length - 1][1]) parts[parts.length - 1][0] += c;
      else parts.push([c, false]);
    }
    return parts;
  };
  const quoted = (piece) => visible(piece).map(([text]) => text).join('').trimEnd();

  // --- The data, unpacked -------------------------------------------------------------------------------------------

  // codes[row * tokens + position]: the fate, or FIRST_STEPS + the steps in which a recalled row was in use.
  for (const policy of policies) {
    const n = policy.tokens, line = Math.ceil(n / 4), packed = unpack(policy.fates);
    const steps = policy.recall_steps ? unpack(policy.recall_steps) : null;
    policy.codes = new Uint8Array(rows * n);
    policy.mostSteps = 1;
    for (let row = 0; row < rows; ++row) {
      for (let i = 0; i < n; ++i) {
        let code = packed[row * line + (i >> 2)] >> (2 * (i & 3)) & 3;
        if (code === RECALLED) {
          const used = Math.min(255 - FIRST_STEPS, Math.max(1, steps[row * n + i]));
          policy.mostSteps = Math.max(policy.mostSteps, used);
          code = FIRST_STEPS + used;
        }
        policy.codes[row * n + i] = code;
      }
    }
    policy.fate = (row, i) => Math.min(policy.codes[row * n + i], FIRST_STEPS + 1) > FIRST_STEPS ? RECALLED : policy.codes[row * n + i];
    policy.steps = (row, i) => Math.max(0, policy.codes[row * n + i] - FIRST_STEPS);
    policy.piece = (i) => i < given ? data.pieces[i] : policy.generated[i - given];
  }
  const mostSteps = Math.max(...policies.map((policy) => policy.mostSteps));
  const part = (i) => i < data.prompt_tokens ? 'text' : i < given ? 'question' : 'answer';
  const selectedRows = () => {
    const layer = Number(byId('layer').value), head = Number(byId('head').value), chosen = [];
    for (let row = 0; row < rows; ++row) {
      if ((layer < 0 || Math.floor(row / heads) === layer) && (head < 0 || row % heads === head)) chosen.push(row);
    }
    return chosen;
  };
  const tally = (policy, i, chosen) => {  // rows by fate
    const counts = [0, 0, 0, 0];
    for (const row of chosen) ++counts[policy.fate(row, i)];
    return counts;
  };

  // --- Colours ------------------------------------------------------------------------------------------------------

  let colours = {};
  const rgb = (hex) => [1, 3, 5].map((at) => parseInt(hex.slice(at, at + 2), 16));
  const mix = (a, b, share) => a.map((value, c) => Math.round(value + (b[c] - value) * share));
  const css = (c) => `rgb(${c[0]}, ${c[1]}, ${c[2]})`;
  const luminance = (c) => {
    const [r, g, b] = c.map((v) => (v /= 255) <= 0.04045 ? v / 12.92 : ((v + 0.055) / 1.055) ** 2.4);
    return 0.2126 * r + 0.7152 * g + 0.0722 * b;
  };
  const readColours = () => {
    const style = getComputedStyle(document.documentElement);
    for (const name of ['panel', 'ink', 'soft', 'line', 'kept', 'recalled', 'recalled-once', 'merged', 'evicted']) {
      colours[name] = rgb(style.getPropertyValue('--' + name).trim());
    }
    colours.ofCode = new Uint8ClampedArray(3 * 256);
    for (let code = 0; code < 256; ++code) {
      const steps = code - FIRST_STEPS;
      const strength = mostSteps > 1 ? Math.log(Math.max(1, steps)) / Math.log(mostSteps) : 1;
      const colour = code === EVICTED ? colours.evicted : code === MERGED ? colours.merged : code === KEPT ? colours.kept :
          mix(colours['recalled-once'], colours.recalled, Math.min(1, strength));
      colours.ofCode.set(colour, 3 * code);
    }
  };

  // --- Words and table ----------------------------------------------------------------------------------------------

  const showIntroduction = () => {
    const asked = data.question_tokens > 0;
    byId('lead').textContent = `${data.model.name} read ${count(data.prompt_tokens, 'token')}. In each of its ${count(layers, 'layer')} ` +
        `with ${count(heads, 'key-value head')}, ${policies.length === 1 ? 'a policy' : 'each policy'} then chose which tokens stay in device memory` +
        (asked ? ', before the question was known.' : '.');
    byId('notes').textContent =
        `Attention kept, end of the text: of the attention that the last ${Math.min(data.queries, data.prompt_tokens)} tokens of the text pay to the ` +
        'full cache, the share on what the policy left of it. Later steps: the same for the tokens of ' +
        (asked ? 'question and answer' : 'the answer') + ', on what was on the device when they asked, kept and recalled. Means over layers and heads. ' +
        'A token that is kept at the end counts as kept, whatever happened to it before. Bytes are those of whole pages at the end.';
  };

  const meter = (parts) => make('div', {class: 'meter'}, ...parts.map(([name, share]) => {
    const bar = make('i', {class: name});
    bar.style.width = `${100 * share}%`;
    return bar;
  }));

  const showTable = () => {
    const later = policies.some((policy) => policy.attention.later_queries > 0);
    const columns = ['Policy', 'Budget asked', 'Kept', 'Recalled', 'Merged', 'Evicted', 'On the device', 'Attention kept,\nend of the text'];
    if (later) columns.push('Attention kept,\nlater steps');
    const header = make('tr');
    for (const name of columns) {
      const cell = make('th', {scope: 'col'}, name);
      cell.style.whiteSpace = 'pre-line';
      header.append(cell);
    }
    const body = make('tbody');
    for (const policy of policies) {
      const line = make('tr', {'data-policy': policy.label});
      const add = (key, value, main, small, bar) => {
        const cell = make('td', {'data-key': key, 'data-value': value}, main);
        if (small) cell.append(make('small', {}, small));
        if (bar) cell.append(bar);
        line.append(cell);
      };
      line.append(make('th', {scope: 'row'}, policy.label));
      add('budget', policy.budget, policy.budget, policy.recall === 'off' ? '' : `recall ${policy.recall}`);
      for (const name of ['kept', 'recalled', 'merged', 'evicted']) {
        const n = policy.rows[name];
        add(name, n, percent(n / policy.rows.all), n > 0 ? count(n, 'row') : '');
      }
      add('device', policy.bytes.device, bytes(policy.bytes.device), `of ${bytes(policy.bytes.full)}`);
      const a = policy.attention, both = a.later_kept + a.later_recalled;
      add('prompt_attention', a.prompt, percent(a.prompt), '', meter([['kept', a.prompt]]));
      if (later) {
        add('later_attention', both, a.later_queries > 0 ? percent(both) : '-',
            a.later_recalled > 0 ? `${percent(a.later_kept)} kept + ${percent(a.later_recalled)} recalled` : '',
            meter([['kept', a.later_kept], ['recalled', a.later_recalled]]));
      }
      body.append(line);
    }
    byId('summary').append(make('thead', {}, header), body);
  };

  const showAnswers = () => {
    if (policies.every((policy) => policy.answer === '')) {
      byId('answers-section').remove();
      return;
    }
    if (data.question_tokens > 0) {
      byId('asked').append('The question came after the policy had decided: ', make('q', {}, data.question));
    } else {
      byId('asked').textContent = 'What followed the text.';
    }
    for (const policy of policies) {
      byId('answers').append(make('div', {class: 'card'}, make('h3', {}, policy.label), make('p', {class: 'answer'}, policy.answer)));
    }
  };

  // --- Maps ---------------------------------------------------------------------------------------------------------

  const lineHeight = Math.min(18, Math.max(2, Math.floor(300 / rows)));  // CSS pixels
  const layerGap = rows > 1 ? 1 : 0;
  const top = (row) => row * lineHeight + Math.floor(row / heads) * layerGap;
  const mapHeight = top(rows - 1) + lineHeight;
  const profileHeight = 48, partsHeight = 20;
  const view = {from: 0, to: width};
  const cursor = {position: -1, row: -1};
  const maps = [];
  const fullScale = () => {  // of the budget bars: the same for all maps
    let most = 0;
    for (const policy of policies) {
      for (let row = 0; row < rows; ++row) most = Math.max(most, (policy.heads.kept[row] + policy.heads.recall_slots[row]) / policy.tokens);
    }
    return most <= 0.25 ? 0.25 : most <= 0.5 ? 0.5 : 1;
  };
  const barScale = fullScale();

  // Sizes the canvas in device pixels; coordinates are CSS pixels.
  const prepare = (canvas, height) => {
    const scale = window.devicePixelRatio || 1, w = canvas.parentElement.clientWidth || 1;
    canvas.style.height = `${height}px`;
    canvas.width = Math.max(1, Math.round(w * scale));
    canvas.height = Math.max(1, Math.round(height * scale));
    const context = canvas.getContext('2d');
    context.setTransform(scale, 0, 0, scale, 0, 0);
    context.clearRect(0, 0, w, height);
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
      const begin = Math.round(top(row) * scale), end = Math.round((top(row) + lineHeight) * scale);
      for (let y = begin; y < end; ++y) image.data.set(line, 4 * pixels * y);
    }
    context.putImageData(image, 0, 0);
    const box = heat.getBoundingClientRect();
    Object.assign(heat.dataset, {left: box.left + window.scrollX, top: box.top + window.scrollY, width: w, from: view.from, to: view.to,
                                 line: lineHeight, gap: layerGap, colours: JSON.stringify([...colours.ofCode])});
    if (map.policy !== policies[0]) delete heat.dataset.colours;  // once is enough
    drawCursor(map, context, w);
  };

  const xOf = (position, w) => (position - view.from) * w / (view.to - view.from);
  const drawCursor = (map, context, w) => {
    if (cursor.position < 0 || cursor.position < view.from || cursor.position >= view.to) return;
    const a = xOf(cursor.position, w), b = Math.max(a + 1.5, xOf(cursor.position + 1, w));
    context.strokeStyle = css(colours.ink);
    context.lineWidth = 1;
    context.strokeRect(a - 0.5, 0.5, b - a + 1, mapHeight - 1);
    if (cursor.row >= 0 && cursor.policy === map.policy) {
      context.fillStyle = css(colours.ink);
      context.fillRect(0, top(cursor.row) - 1, w, 1);
      context.fillRect(0, top(cursor.row) + lineHeight, w, 1);
    }
  };

  const drawProfile = (map) => {
    const {policy} = map, n = policy.tokens, chosen = map.chosen;
    const {context, w} = prepare(map.profile, profileHeight);
    if (!map.shares || map.sharesOf !== chosen) {
      map.sharesOf = chosen;
      map.shares = [];
      for (let i = 0; i < n; ++i) map.shares.push(tally(policy, i, chosen).map((c) => c / chosen.length));
    }
    context.fillStyle = css(colours.line);
    context.fillRect(0, profileHeight - 1, w, 1);
    const span = view.to - view.from, step = Math.max(1, Math.ceil(span / w));
    for (let i = Math.floor(view.from / step) * step; i < Math.min(view.to, n); i += step) {
      let base = profileHeight - 1;
      const many = Math.min(step, n - i);
      for (const [fate, name] of [[KEPT, 'kept'], [RECALLED, 'recalled'], [MERGED, 'merged']]) {
        let share = 0;
        for (let k = i; k < i + many; ++k) share += map.shares[k][fate] / many;
        const height = share * (profileHeight - 3), x = xOf(i, w);
        context.fillStyle = css(colours[name]);
        context.fillRect(x, base - height, Math.max(0.75, xOf(i + many, w) - x), height);
        base -= height;
      }
    }
  };

  const drawParts = (map) => {
    const {context, w} = prepare(map.parts, partsHeight);
    const n = map.policy.tokens;
    context.font = '11.5px ui-sans-serif, system-ui, "DejaVu Sans", sans-serif';
    context.textBaseline = 'alphabetic';
    const parts = [['text', 0, data.prompt_tokens], ['question', data.prompt_tokens, given], ['answer', given, n]].filter(([, a, b]) => b > a);
    let free = -1;
    for (const [name, from, to] of parts) {
      const a = Math.max(0, xOf(from, w)), b = Math.min(w, xOf(to, w));
      if (b <= a) continue;
      context.fillStyle = css(colours.soft);
      context.fillRect(a, 3, Math.max(1, b - a - 2), 2);
      const label = b - a > 120 ? `${name}, ${count(to - from, 'token')}` : name;
      const size = context.measureText(label).width, x = Math.min(a, w - size);
      if (x > free) {
        context.fillText(label, x, 17);
        free = x + size + 8;
      }
    }
  };

  const drawAxis = (map) => {
    const {context, w} = prepare(map.axis, mapHeight);
    context.font = '11.5px ui-sans-serif, system-ui, "DejaVu Sans", sans-serif';
    context.textAlign = 'right';
    context.textBaseline = 'middle';
    context.fillStyle = css(colours.soft);
    const each = heads * lineHeight + layerGap;
    let step = Math.max(1, Math.ceil(14 / each));
    if (step > 2) step = Math.ceil(step / 5) * 5;
    for (let layer = 0; layer < layers; layer += step) {
      const y = top(layer * heads) + heads * lineHeight / 2;
      context.fillText(String(layer), w - 9, Math.min(mapHeight - 6, Math.max(6, y)));
      context.fillRect(w - 5, Math.round(y), 4, 1);
    }
  };

  const drawBars = (map, canvas, values) => {  // values(row): [[colour name, share of the width]...]
    const {context, w} = prepare(canvas, mapHeight);
    for (let row = 0; row < rows; ++row) {
      const inset = lineHeight > 4 ? 1 : 0, y = top(row) + inset, h = lineHeight - 2 * inset;
      context.fillStyle = css(colours.evicted);
      context.fillRect(0, y, w, h);
      let x = 0;
      for (const [name, share] of values(row)) {
        context.fillStyle = css(colours[name]);
        context.fillRect(x, y, Math.min(share, 1) * w, h);
        x += share * w;
      }
    }
    if (cursor.row >= 0 && cursor.policy === map.policy) {
      context.fillStyle = css(colours.ink);
      context.fillRect(0, top(cursor.row) - 1, w, 1);
      context.fillRect(0, top(cursor.row) + lineHeight, w, 1);
    }
  };

  const drawSide = (map) => {
    const of = map.policy.heads, n = map.policy.tokens, later = map.policy.attention.later_queries > 0;
    drawBars(map, map.budget, (row) => [['kept', of.kept[row] / n / barScale], ['recalled', of.recall_slots[row] / n / barScale]]);
    drawBars(map, map.attention, (row) => later ? [['kept', of.later_kept[row]], ['recalled', of.later_recalled[row]]] : [['kept', of.prompt_attention[row]]]);
  };

  const draw = (map) => {
    drawProfile(map);
    drawHeat(map);
    drawParts(map);
    drawAxis(map);
    drawSide(map);
  };
  const drawAll = () => {
    maps.forEach(draw);
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

  // --- Pointing at tokens -------------------------------------------------------------------------------------------

  const tip = byId('tip');
  const showTip = (policy, position, row, x, y) => {
    const chosen = row >= 0 ? [row] : selectedRows(), counts = tally(policy, position, [...Array(rows).keys()]);
    tip.replaceChildren(make('b', {}, `\u201c${quoted(policy.piece(position))}\u201d`),
                        make('div', {class: 'where'}, `token ${number.format(position)} of the ${number.format(policy.tokens)}, ${part(position)}; ${policy.label}`));
    if (row >= 0) {
      const fate = policy.fate(row, position), name = FATES.find(([f]) => f === fate)[1];
      tip.append(make('div', {class: 'line'}, make('span', {class: `swatch ${name}`}),
                      `layer ${Math.floor(row / heads)}, head ${row % heads}: ${name}` + (fate === RECALLED ? `, in use in ${count(policy.steps(row, position), 'step')}` : '')));
      const of = policy.heads;
      tip.append(make('div', {class: 'where'}, `this head holds ${number.format(of.kept[row] + of.recall_slots[row])} rows` +
          (policy.attention.later_queries > 0 ? `, ${percent(of.later_kept[row] + of.later_recalled[row])} of the attention` : '')));
    }
    for (const [fate, name] of FATES) {
      if (counts[fate] > 0 && (row < 0 || chosen.length === 1)) {
        tip.append(make('div', {class: 'line'}, make('span', {class: `swatch ${name}`}), `${name} in ${counts[fate]} of ${count(rows, 'head')}`));
      }
    }
    tip.hidden = false;
    const box = tip.getBoundingClientRect(), margin = 14;
    const left = x + margin + box.width > window.innerWidth ? Math.max(4, x - margin - box.width) : x + margin;
    const above = y + margin + box.height > window.innerHeight ? Math.max(4, y - margin - box.height) : y + margin;
    tip.style.left = `${left + window.scrollX}px`;
    tip.style.top = `${above + window.scrollY}px`;
  };
  const mark = (position) => {
    for (const old of document.querySelectorAll('.tokens .at')) old.classList.remove('at');
    if (position < 0) return;
    for (const policy of policies) policy.spans[position]?.classList.add('at');
  };
  const point = (policy, position, row, x, y) => {
    const moved = cursor.position !== position || cursor.row !== row || cursor.policy !== policy;
    Object.assign(cursor, {policy, position, row});
    if (moved) {
      mark(position);
      maps.forEach((map) => { drawHeat(map); drawSide(map); });
    }
    if (position >= 0) showTip(policy, position, row, x, y);
    else tip.hidden = true;
  };
  const rowAt = (y) => {
    for (let row = 0; row < rows; ++row) if (y < top(row) + lineHeight + layerGap) return row;
    return rows - 1;
  };

  const listen = (map) => {
    const {heat, policy} = map;
    const locate = (event) => {
      const box = heat.getBoundingClientRect();
      const position = Math.floor(view.from + (event.clientX - box.left) * (view.to - view.from) / box.width);
      return [Math.min(Math.max(position, view.from), Math.min(view.to, policy.tokens) - 1), rowAt(event.clientY - box.top)];
    };
    let dragFrom = -1;
    heat.addEventListener('pointermove', (event) => {
      const [position, row] = locate(event);
      point(policy, position, row, event.clientX, event.clientY);
      if (dragFrom >= 0 && Math.abs(position - dragFrom) > 1) {
        const {context, w} = {context: heat.getContext('2d'), w: heat.parentElement.clientWidth};
        const a = xOf(Math.min(dragFrom, position), w), b = xOf(Math.max(dragFrom, position) + 1, w);
        context.strokeStyle = css(colours.ink);
        context.lineWidth = 2;
        context.strokeRect(a, 1, b - a, mapHeight - 2);
      }
    });
    heat.addEventListener('pointerdown', (event) => {
      if (event.button !== 0) return;
      [dragFrom] = locate(event);
      heat.setPointerCapture(event.pointerId);
    });
    heat.addEventListener('pointerup', (event) => {
      const [position] = locate(event), from = dragFrom;
      dragFrom = -1;
      if (from >= 0 && Math.abs(position - from) >= 4) zoom(Math.min(from, position), Math.max(from, position) + 1);
    });
    heat.addEventListener('pointerleave', () => { if (dragFrom < 0) point(policy, -1, -1, 0, 0); });
    heat.addEventListener('dblclick', () => zoom(0, width));
    heat.addEventListener('blur', () => point(policy, -1, -1, 0, 0));
    heat.addEventListener('keydown', (event) => {
      let position = cursor.position < 0 ? view.from : cursor.position, row = Math.max(0, cursor.row);
      const jump = event.shiftKey ? 10 : 1;
      switch (event.key) {
        case 'ArrowLeft': position -= jump; break;
        case 'ArrowRight': position += cursor.position < 0 ? 0 : jump; break;
        case 'ArrowUp': row -= jump; break;
        case 'ArrowDown': row += jump; break;
        case 'Home': position = 0; break;
        case 'End': position = policy.tokens - 1; break;
        case '+': case '=': zoomBy(0.5); return;
        case '-': zoomBy(2); return;
        case '0': zoom(0, width); return;
        case 'Escape': point(policy, -1, -1, 0, 0); return;
        default: return;
      }
      event.preventDefault();
      position = Math.min(policy.tokens - 1, Math.max(0, position));
      row = Math.min(rows - 1, Math.max(0, row));
      const span = view.to - view.from;
      if (position < view.from || position >= view.to) zoom(position - span / 2, position + span / 2);
      const box = heat.getBoundingClientRect();
      point(policy, position, row, box.left + xOf(position + 0.5, box.width), box.top + top(row) + lineHeight);
    });
  };

  const showMaps = () => {
    policies.forEach((policy, index) => {
      const canvas = (name, attributes) => make('canvas', {class: name, ...attributes});
      const map = {policy, chosen: selectedRows(), heat: canvas('heat', {id: `heat-${index}`, tabindex: 0, role: 'img',
          'aria-label': `${policy.label}: ${percent(policy.rows.kept / policy.rows.all)} of the rows kept. Arrow keys read token by token.`}),
                   profile: canvas('profile'), parts: canvas('parts'), axis: canvas('axis'), budget: canvas('budget'), attention: canvas('attention')};
      const a = policy.attention;
      const words = `keeps ${percent(policy.rows.kept / policy.rows.all)} of the rows and ${percent(a.prompt)} of the text's own attention` +
          (a.later_recalled > 0 ? `; later steps find ${percent(a.later_kept)} in place and ${percent(a.later_recalled)} more by recall` :
           a.later_queries > 0 ? `; later steps find ${percent(a.later_kept)}` : '');
      const box = (child) => make('div', {}, child);
      const scale = (low, high) => make('div', {class: 'scale'}, make('span', {}, low), make('span', {}, high));
      byId('maps').append(make('figure', {class: 'map'},
          make('figcaption', {}, make('h3', {}, policy.label), make('span', {}, words)),
          make('div', {class: 'grid'},
               make('div', {class: 'head'}, 'layer'), box(map.profile), make('div', {class: 'head'}, 'held now, share of all tokens'),
               make('div', {class: 'head'}, a.later_queries > 0 ? 'attention kept, later steps' : 'attention kept, end of the text'),
               make('div', {class: 'axis'}, map.axis), box(map.heat), box(map.budget), box(map.attention),
               make('div'), box(map.parts), scale('0', percent(barScale)), scale('0', '100 %'))));
      maps.push(map);
      listen(map);
    });
  };

  // --- Text ---------------------------------------------------------------------------------------------------------

  const showTexts = () => {
    for (const policy of policies) {
      const box = make('div', {class: 'tokens', tabindex: 0, 'aria-label': `text under ${policy.label}`});
      policy.spans = [];
      let last = '';
      for (let i = 0; i < policy.tokens; ++i) {
        if (part(i) !== last) {
          last = part(i);
          if (data.question_tokens > 0 || last === 'answer') box.append(make('span', {class: 'part'}, last));
        }
        const span = make('span');
        for (const [text, isMark] of visible(policy.piece(i))) span.append(isMark ? make('i', {}, text) : text);
        span.dataset.i = i;
        policy.spans.push(span);
        box.append(span);
      }
      box.addEventListener('mousemove', (event) => {
        const span = event.target.closest('[data-i]');
        if (span) point(policy, Number(span.dataset.i), -1, event.clientX, event.clientY);
      });
      box.addEventListener('mouseleave', () => point(policy, -1, -1, 0, 0));
      policy.fact = make('p', {class: 'fact'});
      byId('texts').append(make('div', {class: 'card'}, make('h3', {}, policy.label), policy.fact, box));
    }
  };
  const colourTexts = () => {
    const chosen = selectedRows();
    const panel = luminance(colours.panel), dark = [16, 24, 32], white = [255, 255, 255];
    for (const policy of policies) {
      let held = 0;
      policy.spans.forEach((span, i) => {
        const counts = tally(policy, i, chosen), n = chosen.length;
        const gone = counts[EVICTED] / n;
        held += (counts[KEPT] + counts[RECALLED]) / n;
        if (gone === 1) {
          span.style.background = 'none';
          span.style.color = css(mix(colours.soft, colours.panel, 0.12));
          return;
        }
        let colour = [0, 0, 0];
        for (const [fate, name] of FATES) {
          if (fate !== EVICTED) colour = colour.map((value, c) => value + colours[name][c] * counts[fate] / (n - counts[EVICTED]));
        }
        const background = mix(colours.panel, colour, Math.pow(1 - gone, 0.85));
        const light = luminance(background);
        span.style.background = css(background);
        span.style.color = css((light + 0.05) ** 2 > 1.05 * (luminance(dark) + 0.05) || (panel < 0.2 && light > 0.2) ? dark : white);
      });
      policy.fact.textContent = chosen.length === rows ? `held or recalled by ${percent(held / policy.tokens)} of all heads, on average` :
          `${percent(held / policy.tokens)} of the tokens held or recalled here`;
    }
  };

  const fillSelect = (id, all, n) => {
    byId(id).append(make('option', {value: -1}, all));
    for (let i = 0; i < n; ++i) byId(id).append(make('option', {value: i}, String(i)));
    byId(id).addEventListener('change', () => {
      const chosen = selectedRows();
      maps.forEach((map) => { map.chosen = chosen; drawProfile(map); });
      colourTexts();
    });
  };

  // --- All of it ----------------------------------------------------------------------------------------------------

  readColours();
  fillSelect('layer', 'all', layers);
  fillSelect('head', 'all', heads);
  showIntroduction();
  showTable();
  showAnswers();
  showMaps();
  showTexts();
  colourTexts();
  drawAll();
  byId('zoom-in').addEventListener('click', () => zoomBy(0.5));
  byId('zoom-out').addEventListener('click', () => zoomBy(2));
  byId('zoom-fit').addEventListener('click', () => zoom(0, width));
  let due = 0;
  new ResizeObserver(() => {
    cancelAnimationFrame(due);
    due = requestAnimationFrame(drawAll);
  }).observe(byId('maps'));
  window.matchMedia('(prefers-color-scheme: dark)').addEventListener('change', () => {
    readColours();
    drawAll();
    colourTexts();
  });
  document.documentElement.dataset.drawn = 'true';
})();
