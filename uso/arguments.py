"""Flags of every entry point: argparse, with a suggestion where a word is misspelt."""

import argparse
import difflib
import re
import sys
from collections.abc import Sequence
from typing import Any, NoReturn

_CHOICE = re.compile(r"(?P<before>.*)invalid choice: '(?P<given>.*)' \(choose from (?P<allowed>.*)\)", re.DOTALL)


class Parser(argparse.ArgumentParser):
    """An argument parser that takes no abbreviations, lets flags stand before, between and behind other words, and says
    what was probably meant. Its verbs' parsers do too."""

    def __init__(self, *args: Any, **options: Any) -> None:
        super().__init__(*args, **{"allow_abbrev": False} | options)
        self._between_flags = False

    def parse_known_args(self, args: Any = None, namespace: Any = None) -> Any:
        """Python's own takes the words before the first flag for all words."""
        words = [action for action in self._actions if not action.option_strings]
        if not words or self._between_flags or any(action.nargs == argparse.PARSER for action in words):
            return super().parse_known_args(args, namespace)
        self._between_flags = True
        try:
            return self.parse_known_intermixed_args(args, namespace)  # calls this again
        finally:
            self._between_flags = False

    def parse_args(  # type: ignore[override]  # argparse has it in overloads
        self, args: Sequence[str] | None = None, namespace: Any = None
    ) -> Any:
        given = list(sys.argv[1:] if args is None else args)
        found, unknown = self.parse_known_args(given, namespace)
        if unknown:
            verb = self._verb(given)
            flags = [word for word in unknown if word.startswith("-") and word != "--"]  # their values follow them
            verb.error(" ".join(dict.fromkeys(verb._unknown(word) for word in flags or unknown)))
        return found

    def error(self, message: str) -> NoReturn:
        """Refuse in a sentence, with exit status 2."""
        match = _CHOICE.fullmatch(message)
        if match:
            allowed = [word.strip("' ") for word in match["allowed"].split(",")]
            meant = suggestion(match["given"], allowed)
            message = f"{match['before']}there is no '{match['given']}'.{meant} Choose from {', '.join(allowed)}."
        self.exit(2, f"{self.prog}: {message} (--help lists everything)\n")

    def _verb(self, given: Sequence[str]) -> "Parser":
        """The parser of the verb that the words name."""
        parser: Parser = self
        for word in given:
            for action in parser._actions:
                if isinstance(action, argparse._SubParsersAction) and word in action.choices:
                    parser = action.choices[word]
        return parser

    def _unknown(self, word: str) -> str:
        flag = word.partition("=")[0]
        if not flag.startswith("-"):
            return f"'{word}' is one word too many: put text with spaces in quotation marks."
        return f"There is no {flag}.{suggestion(flag, list(self._option_string_actions))}"


def suggestion(word: str, allowed: Sequence[str]) -> str:
    """ " Did you mean ...?" if one of the allowed words is like it, else nothing."""
    like = difflib.get_close_matches(word, allowed, n=1)
    return f" Did you mean {like[0]}?" if like else ""
