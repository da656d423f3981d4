"""Sessions: `nox` runs what has to pass, `nox -l` lists them all."""

import os
import shutil
import subprocess
import sys
from pathlib import Path

import nox

nox.needs_version = ">=2025.2.9"
nox.options.default_venv_backend = "venv"
nox.options.reuse_existing_virtualenvs = True
nox.options.error_on_external_run = True
nox.options.error_on_missing_interpreters = True
nox.options.sessions = ["lint", "layers", "types", "tests", "docs"]

WORKERD = "workerd@1.20261117.1"
WS = "ws@8"

PROJECT = nox.project.load_toml("pyproject.toml")


def group(name: str) -> list[str]:
    return list(nox.project.dependency_groups(PROJECT, name))


def interpreters() -> list[str]:
    """Find every CPython from 3.11 on at hand; pyenv hides all but one of its own."""
    pyenv = Path(os.environ.get("PYENV_ROOT", Path.home() / ".pyenv")) / "versions"
    found = []
    for minor in range(11, 16):
        name = f"python3.{minor}"
        candidates = [
            shutil.which(name),
            *sorted(pyenv.glob(f"3.{minor}.*/bin/{name}")),
        ]
        for candidate in candidates:
            if candidate is not None and runs(str(candidate), minor):
                found.append(str(candidate))
                break
    return found or [sys.executable]


def runs(python: str, minor: int) -> bool:
    code = f"""if True:
        import sys
        this = sys.version_info[:2], sys.implementation.name
        sys.exit(this != ((3, {minor}), "cpython"))
    """
    done = subprocess.run([python, "-c", code], capture_output=True, check=False)
    return done.returncode == 0


@nox.session
def lint(session: nox.Session) -> None:
    """Style, spelling, and the mistakes that are peculiar to Trio."""
    session.install(*group("lint"))
    session.run("ruff", "check")
    session.run("ruff", "format", "--check")
    session.run(
        "codespell",
        "trio_wspair",
        "tests",
        "examples",
        "benchmarks",
        "docs",
        "README.md",
        "CHANGELOG.md",
        "CONTRIBUTING.md",
        "--skip",
        "*.svg,_build",
        "--ignore-words-list",
        "bu,caf",
    )
    session.run(
        "flake8-async",
        "--enable",
        "ASYNC102,ASYNC103,ASYNC104,ASYNC105,ASYNC119,ASYNC120",
        *map(str, [*Path("trio_wspair").rglob("*.py"), *Path("examples").glob("*.py")]),
    )


@nox.session
def layers(session: nox.Session) -> None:
    """Imports go down only."""
    session.install("-e", ".", *group("layers"))
    session.run("lint-imports")


@nox.session
def types(session: nox.Session) -> None:
    """Everything is typed, and everything public completely."""
    session.install("-e", ".", *group("types"))
    session.run("mypy")
    session.run("pyright")
    session.run("pyright", "--verifytypes", "trio_wspair", "--ignoreexternal")


PYTHONS = interpreters()
QUICK = "not browser and not proxies and not slow"


@nox.session(python=PYTHONS[-1])
def tests(session: nox.Session) -> None:
    """The tests with the newest Python, or only those that are named.

    Without arguments, the slow ones are left to the session `coverage`.
    """
    session.install("-e", ".", *group("tests"))
    session.run("pytest", "-n", "auto", *(session.posargs or ["-m", QUICK]))


@nox.session(python=PYTHONS[0])
def coverage(session: nox.Session) -> None:
    """All tests with the oldest Python; every line and branch has to be run."""
    session.install("-e", ".", *group("tests"))
    session.run("coverage", "erase")
    session.run("coverage", "run", "-m", "pytest", "-n", "auto", *session.posargs)
    session.run("coverage", "combine", "--quiet")
    session.run("coverage", "report")


@nox.session(python=PYTHONS[1:-1] or None)
def other_pythons(session: nox.Session) -> None:
    """The tests with each other Python that is at hand."""
    if not PYTHONS[1:-1]:
        session.skip("there is no other Python")
    session.install("-e", ".", *group("tests"))
    session.run("pytest", "-n", "auto", *(session.posargs or ["-m", QUICK]))


@nox.session
def examples(session: nox.Session) -> None:
    """Every example, run as a stranger would."""
    session.install(".", *group("tests"))
    session.run("pytest", "tests/test_examples.py")


@nox.session
def docs(session: nox.Session) -> None:
    """The documentation, without a warning, and its examples."""
    session.install("-e", ".", *group("docs"))
    session.run(
        "sphinx-build", "-W", "-n", "-E", "-b", "html", "docs", "docs/_build/html"
    )
    session.run("sphinx-build", "-W", "-b", "doctest", "docs", "docs/_build/doctest")


def node_modules(session: nox.Session, *packages: str) -> Path:
    """Install packages of npm into nox' cache, once; return where they are."""
    folder = session.cache_dir / "-".join(packages)
    modules = folder / "node_modules"
    if not all((modules / package.partition("@")[0]).exists() for package in packages):
        options = ["--no-save", "--no-audit", "--no-fund", "--ignore-scripts"]
        session.run("npm", "install", *options, f"--prefix={folder}", *packages)
    return modules


