"""How a sequence diagram in SVG looks, light and dark.

No variables: not every program that shows SVG knows them.
"""

from typing import Final

__all__ = ("STYLE",)

STYLE: Final = """
.conversation text { font: 13px ui-monospace, SFMono-Regular, Menlo, Consolas,
  "DejaVu Sans Mono", monospace; paint-order: stroke; stroke-width: 4;
  stroke-linejoin: round; }
.conversation .name { font-size: 15px; font-weight: 600; text-anchor: middle;
  stroke-width: 0; }
.conversation .time, .conversation .end { text-anchor: end; }
.conversation .note { font-style: italic; }
.conversation .close .words, .conversation .closed .words,
  .conversation .failure .words { font-weight: 600; }
.conversation .arrow { fill: none; stroke-width: 1.6; }
.conversation .close .arrow, .conversation .closed .arrow { stroke-width: 4; }
.conversation .late { stroke-dasharray: 7 5; }
.conversation .sign, .conversation .head { stroke-width: 1.6; }
.conversation .lost, .conversation .cross { fill: none; stroke-width: 3;
  stroke-dasharray: none; }
.conversation .hands { fill: none; stroke-width: 1.6; }
.conversation .band { stroke-width: 1.2; stroke-dasharray: 3 3; }
.conversation .paper { fill: #fbfcfe; }
.conversation .band { fill: #fdecec; stroke: #b81f1f; }
.conversation .hands { stroke: #33415c; }
.conversation .life { stroke: #9aa7b8; stroke-width: 1.6; }
.conversation .head { fill: #ffffff; stroke: #33415c; }
.conversation .sign { fill: #fbfcfe; stroke: #33415c; }
.conversation .clean { fill: #33415c; }
.conversation .by-0 .arrow { stroke: #2563c9; }
.conversation .by-0 .tip { fill: #2563c9; }
.conversation .by-1 .arrow { stroke: #b4540a; }
.conversation .by-1 .tip { fill: #b4540a; }
.conversation .unclean, .conversation .cross { stroke: #b81f1f; }
.conversation text { fill: #1b2536; stroke: #fbfcfe; }
.conversation .time, .conversation .note { fill: #566479; }
.conversation .failure .words { fill: #b81f1f; }
@media (prefers-color-scheme: dark) {
.conversation .paper { fill: #151a22; }
.conversation .band { fill: #3a1d22; stroke: #ff8a80; }
.conversation .hands { stroke: #c3cede; }
.conversation .life { stroke: #66758b; }
.conversation .head { fill: #1f2733; stroke: #c3cede; }
.conversation .sign { fill: #151a22; stroke: #c3cede; }
.conversation .clean { fill: #c3cede; }
.conversation .by-0 .arrow { stroke: #6fa5f7; }
.conversation .by-0 .tip { fill: #6fa5f7; }
.conversation .by-1 .arrow { stroke: #eda25b; }
.conversation .by-1 .tip { fill: #eda25b; }
.conversation .unclean, .conversation .cross { stroke: #ff8a80; }
.conversation text { fill: #e7ecf4; stroke: #151a22; }
.conversation .time, .conversation .note { fill: #a4b1c4; }
.conversation .failure .words { fill: #ff8a80; }
}
"""
