
// What pointing at a map, at its bars or at a token of the text tells, by mouse or by keys.
const tip = byId('tip');
const everyRow = [...Array(rows).keys()];
const tipLine = (name, text) => make('div', {class: 'line'}, make('span', {class: `swatch ${name}`}), text);
const tipSoft = (text) => make('div', {class: 'where'}, text);
const named = (row) => `layer ${Math.floor(row / heads)}, head ${row % heads}`;

const tokenFacts = (policy, position, row) => {
  const facts = [make('b', {}, `\u201c${quoted(policy.piece(position))}\u201d`),
                 tipSoft(`token ${number.format(position)} of ${number.format(policy.tokens)}, ${part(position)}; ${policy.label}`)];
  if (row >= 0) {
    const fate = policy.fate(row, position), name = FATES.find(([f]) => f === fate)[1];
    facts.push(tipLine(name, `${named(row)}: ${name}` + (fate === RECALLED ? `, in use in ${count(policy.steps(row, position), 'step')}` : '')),
               tipSoft('Of all heads'));
  }
  const counts = tally(policy, position, everyRow);
  for (const [fate, name] of FATES) {
    if (counts[fate] > 0) facts.push(tipLine(name, `${name} in ${counts[fate]} of ${rows}`));
  }
  return facts;
};

const headFacts = (policy, row) => {
  const of = policy.heads, share = (n) => `${number.format(n)} (${percent(n / policy.tokens)})`;
  const facts = [make('b', {}, named(row)), tipSoft(`${policy.label}, ${count(policy.tokens, 'row')}`)];
  for (const [, name] of FATES) {
    if (of[name][row] > 0) facts.push(tipLine(name, `${name} ${share(of[name][row])}`));
  }
  facts.push(tipSoft(`on the device now: ${share(heldRows(policy, row))}` +
                     (of.recall_slots[row] > 0 ? `, ${number.format(of.recall_slots[row])} in recall slots` : '')),
             tipSoft(`attention kept, end of the text: ${percent(of.prompt_attention[row])}`));
  if (policy.attention.later_queries > 0) {
    facts.push(tipSoft(`attention kept, later steps: ${percent(of.later_kept[row] + of.later_recalled[row])}` +
                       (of.later_recalled[row] > 0 ? ` (${percent(of.later_recalled[row])} by recall)` : '')));
  }
  return facts;
};

// x, y: in the window; the tip lies beside it, inside the window.
const showTip = (facts, x, y) => {
  tip.replaceChildren(...facts);
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
// position, row: -1 for none.
const point = (policy, position, row, x, y) => {
  const moved = cursor.position !== position || cursor.row !== row || cursor.policy !== policy;
  Object.assign(cursor, {policy, position, row});
  if (moved) {
    mark(position);
    maps.forEach((map) => { drawHeat(map); drawSide(map); });
  }
  if (position >= 0) showTip(tokenFacts(policy, position, row), x, y);
  else if (row >= 0) showTip(headFacts(policy, row), x, y);
  else tip.hidden = true;
};
const pointNowhere = (policy) => point(policy, -1, -1, 0, 0);
const rowAt = (y) => {
  for (let row = 0; row < rows; ++row) if (y < rowTop(row) + lineHeight + layerGap) return row;
  return rows - 1;
};

const listenToMouse = ({heat, policy}) => {
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
      const context = heat.getContext('2d'), w = Number(heat.dataset.w);
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
  heat.addEventListener('pointercancel', () => { dragFrom = -1; });
  heat.addEventListener('pointerleave', () => { if (dragFrom < 0) pointNowhere(policy); });
  heat.addEventListener('dblclick', () => zoom(0, width));
};

const listenToKeys = ({heat, policy}) => {
  heat.addEventListener('blur', () => pointNowhere(policy));
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
      case 'Escape': pointNowhere(policy); return;
      default: return;
    }
    event.preventDefault();
    position = Math.min(policy.tokens - 1, Math.max(0, position));
    row = Math.min(rows - 1, Math.max(0, row));
    const span = view.to - view.from;
    if (position < view.from || position >= view.to) zoom(position - span / 2, position + span / 2);
    const box = heat.getBoundingClientRect();
    point(policy, position, row, box.left + xOf(position + 0.5, box.width), box.top + rowTop(row) + lineHeight);
  });
};

const listen = (map) => {
  listenToMouse(map);
  listenToKeys(map);
  for (const bars of [map.budget, map.attention]) {
    bars.addEventListener('pointermove', (event) => {
      point(map.policy, -1, rowAt(event.clientY - bars.getBoundingClientRect().top), event.clientX, event.clientY);
    });
    bars.addEventListener('pointerleave', () => pointNowhere(map.policy));
  }
};
