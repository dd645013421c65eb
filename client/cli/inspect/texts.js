
// The text; a token has the colour of what most heads that did not evict it made of it, and the stronger, the more they are.
const showTexts = () => {
  byId('texts').dataset.many = policies.length;
  for (const policy of policies) {
    const box = make('div', {class: 'tokens', tabindex: 0, 'aria-label': `text under ${policy.label}`});
    policy.spans = [];
    let last = '';
    for (let i = 0; i < policy.tokens; ++i) {
      if (part(i) !== last) {
        last = part(i);
        if (data.question_tokens > 0 || last === 'answer') box.append(make('span', {class: 'part'}, last));
      }
      const span = make('span'), piece = policy.piece(i);
      if (piece.startsWith(' ') && i > 0 && !policy.piece(i - 1).endsWith(' ')) box.append(make('wbr'));  // dots break no lines
      for (const [text, isMark] of visible(piece)) span.append(isMark ? make('i', {}, text) : text);
      span.dataset.i = i;
      policy.spans.push(span);
      box.append(span);
    }
    box.addEventListener('mousemove', (event) => {
      const span = event.target.closest('[data-i]');
      if (span) point(policy, Number(span.dataset.i), -1, event.clientX, event.clientY);
    });
    box.addEventListener('mouseleave', () => pointNowhere(policy));
    policy.fact = make('p', {class: 'fact'});
    byId('texts').append(make('div', {class: 'card', 'data-policy': policy.label}, make('h3', {}, policy.label), policy.fact, box));
  }
};
const colourTexts = () => {
  const chosen = selectedRows(), n = chosen.length, dark = [16, 24, 32], white = [255, 255, 255];
  const bound = 1.05 * (luminance(dark) + 0.05);  // above it, dark letters stand out more than white ones
  for (const policy of policies) {
    let held = 0;
    policy.spans.forEach((span, i) => {
      const counts = tally(policy, i, chosen), gone = counts[EVICTED] / n;
      held += (counts[KEPT] + counts[RECALLED]) / n;
      span.dataset.gone = counts[EVICTED];
      if (gone === 1) {
        span.style.background = 'none';
        span.style.color = css(mix(colours.soft, colours.panel, 0.12));
        return;
      }
      const [, name] = FATES.reduce((most, next) => next[0] !== EVICTED && counts[next[0]] > counts[most[0]] ? next : most);
      const background = mix(colours.panel, colours[name], Math.pow(1 - gone, 0.85));
      span.style.background = css(background);
      span.style.color = css((luminance(background) + 0.05) ** 2 > bound ? dark : white);
    });
    policy.fact.textContent = n === rows ? `held or recalled by ${percent(held / policy.tokens)} of all heads, on average` :
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
