"""The one build step of the course: sources in notebooks/src become the notebooks that learners open.

    python notebooks/build.py build [NN ...]   run the sources (all, or these numbers); write the notebooks with
                                               their outputs, the pictures in figures/ and the table in README.md
    python notebooks/build.py check            say what is out of step or out of form; runs nothing
    python notebooks/build.py badges           write text anew (badges, set-up cells, prose, README) and run nothing:
                                               enough after the address, the version or only markdown has changed

A notebook and its pictures are written together and only after all its cells have run, so a failure or an interruption
leaves the old ones as they were. Building twice changes no byte. The form of a source is told in builder/card.py
(header card), builder/structure.py (sections, tags, exercises) and builder/maths.py (formulas).
"""

from __future__ import annotations

import argparse
import sys
import tempfile
from pathlib import Path

from builder import card, check, pairs, readme
from builder.project import BuildError, Project, write
from builder.sources import Source, as_text, choose, expand, load

ROOT = Path(__file__).resolve().parents[1]
SLOWER_THAN_CARD = 1.5  # a card that promises less than the run took, times this, is worth a note


def build(project: Project, numbers: list[str]) -> int:
    """Run the chosen sources and write what comes out; return the number of notebooks that failed."""
    sources = load(project)
    chosen = choose(sources, numbers)
    _refresh_readme(sources, project)
    failed = 0
    for source in chosen:
        try:
            print(build_one(source, project), flush=True)
        except BuildError as error:
            print(f"{source.name}: not built, the old notebook stays\n  {error}", file=sys.stderr, flush=True)
            failed += 1
            if _went_away(error):
                break
    return failed


def build_one(source: Source, project: Project) -> str:
    """Run one source, write its notebook and pictures, and return one line that says how long it took."""
    from builder.execute import run  # here, because the other commands need no kernel

    promised = card.read(source)
    notebook = expand(source, project)
    with tempfile.TemporaryDirectory() as staging:
        seconds = run(notebook, source, project, Path(staging))
        pictures = [path for path in sorted(Path(staging).rglob("*")) if path.is_file()]
        for path in pictures:
            write(project.figures / path.relative_to(staging), path.read_bytes())
        text = as_text(notebook)
        write(project.notebook(source.path), text)
    line = f"{source.name}: {seconds:.1f} s, {len(text.encode()) / 1000:.0f} kB, {len(pictures)} pictures"
    if seconds > promised.seconds * SLOWER_THAN_CARD:
        line += f" (its card promises about {promised.seconds} s)"
    return line


def badges(project: Project) -> int:
    """Write all generated text anew, keep the outputs; return the number of notebooks whose code has changed."""
    sources = load(project)
    _refresh_readme(sources, project)
    failed = 0
    for source in sources:
        try:
            text = as_text(pairs.transplanted(source, pairs.read(source, project), project))
        except BuildError as error:
            print(error, file=sys.stderr)
            failed += 1
            continue
        print(f"{source.name}: {'text written anew' if write(project.notebook(source.path), text) else 'unchanged'}")
    return failed


def _refresh_readme(sources: list[Source], project: Project) -> None:
    """Read every card first, so that a bad one is told before anything runs."""
    cards = [card.read(source) for source in sources]
    write(project.readme, readme.refreshed(readme.read(project), cards, project))


def _went_away(error: BuildError) -> bool:
    from builder.execute import Stopped

    return isinstance(error, Stopped)


def _told(problems: list[str]) -> int:
    for problem in problems:
        print(problem)
    print(f"{len(problems)} problems" if problems else "all notebooks are in step and in form")
    return len(problems)


def main(arguments: list[str] | None = None, root: Path = ROOT) -> int:
    """Run one command; return 0 when all went well, 1 when something is wrong, 130 when interrupted."""
    parser = argparse.ArgumentParser(description=(__doc__ or "").partition("\n")[0])
    commands = parser.add_subparsers(dest="command", required=True)
    commands.add_parser("build", help="run sources, write notebooks").add_argument("numbers", nargs="*", metavar="NN")
    commands.add_parser("check", help="say what is out of step; runs nothing")
    commands.add_parser("badges", help="write badges, set-up cells and README anew; runs nothing")
    given = parser.parse_args(arguments)
    project = Project(root)
    try:
        if given.command == "build":
            failed = build(project, given.numbers)
        elif given.command == "badges":
            failed = badges(project)
        else:
            failed = _told(check.problems(project))
        for note in project.notes():
            print(note)
    except BuildError as error:
        print(error, file=sys.stderr)
        return 1
    except KeyboardInterrupt:
        print("interrupted: the notebook that was running stays as it was", file=sys.stderr)
        return 130
    return 1 if failed else 0


if __name__ == "__main__":
    sys.exit(main())
