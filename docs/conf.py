"""How the documentation is built: `nox -s docs`."""

import logging
import re
import sys
from collections.abc import Iterable
from contextlib import suppress
from functools import cache
from importlib import import_module
from operator import attrgetter
from pathlib import Path
from types import FunctionType
from typing import ClassVar, cast

from docutils import nodes
from sphinx.addnodes import pending_xref
from sphinx.application import Sphinx
from sphinx.environment import BuildEnvironment
from sphinx.pycode import ModuleAnalyzer
from sphinx.util.docutils import SphinxDirective
from sphinx.util.typing import stringify_annotation

sys.path.insert(0, str(Path(__file__).parents[1] / "tests" / "helpers"))
sys.path.insert(0, str(Path(__file__).parents[1] / "tests"))
sys.path.insert(0, str(Path(__file__).parent))
sys.path.append(str(Path(__file__).parent.parent))  # for the benchmarks

from conformance import corpus, stage
from conformance.comparing import same_trace
from conformance.hibernation import (
    corpus as object_corpus,
    results,
    stage as object_stage,
)

from trio_wspair import Application, ReadyState, __version__
from trio_wspair._rules.state import _HOLDER_TABLE, _READY_TABLE, Holder, Operation

PUBLIC_MODULES = (
    "trio_wspair",
    "trio_wspair.transports",
    "trio_wspair.testing",
    "trio_wspair.asgi",
    "trio_wspair.hibernation",
    "trio_wspair.inspector",
)


def name_defining_modules() -> None:
    """Let what is public name the private module that defines it again.

    autodoc looks there for overloads, and for the docstrings of attributes.
    """
    for public in PUBLIC_MODULES:
        import_module(public)
    for name, module in list(sys.modules.items()):
        if name.startswith("trio_wspair."):
            for tag in ModuleAnalyzer.for_module(name).find_tags():
                with suppress(AttributeError):  # It may be deleted or nested.
                    value = attrgetter(tag)(module)
                    if isinstance(value, (type, FunctionType)):
                        value.__module__ = name


name_defining_modules()

project = "trio-wspair"
author = "the trio-wspair contributors"
project_copyright = author
version = release = __version__

extensions = [
    "sphinx.ext.autodoc",
    "sphinx.ext.doctest",
    "sphinx.ext.napoleon",
    "sphinx_copybutton",
    "sphinxcontrib_trio",
    "autobahn_table",
    "speed_table",
]
exclude_patterns = ["_build"]
default_role = "code"
nitpicky = True
# Names of other projects, and private type variables: nothing here to link to.
nitpick_ignore_regex = [
    ("py:.*", r"(trio|ssl|re|os|datetime|contextlib|collections\.abc)\..*"),
    ("py:.*", r"(trio_wspair\..*\.)?_[A-Z]\w*"),
    ("py:.*", r"trio_wspair\.(_client\.connecting|testing\._requests)\.\w+Options"),
]

autodoc_member_order = "bysource"
autodoc_typehints_format = "short"
napoleon_numpy_docstring = False
add_module_names = False
python_maximum_signature_line_length = 88
python_use_unqualified_type_names = True

doctest_global_setup = "import trio\nfrom trio_wspair import *"
copybutton_exclude = ".linenos, .gp, .go"

html_theme = "furo"
html_title = f"trio-wspair {version}"


class _Table(SphinxDirective):
    """A table that is made from the library when the documentation is built."""

    def table(self) -> Iterable[Iterable[str]]:
        raise NotImplementedError

    def run(self) -> list[nodes.Node]:
        lines = [".. list-table::", "   :header-rows: 1", ""]
        for row in self.table():
            for number, cell in enumerate(row):
                lines.append(f"   {' ' if number else '*'} - {cell}")
        return self.parse_text_to_nodes("\n".join(lines))


class HolderTable(_Table):
    """The holder of a half after each operation."""

    def table(self) -> Iterable[Iterable[str]]:
        yield "The half is", *(each.value for each in Operation)
        for holder in Holder:
            followers = [_HOLDER_TABLE.get((holder, each)) for each in Operation]
            yield (
                f"**{holder.label}**",
                *("error" if f is None else f.label for f in followers),
            )


