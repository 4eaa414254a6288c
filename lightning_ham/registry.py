"""Objects by name: the built-in ones and those that other packages register by entry points."""

import sys
import warnings
from collections.abc import Mapping
from functools import lru_cache
from importlib import metadata
from importlib.metadata import EntryPoint, EntryPoints
from typing import Generic, TypeVar, cast

from lightning_ham.foreign import closest_to, quoted, shown

T = TypeVar("T")


def entry_points(group: str, name: str | None = None) -> EntryPoints:
    """Return the entry points of a group; reads the metadata of installed packages once per `sys.path`."""
    points = _read(tuple(sys.path), group)
    return points if name is None else points.select(name=name)


@lru_cache(maxsize=8)
def _read(path: tuple[str, ...], group: str) -> EntryPoints:
    return metadata.entry_points(group=group)


class Registry(Generic[T]):
    """A mapping from names to objects that imports an object only when its name is looked up.

    >>> shapes = Registry("shape", {"square": "math:pow", "circle": 3.14}, group="geometry.shapes")
    >>> shapes.get("square")(2, 2)
    4.0
    >>> shapes.get("sqaure")
    Traceback (most recent call last):
        ...
    ValueError: Unknown shape 'sqaure'; did you mean 'square'? Known shapes: circle, square

    Args:
        kind: What an object is, for messages, such as "task".
        built_in: The package's own objects by name, or "module:attribute" to import them from.
        group: The entry-point group in which other packages register theirs.
    """

    def __init__(self, kind: str, built_in: Mapping[str, T | str], group: str) -> None:
        self._kind = kind
        self._built_in = dict(built_in)
        self._group = group

    def names(self) -> list[str]:
        """Return all known names in alphabetical order, without importing the objects."""
        return sorted({*self._built_in, *entry_points(group=self._group).names})

    def get(self, name: str) -> T:
        """Return the object called `name`.

        A built-in object wins over an entry point of the same name, with a warning.

        Raises:
            ValueError: If the name is unknown, or if several entry points claim it.
            ImportError: If the entry point of that name cannot be loaded.
        """
        plugins = {plugin.value: plugin for plugin in entry_points(group=self._group, name=name)}
        if name in self._built_in:
            if plugins:
                warnings.warn(
                    f"The built-in {self._kind} {name!r} is used; {_listed(plugins)} registers the same name "
                    f"in the entry-point group {self._group!r} and needs another one to be reached",
                    stacklevel=2,
                )
            return self._load_built_in(name)
        if not plugins:
            raise ValueError(self._unknown(name))
        if len(plugins) > 1:
            raise ValueError(
                f"Expected one {self._kind} {name!r} in the entry-point group {self._group!r}, "
                f"but got {_listed(plugins)}; uninstall all but one of these packages"
            )
        (plugin,) = plugins.values()
        try:
            return cast(T, plugin.load())
        except (ImportError, AttributeError) as error:
            raise ImportError(
                f"Expected to load the {self._kind} {name!r} from the entry point {plugin.value!r}, but got: "
                f"{shown(error)}"
            ) from error

    def _load_built_in(self, name: str) -> T:
        built_in = self._built_in[name]
        if isinstance(built_in, str):
            return cast(T, EntryPoint(name=name, value=built_in, group=self._group).load())
        return built_in

    def _unknown(self, name: str) -> str:
        names = self.names()
        closest = closest_to(name, names)
        hint = f"; did you mean {closest!r}?" if closest else "."
        return f"Unknown {self._kind} {quoted(name)}{hint} Known {self._kind}s: {', '.join(names)}"


def _listed(plugins: Mapping[str, EntryPoint]) -> str:
    return " and ".join(repr(value) for value in sorted(plugins))
