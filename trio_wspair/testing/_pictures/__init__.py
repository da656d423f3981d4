"""Pictures of a conversation, drawn from its entries and the names of its two halves.

They know no WebSocket and no Trio. All of them draw the rows from `rows_of()`.
"""

from ._html import draw_html
from ._svg import draw_svg
from ._text import draw_mermaid, terminal_diagram

__all__ = ("draw_html", "draw_mermaid", "draw_svg", "terminal_diagram")
