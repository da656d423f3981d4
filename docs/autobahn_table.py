"""Directives that print the recorded verdicts of the Autobahn TestSuite."""

from collections.abc import Iterable
from typing import ClassVar

from autobahn.results import MODES, explains, explanations, recorded, table
from docutils import nodes
from engines import ENGINES
from sphinx.application import Sphinx
from sphinx.util.docutils import SphinxDirective


class _Printed(SphinxDirective):
    """Something that is made from the recorded run."""

    def text(self) -> Iterable[str]:
        raise NotImplementedError

    def run(self) -> list[nodes.Node]:
        return self.parse_text_to_nodes("\n".join(self.text()))


class _Table(_Printed):
    widths: ClassVar[str] = "auto"

    def rows(self) -> Iterable[Iterable[str]]:
        raise NotImplementedError

    def text(self) -> Iterable[str]:
        yield ".. list-table::"
        yield "   :header-rows: 1"
        yield f"   :widths: {self.widths}"
        yield ""
        for row in self.rows():
            for number, cell in enumerate(row):
                yield f"   {' ' if number else '*'} - {cell}"


class Counts(_Table):
    """The number of cases with each verdict, by section, for an engine and a mode."""

    required_arguments = 2

    def rows(self) -> Iterable[Iterable[str]]:
        engine, mode = self.arguments
        return table(recorded(engine)[mode])


class Explanations(_Table):
    """Every case that is not "ok", and why."""

    widths = "10 12 7 7 7 7 16 12 22"

    def rows(self) -> Iterable[Iterable[str]]:
        runs = [recorded(engine)[mode] for engine in ENGINES for mode in MODES]
        heads = (f"{mode}, {engine}" for engine in ENGINES for mode in MODES)
        yield "cases", "verdict", *heads, "what the suite sends", "caused by", "because"
        for entry in explanations():
            counts = (
                str(sum(explains(entry, *case) for case in run.items())) for run in runs
            )
            texts = (entry[key].strip() for key in ("what", "caused-by", "because"))
            printed = (text.replace("\n", " ") for text in texts)
            yield ", ".join(entry["cases"]), entry["verdict"], *counts, *printed


class Facts(_Printed):
    """The date and the versions of the recorded run on an engine."""

    required_arguments = 1

    def text(self) -> Iterable[str]:
        facts = dict(recorded(self.arguments[0])["facts"])
        date = facts.pop("date")
        versions = ", ".join(f"{name} {version}" for name, version in facts.items())
        yield f"Recorded on {date} with {versions}."


def setup(app: Sphinx) -> None:
    app.add_directive("autobahn-counts", Counts)
    app.add_directive("autobahn-explanations", Explanations)
    app.add_directive("autobahn-facts", Facts)
