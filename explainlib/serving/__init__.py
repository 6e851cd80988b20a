"""The panels as pages for a whole class: one warm process, and a fork of it for every visitor."""

from explainlib.serving.pages import PAGES, Page, open_panel, page_notebook
from explainlib.serving.server import serve

__all__ = ["PAGES", "Page", "open_panel", "page_notebook", "serve"]
