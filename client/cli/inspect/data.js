'use strict';
// What the page shows: its data element (docs/inspect.md), unpacked. Texts of the prompt only ever become text nodes.
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