def apt_install(session: nox.Session, command: str, *packages: str) -> None:
    """Install Debian's packages if a command is missing, as root."""
    if shutil.which(command) is not None:
        return
    if shutil.which("apt-get") is None or os.geteuid() != 0:
        needed = " ".join(packages)
        session.error(f"there is no {command}: apt-get install {needed}, as root")
    apt_get = ["apt-get", "-o", "APT::Get::Assume-Yes=true", "--quiet"]
    session.run(*apt_get, "update", external=True)
    install = [*apt_get, "install", "--no-install-recommends", *packages]
    session.run(*install, external=True)


@nox.session
def differential(session: nox.Session) -> None:
    """Random programs, played on Cloudflare's runtime and on ours: `--programs N`."""
    play_on_workerd(session, "conformance.differential")


@nox.session(name="differential-objects")
def differential_objects(session: nox.Session) -> None:
    """The same for Durable Objects: `--programs N`, `--seed N`, `--record FILE`."""
    play_on_workerd(session, "conformance.hibernation.differential")


def play_on_workerd(session: nox.Session, module: str) -> None:
    session.install("-e", ".", *group("differential"))  # Node and npm, too
    modules = node_modules(session, WORKERD)
    (workerd,) = modules.glob("@cloudflare/workerd-*/bin/workerd")
    session.run(
        "python",
        "-m",
        module,
        f"--workerd={workerd}",
        *session.posargs,
        env={"PYTHONPATH": "tests"},
    )


@nox.session
def browser(session: nox.Session) -> None:
    """Pages in Chromium; screenshots go to the folder SCREENSHOTS."""
    apt_install(session, "chromium", "chromium")
    session.install("-e", ".", *group("browser"))  # It brings no browser of its own.
    session.run("pytest", "-m", "browser", "tests/browser", *session.posargs)


@nox.session
def proxies(session: nox.Session) -> None:
    """The proxies of the documentation, real, in front of a server."""
    for command in ("nginx", "caddy", "haproxy"):
        apt_install(session, command, command)
    session.install("-e", ".", *group("tests"))
    session.run("pytest", "-m", "proxies", "tests/proxies", *session.posargs)


@nox.session
def autobahn(session: nox.Session) -> None:
    """The Autobahn TestSuite, against our echo server and our echo client."""
    session.install("-e", ".[websockets]", *group("autobahn"))
    reports = session.cache_dir / "autobahn"
    # Compression takes minutes: `-- --engine websockets` plays its cases, too.
    engines = [["--engine=trio-websocket"], ["--engine=websockets", "--quick"]]
    for options in [session.posargs] if session.posargs else engines:
        session.run(
            "python",
            "-m",
            "autobahn",
            f"--reports={reports}",
            *options,
            env={"PYTHONPATH": "tests"},
        )


@nox.session
def soak(session: nox.Session) -> None:
    """Thousands of connections for two minutes: `--seconds N`, `--seed N`."""
    session.install("-e", ".", *group("tests"))
    session.run("python", "-m", "soak", *session.posargs, env={"PYTHONPATH": "tests"})


@nox.session
def fuzz(session: nox.Session) -> None:
    """Hostile bytes at random, for a minute: `--seconds N`, `--seed N`."""
    session.install("-e", ".", *group("tests"))
    session.run("python", "-m", "fuzz", *session.posargs, env={"PYTHONPATH": "tests"})


def install_contestants(session: nox.Session) -> dict[str, str]:
    """Install all that benchmarks compare; what can't be had is left out later.

    Return the environment in which they are found.
    """
    apt_install(session, "cc", "gcc", "libc6-dev")
    for package in group("bench"):
        session.install(package, success_codes=[0, 1])
    if not shutil.which("npm", path=os.pathsep.join(session.bin_paths or [])):
        return {}
    try:
        modules = node_modules(session, WS, WORKERD)
    except nox.command.CommandFailed:
        return {}
    return {"BENCH_NODE_MODULES": str(modules)}


@nox.session
def bench(session: nox.Session) -> None:
    """The benchmarks: ratios, measured side by side; `--help` tells more."""
    session.install("-e", ".")
    env = install_contestants(session)
    session.run("python", "-m", "benchmarks", *session.posargs, env=env)


@nox.session(name="bench-compare")
def bench_compare(session: nox.Session) -> None:
    """How fast one commit is beside another: `-- COMMIT [COMMIT]`."""
    session.install(*PROJECT["project"]["dependencies"], *group("bench"))
    apt_install(session, "cc", "gcc", "libc6-dev")
    session.run("python", "-m", "benchmarks.compare", *session.posargs)


@nox.session
def echo(session: nox.Session) -> None:
    """The echo server of the README."""
    session.install(".")
    session.run("python", "examples/echo_server.py", *session.posargs)
