(panel, least) => {
  // What is wrong with a panel as it is seen: parts that are cut, text that is pale, text that is tiny.
  const visible = e => e.offsetParent !== null && getComputedStyle(e).visibility !== "hidden";
  const channels = c => (c.match(/[\d.]+/g) || []).map(Number);
  const light = ([r, g, b]) => {
    const f = v => { v /= 255; return v <= 0.03928 ? v / 12.92 : ((v + 0.055) / 1.055) ** 2.4; };
    return 0.2126 * f(r) + 0.7152 * f(g) + 0.0722 * f(b);
  };
  const ground = e => {
    for (; e; e = e.parentElement) {
      const c = channels(getComputedStyle(e).backgroundColor);
      if (c.length === 3 || (c.length === 4 && c[3] > 0.5)) return c;
    }
    return [255, 255, 255];
  };
  const name = e => `${e.tagName.toLowerCase()}.${e.className.baseVal ?? e.className}: ${e.textContent.trim().slice(0, 40)}`;
  const outer = panel.getBoundingClientRect(), cut = [], pale = [], tiny = [];
  const room = panel.closest(".jp-OutputArea-output, .jp-OutputArea, body").getBoundingClientRect();
  if (outer.right > room.right + 1) cut.push(`the panel is ${outer.width} px wide in ${room.width}`);
  for (const e of panel.querySelectorAll("*")) {
    if (e.tagName === "STYLE" || e.tagName === "OPTION" || !e.getClientRects().length) continue;
    if (e instanceof HTMLElement && !visible(e)) continue;
    const box = e.getBoundingClientRect(), style = getComputedStyle(e);
    const scrolls = e.parentElement.closest(".widget-html-content");
    const own = [...e.childNodes].some(n => n.nodeType === 3 && n.textContent.trim());
    if (box.width && box.right > outer.right + 1 && !(scrolls && scrolls.scrollWidth > scrolls.clientWidth))
      cut.push(name(e));
    if (!own) continue;
    const svg = e.closest("svg");
    const size = parseFloat(style.fontSize) * (svg ? svg.getBoundingClientRect().width / svg.viewBox.baseVal.width : 1);
    if (size < least.size - 0.01 && !svg) tiny.push(`${size} px ${name(e)}`);
    if (e.closest("[disabled], .mod-disabled")) continue;
    const ink = channels(svg ? style.fill : style.color), paper = svg ? [255, 255, 255] : ground(e);
    if (ink.length === 4 && ink[3] === 0) continue;
    const [a, b] = [light(ink), light(paper)].sort((x, y) => y - x);
    if ((a + 0.05) / (b + 0.05) < least.contrast) pale.push(`${((a + 0.05) / (b + 0.05)).toFixed(1)} ${name(e)}`);
  }
  return { cut: cut.slice(0, 5), pale: pale.slice(0, 5), tiny: tiny.slice(0, 5) };
}
