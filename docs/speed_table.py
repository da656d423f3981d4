"""Directives that print what the benchmarks have measured: `docs/speed.json`."""

from collections.abc import Iterable
from functools import cache
from pathlib import Path

from docutils import nodes
from sphinx.application import Sphinx
from sphinx.util.docutils import SphinxDirective

from benchmarks.catalogue import SECTIONS
from benchmarks.results import Results, load
from benchmarks.table import facts, remarks, rows
from benchmarks.workload import Workload

_RECORDED = Path(__file__).parent / "speed.json"


@cache
def recorded() -> Results:
    return load(_RECORDED)


class _Printed(SphinxDirective):
    """Text that is generated from the recorded samples."""

    def text(self) -> Iterable[str]:
        raise NotImplementedError

    def run(self) -> list[nodes.Node]:
        self.env.note_dependency(str(_RECORDED))
        return self.parse_text_to_nodes("\n".join(self.text()))


class Tables(_Printed):
    """The workloads of one section, a table for each."""

    required_arguments = 1
    final_argument_whitespace = True

    def text(self) -> Iterable[str]:
        for workload in SECTIONS[self.arguments[0]]:
            if recorded().ours(workload):
                yield from _table(workload)


def _table(workload: Workload) -> Iterable[str]:
    yield f".. list-table:: {workload.title}"
    yield "   :header-rows: 1"
    yield ""
    for row in rows(recorded(), workload):
        for number, cell in enumerate(row):
            yield f"   {' ' if number else '*'} - {cell}"
    yield ""
    yield " ".join(remarks(recorded(), workload))
    yield ""


class Facts(_Printed):
    """The date, the machine and the versions of the recorded samples."""

    def text(self) -> Iterable[str]:
        yield facts(recorded())


def setup(app: Sphinx) -> None:
    app.add_directive("speed-tables", Tables)
    app.add_directive("speed-facts", Facts)
