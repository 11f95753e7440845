"""GraphQL texts that readers end in different places: where a comment or a string stops, all of them must agree.

Some take a carriage return alone for the end of a line and some do not, and some look for quotes before they know what
is a comment or a block string (GitLab's does, to mend newlines in strings). No document needs any of it.
"""

from __future__ import annotations

import re
from typing import Final

_TEXTS: Final = re.compile(
    r'"""(?P<block>(?:\\"""|(?!""").)*)"""|"(?P<string>(?:[^"\\\n\r]|\\.)*)"|#(?P<comment>[^\n]*)', re.DOTALL
)
_LONE_RETURN: Final = re.compile(r"\r(?!\n)")
_COLON: Final = re.compile(r"[\s,\ufeff]*:")
"""After a comment, with what stands between tokens and means nothing."""


def find_oddity(text: str) -> str | None:
    """What readers take differently, in words for a person; None where they agree, or where this is no GraphQL.

    Takes time that grows with the length of the text alone.
    """
    if _LONE_RETURN.search(text):
        return "a carriage return without a line feed ends a line for some readers only; send line feeds"
    for found in _TEXTS.finditer(text):
        comment, block, string = found["comment"], found["block"], found["string"]
        if comment is not None:
            if '"' in comment:
                return "a comment holds a quotation mark, which some readers count; take it out"
            if _COLON.match(text, found.end()):
                return "a comment stands before a `:`, where some readers take the two for one; move the comment"
        elif '"' in (block or ""):
            return "a block string holds a quotation mark, which some readers count; send it in a variable"
        elif (string or "").endswith("\\"):
            return "a string ends in a backslash, which some readers take for a quotation mark; send it in a variable"
        elif text.startswith('"', found.end()):
            return "two strings stand side by side, where some readers see one; put a space between them"
    return None
