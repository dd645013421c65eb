
// Draws everything, and draws it again when the window, the light or the paper changes.
const redraw = () => {
  readColours();
  drawAll();
  colourTexts();
};
const arrange = (paired) => {
  byId('maps').classList.toggle('paired', paired);
  byId('paired').setAttribute('aria-pressed', paired);
};

readColours();
fillSelect('layer', 'all', layers);
fillSelect('head', 'all', heads);
showIntroduction();
showTable();
showAnswers();
showMaps();
showTexts();
arrange(policies.length > 1 && window.innerWidth >= 1500);
byId('paired').hidden = policies.length < 2;
redraw();
byId('paired').addEventListener('click', () => arrange(!byId('maps').classList.contains('paired')));
byId('zoom-in').addEventListener('click', () => zoomBy(0.5));
byId('zoom-out').addEventListener('click', () => zoomBy(2));
byId('zoom-fit').addEventListener('click', () => zoom(0, width));
let due = 0;
const resized = new ResizeObserver(() => {
  cancelAnimationFrame(due);
  due = requestAnimationFrame(drawAll);
});
document.querySelectorAll('#maps, #maps .heat').forEach((element) => resized.observe(element.parentElement));
window.matchMedia('(prefers-color-scheme: dark)').addEventListener('change', redraw);
window.matchMedia('print').addEventListener('change', redraw);
document.documentElement.dataset.drawn = 'true';
