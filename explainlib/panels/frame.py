"""The frame of every panel: a light sheet in either theme of JupyterLab, whose columns wrap where there is no room."""

from __future__ import annotations

from collections.abc import Sequence

import ipywidgets as widgets

NARROW = 900  # pixels; below it boxes of fixed height grow with their text
INK, PAPER, LINE = "#222", "#fff", "#767676"
# Widgets take their colours from JupyterLab's variables, which a dark theme sets to white on black; pictures and
# tables of a panel are drawn on white in both.
STYLE = f"""<style>
.xl-panel {{ background: {PAPER}; color: {INK}; padding: 6px; box-sizing: border-box; max-width: 100%;
  container-type: inline-size;
  --jp-ui-font-color0: {INK}; --jp-ui-font-color1: {INK}; --jp-ui-font-color2: #444; --jp-ui-font-color3: #595959;
  --jp-ui-inverse-font-color0: {PAPER}; --jp-ui-inverse-font-color1: {PAPER};
  --jp-content-font-color1: {INK}; --jp-widgets-color: {INK}; --jp-widgets-label-color: {INK};
  --jp-widgets-readout-color: {INK}; --jp-widgets-input-color: {INK}; --jp-widgets-input-background-color: {PAPER};
  --jp-widgets-input-border-color: {LINE}; --jp-layout-color0: {PAPER}; --jp-layout-color1: {PAPER};
  --jp-layout-color2: #eee; --jp-layout-color3: #ccc; --jp-border-color1: {LINE}; --jp-border-color2: {LINE};
  --jp-brand-color1: #0062a3; --jp-widgets-slider-active-handle-color: #0062a3; color-scheme: light; }}
.xl-panel .widget-hbox {{ flex-flow: row wrap; }}
.xl-panel .widget-box {{ overflow: visible; }}
.xl-panel .jupyter-widgets {{ max-width: 100%; box-sizing: border-box; }}
.xl-panel img, .xl-panel svg {{ max-width: 100%; height: auto; }}
.xl-panel .widget-html-content {{ max-width: 100%; overflow-x: auto; }}
.xl-panel table {{ line-height: 1.5; }}
.xl-panel sub {{ font-size: 12px; line-height: 1; }}
.xl-panel option {{ color: {INK}; background: {PAPER}; }}
@container (max-width: {NARROW}px) {{ .xl-panel .widget-html {{ height: auto !important; }} }}
</style>"""


def framed(rows: Sequence[widgets.Widget], name: str, height: str) -> widgets.VBox:
    """Return the root of a panel: its rows on a light sheet.

    Args:
        rows: from top to bottom.
        name: a class of its own.
        height: the least, in CSS.
    """
    style = widgets.HTML(STYLE, layout=widgets.Layout(height="0", margin="0"))
    root = widgets.VBox([*rows, style], layout=widgets.Layout(min_height=height))
    root.add_class("xl-panel")
    root.add_class(name)
    return root
