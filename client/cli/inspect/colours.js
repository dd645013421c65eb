
// Colours, as the style sheet has them in the light or the dark.
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
