"""Pictures of a conversation: pure functions of its two names and its entries.

They know no WebSocket and no Trio. All of them draw the rows from `rows_of()`.
"""

from ._html import draw_html
from ._svg import draw_svg
from ._text import draw_mermaid, terminal_diagram

__all__ = ("draw_html", "draw_mermaid", "draw_svg", "terminal_diagram")
