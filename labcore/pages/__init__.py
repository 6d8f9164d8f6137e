"""Pages of certificates: one self-contained HTML file each, or Markdown with its plots beside it.

    html, markdown   the text of one certificate's page
    write            the pages of many, with an index, into a folder

A page is a function of its certificate alone: the same one gives the same bytes. All text in it,
such as options and what a sampler raised, comes from elsewhere and is escaped.
"""

from labcore.pages.document import command, stem
from labcore.pages.figures import draw
from labcore.pages.hypertext import html, index
from labcore.pages.marked import listing, markdown
from labcore.pages.writing import FORMATS, write

__all__ = ["FORMATS", "command", "draw", "html", "index", "listing", "markdown", "stem", "write"]
