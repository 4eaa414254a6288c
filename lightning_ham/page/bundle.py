"""One classic script made of JavaScript modules, as browsers load no modules from files on disk."""

from __future__ import annotations

import re
from collections.abc import Mapping

_IMPORT = re.compile(r'^import \{ ([\w, ]+) \} from "\./([\w-]+\.js)";$')
_EXPORT = re.compile(r"^export (?:class|const|function\*?) (\w+)")
_EXPORT_AGAIN = re.compile(r"^export \{ ([\w, ]+) \};$")


def bundled(modules: Mapping[str, str], start: str) -> str:
    """Return one script that does what the module ``start`` and those that it imports do.

    Each module becomes a function that returns what the module exports, so that its other names stay its own. Three
    forms are understood, each on a line of its own: ``import { a, b } from "./other.js";``, ``export`` before a class,
    a constant or a function, and ``export { a, b };``.

    Args:
        modules: Sources by names, such as ``tree.js``.
        start: The module to begin with.

    Raises:
        ValueError: If a module has another form of import or export, imports what there is not, or modules import each
            other in a circle.
    """
    done: dict[str, str] = {}
    exports: dict[str, list[str]] = {}

    def add(name: str, path: tuple[str, ...]) -> None:
        if name in path:
            raise ValueError(f"Expected modules without circles, but got {' imports '.join((*path, name))}.")
        if name in done:
            return
        if name not in modules:
            raise ValueError(f"Expected the modules {', '.join(modules)}, but {path[-1]} imports {name}.")
        lines, exports[name] = [], []
        for number, line in enumerate(modules[name].splitlines(), 1):
            place = f"{name}:{number}"
            if found := _IMPORT.match(line):
                add(found[2], (*path, name))
                _expect_exported(found[1], exports[found[2]], found[2], place)
                lines.append(f"const {{ {found[1]} }} = {_variable(found[2])};")
            elif found := _EXPORT_AGAIN.match(line):
                exports[name] += found[1].split(", ")
            elif found := _EXPORT.match(line):
                exports[name].append(found[1])
                lines.append(line.removeprefix("export "))
            elif re.match(r"(import|export)\b", line):
                raise ValueError(f"{place}: Expected an import or export that can be bundled, but got {line!r}.")
            else:
                lines.append(line)
        body = "\n".join([*lines, f"return {{ {', '.join(exports[name])} }};"])
        done[name] = f"// {name}\nconst {_variable(name)} = (() => {{\n{body}\n}})();\n"

    add(start, ())
    return '"use strict";\n(() => {\n' + "\n".join(done.values()) + "})();\n"


def _expect_exported(names: str, exported: list[str], module: str, place: str) -> None:
    for name in names.split(", "):
        if name not in exported:
            raise ValueError(f"{place}: Expected one of {', '.join(exported)} from {module}, but got {name}.")


def _variable(module: str) -> str:
    return "module_" + re.sub(r"\W", "_", module.removesuffix(".js"))