class ReadyTable(_Table):
    """The state that follows from the two Closes and from a failure."""

    def table(self) -> Iterable[Iterable[str]]:
        yield "Close sent", "Close received", "`ready_state`"
        for (sent, received), state in _READY_TABLE.items():
            latches = ("yes" if latch else "no" for latch in (sent, received))
            yield *latches, f"`{state.name}`"
        yield "any", "any, and the half has failed", f"`{ReadyState.CLOSED.name}`"


@cache
def played(play: stage.Play) -> dict[str, bool]:
    """Play the recorded scenarios; return by name which are as they were recorded."""
    logging.disable()  # servers tell of the handlers that fail
    try:
        return {
            scenario["name"]: same_trace(scenario["expect"], stage.run(play, scenario))
            for scenario in corpus.scenarios()
            if play is stage.in_memory or corpus.makes_sense_on_the_wire(scenario)
        }
    finally:
        logging.disable(logging.NOTSET)


class WorkersMatrix(_Table):
    """How many scenarios match what Workers did with them."""

    def table(self) -> Iterable[Iterable[str]]:
        yield (
            "Programs about",
            "played",
            "the same",
            "differ on purpose",
            "only JavaScript",
            "over a connection",
            "the same",
        )
        rows = [
            (name.replace("_", " "), {scenario["name"] for scenario in group})
            for name, group in corpus.groups().items()
        ]
        for name, scenarios in [*rows, ("**all**", set().union(*(r for _, r in rows)))]:
            in_memory = same(stage.in_memory) & scenarios
            on_purpose = corpus.differing("difference").keys() & scenarios
            javascript = corpus.differing("javascript").keys() & scenarios
            on_the_wire = played(stage.on_the_wire).keys() & scenarios
            alike = same(stage.on_the_wire) & scenarios
            columns = scenarios, in_memory, on_purpose, javascript, on_the_wire, alike
            yield name, *(str(len(column)) for column in columns)


def same(play: stage.Play) -> set[str]:
    """Return the names of the scenarios that are played as they were recorded."""
    return {name for name, alike in played(play).items() if alike}


class WorkersEntries(_Table):
    """Entries of the suite's list of differences, of one kind."""

    kind: ClassVar[str]
    columns: ClassVar[dict[str, str]]
    folder: ClassVar[Path] = corpus.HERE

    def table(self) -> Iterable[Iterable[str]]:
        yield *self.columns, "programs"
        for entry in corpus.listed(self.folder)[self.kind]:
            count = len(entry.get("scenarios", ()))
            texts = (
                entry[key].strip().replace("\n", " ") for key in self.columns.values()
            )
            yield *texts, str(count)


class WorkersDifferences(WorkersEntries):
    """What differs on purpose."""

    kind = "difference"
    columns: ClassVar = {
        "Workers": "workers",
        "trio-wspair": "ours",
        "because": "because",
    }


class WorkersJavaScript(WorkersEntries):
    """What only JavaScript has."""

    kind = "javascript"
    columns: ClassVar = {"Only in JavaScript": "notion"}


class WorkersWire(WorkersEntries):
    """What differs only when a connection is between the halves."""

    kind = "wire"
    columns: ClassVar = {"trio-wspair": "what", "because": "because"}


class ObjectsMatrix(_Table):
    """How many scenarios of Durable Objects match what Workers did with them."""

    def table(self) -> Iterable[Iterable[str]]:
        yield (
            "Programs about",
            "played",
            "the same",
            "differ on purpose",
            "only JavaScript",
            "the same over sockets",
            "the same out of memory",
        )
        logging.disable()  # objects tell of the handlers that fail
        try:
            in_memory = results.same_as_workers(object_stage.in_memory)
            over_sockets = results.same_as_workers(object_stage.on_the_wire)
            asleep = results.same_asleep()
        finally:
            logging.disable(logging.NOTSET)
        on_purpose, javascript = (
            corpus.differing(kind, folder=object_corpus.HERE).keys()
            for kind in ("difference", "javascript")
        )
        rows = [
            (name.replace("_", " "), {scenario["name"] for scenario in group})
            for name, group in object_corpus.groups().items()
        ]
        for name, scenarios in [*rows, ("**all**", set().union(*(r for _, r in rows)))]:
            columns = in_memory, on_purpose, javascript, over_sockets, asleep
            counts = (len(column & scenarios) for column in columns)
            yield name, str(len(scenarios)), *map(str, counts)


