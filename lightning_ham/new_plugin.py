"""Start a package with a task and a controller of your own: ``python -m lightning_ham.new_plugin NAME``."""

from __future__ import annotations

import argparse
import keyword
import re
import shlex
from collections.abc import Sequence
from pathlib import Path

from lightning_ham.command_line import CommandParser, run
from lightning_ham.controllers import controller_names
from lightning_ham.foreign import quoted, shown
from lightning_ham.memory import join_kinds
from lightning_ham.memory.attention import attention_modes
from lightning_ham.tasks import task_names

_IN_PACKAGE = Path(__file__).with_name("plugin_template")
TEMPLATE = _IN_PACKAGE if _IN_PACKAGE.is_dir() else Path(__file__).parents[1] / "examples" / "plugin"
"""In the package if installed from a wheel; in ``examples/`` of a checkout."""
_FILES = ("*.toml", "*.md", "*.yaml", "ham_*/*.py", "tests/*.py")
_EXAMPLE = "needle"
"""The name in the template that is replaced."""


def make_parser() -> CommandParser:
    """Return the parser of the command line."""
    parser = CommandParser(
        "new-plugin",
        "Write a complete package that adds a task, a controller, an estimator and a JOIN to lightning_ham, with a\n"
        "recipe that trains with them and tests. It installs and trains as it is; change what you need, and delete\n"
        "the rest.",
        "For the name `parity`, the package is ham-parity, its module ham_parity, and the task parity.",
    )
    parser.add_argument("name", metavar="NAME", type=_name, help="of the task: lower-case letters, digits and _")
    parser.add_argument("--output", metavar="FOLDER", help="a new or empty folder (default: ham-NAME)")
    return parser


def main(argv: Sequence[str] | None = None) -> int:
    """Run the command; return the exit status."""
    parser = make_parser()
    arguments = parser.parse(argv)
    folder = Path(arguments.output or f"ham-{arguments.name.replace('_', '-')}")
    try:
        write_plugin(arguments.name, folder)
    except (OSError, ValueError) as error:
        parser.error(str(error))
    here = shlex.quote(str(folder))
    print(f"Wrote {here}. Next: cd {here}; pip install --editable .; python -m lightning_ham.fit {arguments.name}.yaml")
    return 0


def write_plugin(name: str, folder: Path) -> None:
    """Write the package for a task called ``name`` into a new or empty folder.

    Raises:
        FileExistsError: If the folder has files.
        ValueError: If a name that the package would register is taken.
    """
    if folder.exists() and (not folder.is_dir() or any(folder.iterdir())):
        raise FileExistsError(f"Expected a new or empty folder to write to, but there are files in {shown(folder)}.")
    known = {
        f"task {name}": task_names(),
        f"controller {name}_controller": controller_names(),
        f"estimator {name}_estimator": attention_modes(),
        f"JOIN {name}_join": join_kinds(),
    }
    for new, names in known.items():
        if new.split()[1] in names:
            raise ValueError(f"Expected a name that is not taken, but there is already a {new}; choose another one.")
    for source in sorted(path for pattern in _FILES for path in TEMPLATE.glob(pattern)):
        target = folder / _renamed(source.relative_to(TEMPLATE).as_posix(), name)
        target.parent.mkdir(parents=True, exist_ok=True)
        target.write_text(_renamed(source.read_text(encoding="utf-8"), name), encoding="utf-8")


def _renamed(text: str, name: str) -> str:
    """Return a text of the template with its name replaced, in the form that each place needs."""
    in_classes = "".join(part.capitalize() for part in name.split("_"))
    text = text.replace(f"ham-{_EXAMPLE}", f"ham-{name.replace('_', '-')}")  # names of packages have no underscores
    return text.replace(_EXAMPLE, name).replace(_EXAMPLE.capitalize(), in_classes)


def _name(text: str) -> str:
    """Return the argument as a name of a task, without a leading ``ham-``."""
    name = text.replace("-", "_").removeprefix("ham_")
    if not re.fullmatch(r"[a-z]([a-z0-9_]{0,38}[a-z0-9])?", name) or "__" in name or keyword.iskeyword(name):
        raise argparse.ArgumentTypeError(
            f"Expected a name of at most 40 lower-case letters, digits and single _ between them, which begins with a "
            f"letter, but got {quoted(text)}"
        )
    return name


if __name__ == "__main__":
    run(main)
