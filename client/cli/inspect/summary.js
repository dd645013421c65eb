
// The words at the top, the table and the answers.
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
      if (name === 'recalled' && n > 0) line.lastChild.append(make('small', {}, `${number.format(policy.rows.recall_slots)} of them now`));
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
  byId('answers').dataset.many = policies.length;
  for (const policy of policies) {
    byId('answers').append(make('div', {class: 'card', 'data-policy': policy.label}, make('h3', {}, policy.label), make('p', {class: 'answer'}, policy.answer)));
  }
};