class ObjectsDifferences(WorkersDifferences):
    """What objects do differently on purpose."""

    folder = object_corpus.HERE


class ObjectsJavaScript(WorkersJavaScript):
    """What only JavaScript has, in the programs of objects."""

    folder = object_corpus.HERE


class WorkersScenarios(_Table):
    """Every scenario that differs, and why."""

    def table(self) -> Iterable[Iterable[str]]:
        yield "Program", "what it does", "reason"
        both = *corpus.scenarios(), *object_corpus.scenarios()
        notes = {one["name"]: one["note"] for one in both}
        differing = corpus.differing_on_the_wire() | object_corpus.differing()
        for name, entry in sorted(differing.items()):
            reason = entry.get("because", entry.get("notion")).strip()
            yield f"``{name}``", notes[name], reason.replace("\n", " ")


def resolve_public_name(
    app: Sphinx, env: BuildEnvironment, node: pending_xref, content: nodes.TextElement
) -> nodes.Node | None:
    """Link a name to where it is documented, not to the room that defines it."""
    name = str(node.get("reftarget", "")).rpartition(".")[2]
    for module in PUBLIC_MODULES:
        found = env.domains["py"].resolve_xref(
            env, env.docname, app.builder, "obj", f"{module}.{name}", node, content
        )
        if found is not None:
            return found
    return None


_APPLICATION = stringify_annotation(Application, "smart")
_GENERATOR = re.compile(r"Async(?:Generator|Iterator)\[([~\w.]+)")

_sentences: dict[str, list[str]] = {}


def keep_sentence(_app: Sphinx, what: str, name: str, *rest: object) -> None:
    """Keep the docstring of an attribute from napoleon, to which a colon is a type."""
    if what in ("attribute", "property"):
        lines = cast("list[str]", rest[-1])
        _sentences[name] = lines.copy()


def restore_sentence(_app: Sphinx, _what: str, name: str, *rest: object) -> None:
    """Put back what `keep_sentence()` has kept."""
    if name in _sentences:
        lines = cast("list[str]", rest[-1])
        lines[:] = _sentences.pop(name)


def name_yielded_type(
    _app: Sphinx, _what: str, _name: str, *rest: object
) -> tuple[object, str] | None:
    """Say what `async with` gives, and `Application` instead of what it stands for."""
    signature, returned = cast("tuple[str | None, str]", rest[-2:])
    if signature is None:
        return None
    signature = signature.replace(_APPLICATION, "~trio_wspair.Application")
    match = _GENERATOR.search(str(returned))
    return signature, returned if match is None else match[1]


def setup(app: Sphinx) -> None:
    app.add_directive("holder-table", HolderTable)
    app.add_directive("ready-table", ReadyTable)
    app.add_directive("workers-matrix", WorkersMatrix)
    app.add_directive("workers-differences", WorkersDifferences)
    app.add_directive("workers-javascript", WorkersJavaScript)
    app.add_directive("workers-wire", WorkersWire)
    app.add_directive("workers-scenarios", WorkersScenarios)
    app.add_directive("objects-matrix", ObjectsMatrix)
    app.add_directive("objects-differences", ObjectsDifferences)
    app.add_directive("objects-javascript", ObjectsJavaScript)
    app.connect("missing-reference", resolve_public_name)
    app.connect("autodoc-process-signature", name_yielded_type)
    app.connect("autodoc-process-docstring", keep_sentence, priority=400)
    app.connect("autodoc-process-docstring", restore_sentence, priority=600)
