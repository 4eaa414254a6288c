"""Objects by name: the built-in ones and those that other packages register by entry points."""

from __future__ import annotations

import sys
import warnings
from collections.abc import Callable, Mapping
from functools import lru_cache
from importlib import metadata
from importlib.metadata import EntryPoint, EntryPoints
from typing import Any, Generic, TypeVar, cast

from lightning_ham import __version__
from lightning_ham.foreign import closest_to, quoted, shown

T = TypeVar("T")


class PluginError(ImportError):
    """Another package registers a name, but what it registers cannot be used."""


def entry_points(group: str, name: str | None = None) -> EntryPoints:
    """Return the entry points of a group; reads the metadata of installed packages once per `sys.path`."""
    points = _read(tuple(sys.path), group)
    return points if name is None else points.select(name=name)


@lru_cache(maxsize=16)
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
        base: The class that objects of other packages must be derived from; without it, they must be callable.
        makes: The class of what they must make when they are called.
    """

    def __init__(
        self,
        kind: str,
        built_in: Mapping[str, T | str],
        group: str,
        base: type[Any] | None = None,
        makes: type[Any] | None = None,
    ) -> None:
        self._kind = kind
        self._built_in = dict(built_in)
        self._group = group
        self._base = base
        self._makes = makes

    def names(self) -> list[str]:
        """Return all known names in alphabetical order, without importing the objects."""
        return sorted({*self._built_in, *entry_points(group=self._group).names})

    def get(self, name: str) -> T:
        """Return the object called `name`.

        A built-in object wins over an entry point of the same name, with a warning.

        Raises:
            ValueError: If the name is unknown, or if several entry points claim it.
            PluginError: If the entry point of that name cannot be loaded, is of a package for another version of
                lightning_ham, or is no such object.
        """
        plugins = {plugin.value: plugin for plugin in entry_points(group=self._group, name=name)}
        if name in self._built_in:
            if plugins:
                verb = "registers" if len(plugins) == 1 else "register"
                warnings.warn(
                    f"The built-in {self._kind} {name!r} is used; {_listed(plugins)} {verb} the same name "
                    f"in the entry-point group {self._group!r} and needs another one to be reached",
                    stacklevel=1,  # this line, so that Python shows the same text once
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
        return self._load(plugin)

    def make(self, name: str, *args: Any, **options: Any) -> Any:
        """Call the object called `name`; return what it makes.

        Args:
            name: The name.
            *args: Its arguments.
            **options: Its keyword arguments.

        Raises:
            PluginError: If another package's object makes something of a wrong class, or fails without any argument.
        """
        maker = cast(Callable[..., Any], self.get(name))
        if name in self._built_in:
            return maker(*args, **options)
        what = self._makes.__name__ if self._makes else self._kind
        try:
            made = maker(*args, **options)
        except Exception as error:
            if args or options:  # they may be wrong
                raise
            raise PluginError(
                f"Expected a {what} from {self.origin(name)}, but got: {type(error).__name__}: {shown(error)}"
            ) from error
        if self._makes and not isinstance(made, self._makes):
            raise PluginError(f"Expected a {what} from {self.origin(name)}, but got {quoted(made)}")
        return made

    def origin(self, name: str) -> str:
        """Return where the object called `name` comes from, for messages."""
        for plugin in entry_points(group=self._group, name=name):
            if name not in self._built_in:
                return f"the entry point {_described(plugin)}"
        return "lightning_ham"

    def _load(self, plugin: EntryPoint) -> T:
        here = f"the {self._kind} {plugin.name!r} from the entry point {_described(plugin)}"
        wanted = _unmet(plugin)
        if wanted:
            raise PluginError(
                f"Expected to load {here}, but that package is for lightning_ham {wanted}, and this is {__version__}. "
                "Install versions that fit each other"
            )
        try:
            value = plugin.load()
        except (Exception, SystemExit) as error:  # whatever its module does when it is imported
            kind = "" if isinstance(error, ImportError | AttributeError) else f"{type(error).__name__}: "
            raise PluginError(f"Expected to load {here}, but got: {kind}{shown(error)}") from error
        if self._base is not None and not (isinstance(value, type) and issubclass(value, self._base)):
            base = f"{self._base.__module__}.{self._base.__qualname__}"
            raise PluginError(f"Expected {here} to be a class derived from {base}, but got {_named(value)}")
        if not callable(value):
            raise PluginError(f"Expected {here} to be a class or a function, but got {_named(value)}")
        return cast(T, value)

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


def _unmet(plugin: EntryPoint) -> str | None:
    """Return the versions of lightning_ham that a plugin's package asks for, unless this is one of them."""
    from packaging.requirements import InvalidRequirement, Requirement
    from packaging.utils import canonicalize_name

    for text in (plugin.dist.requires or ()) if plugin.dist else ():
        try:
            requirement = Requirement(text)
        except InvalidRequirement:
            continue
        is_ours = canonicalize_name(requirement.name) == "lightning-ham"
        applies = requirement.marker is None or requirement.marker.evaluate({"extra": ""})
        if is_ours and applies and not requirement.specifier.contains(__version__, prereleases=True):
            return str(requirement.specifier)
    return None


def _described(plugin: EntryPoint) -> str:
    """Return an entry point's value, and the package that has it, for messages."""
    package = f" of {shown(plugin.dist.name)} {shown(plugin.dist.version)}" if plugin.dist else ""
    return f"{shown(plugin.value)!r}{package}"


def _named(value: object) -> str:
    """Return a class's or function's name, or another object in short."""
    return f"{value.__module__}.{value.__qualname__}" if isinstance(value, type) else quoted(value)


def _listed(plugins: Mapping[str, EntryPoint]) -> str:
    return " and ".join(_described(plugins[value]) for value in sorted(plugins))
