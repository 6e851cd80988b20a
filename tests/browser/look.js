(panel, least) => {
  // What is wrong with a panel as it is seen: parts that are cut, text that is pale, text that is tiny, columns that do
  // not wrap. The panel is a light sheet in either theme, so text is judged against the ground it stands on.
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
  const name = e => `${e.tagName.toLowerCase()}.${e.className.baseVal ?? e.className}: ` +
    `${(e.textContent || e.ariaLabel || e.alt || "").trim().slice(0, 40)}`;
  const scrolls = e => {  // inside a part that can be scrolled nothing is lost
    for (e = e.parentElement; e && e !== panel; e = e.parentElement)
      if (/auto|scroll/.test(getComputedStyle(e).overflowX) && e.scrollWidth > e.clientWidth) return true;
    return false;
  };
  const clipped = e => {  // by a part of fixed size that hides what is too much
    const box = e.getBoundingClientRect();
    for (let p = e.parentElement; p && p !== panel; p = p.parentElement) {
      const style = getComputedStyle(p), room = p.getBoundingClientRect();
      if (/hidden|clip/.test(style.overflowY) && box.top < room.bottom && box.bottom > room.bottom + 2) return true;
      if (/hidden|clip/.test(style.overflowX) && box.left < room.right && box.right > room.right + 2) return true;
    }
    return false;
  };
  const outer = panel.getBoundingClientRect(), cut = [], pale = [], tiny = [];
  const room = panel.closest(".jp-OutputArea-output, .jp-OutputArea, body").getBoundingClientRect();
  if (outer.right > room.right + 1) cut.push(`the panel is ${outer.width} px wide in ${room.width}`);
  const shown = [...panel.querySelectorAll("*")].filter(e => e.checkVisibility({ visibilityProperty: true }));
  for (const e of shown) {
    if (["STYLE", "OPTION", "TITLE"].includes(e.tagName)) continue;
    const box = e.getBoundingClientRect(), style = getComputedStyle(e), svg = e.closest("svg");
    const own = [...e.childNodes].some(n => n.nodeType === 3 && n.textContent.trim());
    const seen = own || ["IMG", "svg", "SELECT", "INPUT", "BUTTON"].includes(e.tagName);
    if (!seen || !box.width) continue;
    if (box.right > outer.right + 1 && !scrolls(e)) cut.push(name(e));
    else if (clipped(e)) cut.push(`hidden below or beside: ${name(e)}`);
    if (!own) continue;
    const scale = svg ? svg.getBoundingClientRect().width / svg.viewBox.baseVal.width : 1;
    if (parseFloat(style.fontSize) * scale < least.size - 0.01) tiny.push(`${style.fontSize} x ${scale} ${name(e)}`);
    if (e.closest("[disabled], .mod-disabled")) continue;
    const ink = channels(svg ? style.fill : style.color), paper = svg ? [255, 255, 255] : ground(e);
    if (ink.length === 4 && ink[3] === 0) continue;
    const [a, b] = [light(ink), light(paper)].sort((x, y) => y - x), contrast = (a + 0.05) / (b + 0.05);
    if (contrast < least.contrast) pale.push(`${contrast.toFixed(1)} ${name(e)}`);
  }
  return { cut: [...new Set(cut)].slice(0, 6), pale: pale.slice(0, 6), tiny: tiny.slice(0, 6) };
}
