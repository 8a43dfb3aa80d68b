"""Tables that are rendered from the classes, so that they cannot drift."""

from __future__ import annotations

import re
from collections.abc import Iterable, Iterator
from typing import Any

from docutils import nodes
from docutils.parsers.rst import Directive
from docutils.statemachine import StringList

from splitimage_driver import conf, exceptions
from splitimage_driver.capture import identity
from splitimage_driver.conf import hosted


class _Table(Directive):
    has_content = False
    heads: tuple[str, ...] = ()

    def rows(self) -> Iterable[tuple[str, ...]]:
        raise NotImplementedError

    def run(self) -> list[nodes.Node]:
        lines = [".. list-table::", "   :header-rows: 1", ""]
        for row in (self.heads, *self.rows()):
            for number, cell in enumerate(row):
                first, *more = cell.splitlines() or [""]
                lines += [f"   {'  -' if number else '* -'} {first}",
                          *(f"       {line}".rstrip() for line in more)]
        parent = nodes.section()
        parent.document = self.state.document
        self.state.nested_parse(StringList(lines, self.name), self.content_offset, parent)
        return list(parent.children)


def _readable(template: str) -> str:
    """A message template with its fields as words."""
    return re.sub(r"%\((\w+)\)[sd]", lambda field: field[1].upper(), template)


class ExitCodes(_Table):
    heads = ("code", "error", "message", "what to do")

    def rows(self) -> Iterator[tuple[str, ...]]:
        def below(base: type[Any]) -> Iterator[type[Any]]:
            for sub in base.__subclasses__():
                yield sub
                yield from below(sub)

        found = {error for error in below(exceptions.SplitImageError)
                 if error.__module__ == exceptions.__name__}
        for error in sorted(found, key=lambda e: (e.exit_code, e.__name__)):
            yield (str(error.exit_code), error.__name__, f"``{_readable(error.message)}``",
                   f"``{_readable(error.hint)}``")


class IdentityRules(_Table):
    heads = ("path", "kind", "in the base", "made again by")

    def rows(self) -> Iterator[tuple[str, ...]]:
        does = {identity.REMOVE: "absent", identity.EMPTY: "empty", identity.KEEP: "kept"}
        for rule in identity.RULES:
            yield (f"``{rule.pattern}``", rule.kind, does[rule.action],
                   f"``{rule.maker}``" if rule.maker else "")


class OptionTable(_Table):
    """The options of a group; of the ``scheduler``; of every service (``hosted``)."""

    heads = ("option", "default", "")
    required_arguments = 1

    def rows(self) -> Iterator[tuple[str, ...]]:
        groups = {**dict(conf.list_opts()), "scheduler": hosted.SCHEDULER_OPTS,
                  "hosted": hosted.OPTS}
        options = groups[self.arguments[0]]
        for option in options:
            default = "" if option.default in (None, "") else f"``{option.default}``"
            yield f"``{option.name}``", default, option.help


def setup(app: Any) -> dict[str, Any]:
    app.add_directive("exit-codes", ExitCodes)
    app.add_directive("identity-rules", IdentityRules)
    app.add_directive("option-table", OptionTable)
    return {"version": "1", "parallel_read_safe": True}
