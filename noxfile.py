"""The sessions of nox: `nox` runs the required ones, `nox -l` lists all."""

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
    """Find the installed CPythons from 3.11 on, one of each minor version.

    Those of pyenv are looked for in its folder: only one of them is on the path.
    """
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
    """Check style, spelling, and the mistakes that are specific to Trio."""
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
    """Check that imports go down only."""
    session.install("-e", ".", *group("layers"))
    session.run("lint-imports")


@nox.session
def types(session: nox.Session) -> None:
    """Check the types, and that everything public is typed completely."""
    session.install("-e", ".", *group("types"))
    session.run("mypy")
    session.run("pyright")
    session.run("pyright", "--verifytypes", "trio_wspair", "--ignoreexternal")


PYTHONS = interpreters()
TEST_PATHS = os.pathsep.join(["tests", "tests/helpers"])
QUICK = "not browser and not proxies and not slow"


@nox.session(python=PYTHONS[-1])
def tests(session: nox.Session) -> None:
    """Run the tests with the newest Python; arguments go to pytest.

    Without arguments, slow tests are left out; the session `coverage` runs them.
    """
    session.install("-e", ".", *group("tests"))
    session.run("pytest", "-n", "auto", *(session.posargs or ["-m", QUICK]))


@nox.session(python=PYTHONS[0])
def coverage(session: nox.Session) -> None:
    """Run all tests with the oldest Python; every line and branch must be covered."""
    session.install("-e", ".", *group("tests"))
    session.run("coverage", "erase")
    session.run("coverage", "run", "-m", "pytest", "-n", "auto", *session.posargs)
    session.run("coverage", "combine", "--quiet")
    session.run("coverage", "report")


@nox.session(python=PYTHONS[1:-1] or None)
def other_pythons(session: nox.Session) -> None:
    """Run the tests with each other Python that is installed."""
    if not PYTHONS[1:-1]:
        session.skip("no other Python is installed")
    session.install("-e", ".", *group("tests"))
    session.run("pytest", "-n", "auto", *(session.posargs or ["-m", QUICK]))


@nox.session
def examples(session: nox.Session) -> None:
    """Run every example, with the package installed as users do."""
    session.install(".", *group("tests"))
    session.run("pytest", "tests/examples/test_examples.py")


@nox.session
def docs(session: nox.Session) -> None:
    """Build the documentation without a warning, and run its examples."""
    session.install("-e", ".", *group("docs"))
    session.run(
        "sphinx-build", "-W", "-n", "-E", "-b", "html", "docs", "docs/_build/html"
    )
    session.run("sphinx-build", "-W", "-b", "doctest", "docs", "docs/_build/doctest")


def node_modules(session: nox.Session, *packages: str) -> Path:
    """Install npm packages into the cache of nox, once; return their folder."""
    folder = session.cache_dir / "-".join(packages)
    modules = folder / "node_modules"
    if not all((modules / package.partition("@")[0]).exists() for package in packages):
        options = ["--no-save", "--no-audit", "--no-fund", "--ignore-scripts"]
        session.run("npm", "install", *options, f"--prefix={folder}", *packages)
    return modules


def apt_install(session: nox.Session, command: str, *packages: str) -> None:
    """Install Debian packages if a command is missing; that needs root."""
    if shutil.which(command) is not None:
        return
    if shutil.which("apt-get") is None or os.geteuid() != 0:
        needed = " ".join(packages)
        session.error(f"{command} is missing: as root, apt-get install {needed}")
    apt_get = ["apt-get", "-o", "APT::Get::Assume-Yes=true", "--quiet"]
    session.run(*apt_get, "update", external=True)
    install = [*apt_get, "install", "--no-install-recommends", *packages]
    session.run(*install, external=True)


@nox.session
def differential(session: nox.Session) -> None:
    """Compare random programs on Cloudflare's runtime and on ours: `--programs N`."""
    play_on_workerd(session, "conformance.differential")


@nox.session(name="differential-objects")
def differential_objects(session: nox.Session) -> None:
    """Compare Durable Objects as well: `--programs N`, `--seed N`, `--record FILE`."""
    play_on_workerd(session, "conformance.hibernation.differential")


def play_on_workerd(session: nox.Session, module: str) -> None:
    session.install("-e", ".", *group("differential"))  # with Node and npm
    modules = node_modules(session, WORKERD)
    (workerd,) = modules.glob("@cloudflare/workerd-*/bin/workerd")
    session.run(
        "python",
        "-m",
        module,
        f"--workerd={workerd}",
        *session.posargs,
        env={"PYTHONPATH": TEST_PATHS},
    )


@nox.session
def browser(session: nox.Session) -> None:
    """Test pages in Chromium; screenshots go to the folder SCREENSHOTS."""
    apt_install(session, "chromium", "chromium")
    session.install("-e", ".", *group("browser"))  # without a browser
    session.run("pytest", "-m", "browser", "tests/browser", *session.posargs)


@nox.session
def proxies(session: nox.Session) -> None:
    """Test a server behind the proxies of the documentation."""
    for command in ("nginx", "caddy", "haproxy"):
        apt_install(session, command, command)
    session.install("-e", ".", *group("tests"))
    session.run("pytest", "-m", "proxies", "tests/proxies", *session.posargs)


@nox.session
def autobahn(session: nox.Session) -> None:
    """Run the Autobahn TestSuite against an echo server and an echo client."""
    session.install("-e", ".[websockets]", *group("autobahn"))
    reports = session.cache_dir / "autobahn"
    # The cases of compression take minutes: `-- --engine websockets` runs them.
    engines = [["--engine=trio-websocket"], ["--engine=websockets", "--quick"]]
    for options in [session.posargs] if session.posargs else engines:
        session.run(
            "python",
            "-m",
            "autobahn",
            f"--reports={reports}",
            *options,
            env={"PYTHONPATH": TEST_PATHS},
        )


@nox.session
def soak(session: nox.Session) -> None:
    """Use thousands of connections for two minutes: `--seconds N`, `--seed N`."""
    session.install("-e", ".", *group("tests"))
    session.run(
        "python", "-m", "soak", *session.posargs, env={"PYTHONPATH": TEST_PATHS}
    )


@nox.session
def fuzz(session: nox.Session) -> None:
    """Send random hostile bytes for a minute: `--seconds N`, `--seed N`."""
    session.install("-e", ".", *group("tests"))
    session.run(
        "python", "-m", "fuzz", *session.posargs, env={"PYTHONPATH": TEST_PATHS}
    )


def install_implementations(session: nox.Session) -> dict[str, str]:
    """Install the implementations that the benchmarks compare, if they are available.

    Returns:
        The environment variables with which the benchmarks find them.
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
    """Run the benchmarks: ratios, measured side by side; `--help` shows the options."""
    session.install("-e", ".")
    env = install_implementations(session)
    session.run("python", "-m", "benchmarks", *session.posargs, env=env)


@nox.session(name="bench-compare")
def bench_compare(session: nox.Session) -> None:
    """Compare the speed of two commits: `-- COMMIT [COMMIT]`."""
    session.install(*PROJECT["project"]["dependencies"], *group("bench"))
    apt_install(session, "cc", "gcc", "libc6-dev")
    session.run("python", "-m", "benchmarks.compare", *session.posargs)


@nox.session
def echo(session: nox.Session) -> None:
    """Run the echo server of the README."""
    session.install(".")
    session.run("python", "examples/echo_server.py", *session.posargs)
