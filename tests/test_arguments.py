"""Wrong flags are refused in a sentence that says what was probably meant."""

import pytest

from uso.arguments import Parser


def parser() -> Parser:
    made = Parser(prog="uso")
    verbs = made.add_subparsers(title="verbs", metavar="VERB", required=True)
    verb = verbs.add_parser("generate")
    verb.add_argument("--prompt")
    verb.add_argument("--speed", choices=("exact", "fast"))
    verb.add_argument("--width", type=int)
    verbs.add_parser("models")
    words = verbs.add_parser("train")
    words.add_argument("config")
    words.add_argument("overrides", nargs="*")
    words.add_argument("--dry-run", action="store_true")
    return made


@pytest.mark.parametrize(
    ("argv", "says"),
    [
        ("generate --promt x", "uso generate: There is no --promt. Did you mean --prompt? (--help"),
        ("generate --promt=x", "There is no --promt. Did you mean --prompt?"),
        ("generate --prompt a red fox", "'red' is one word too many: put text with spaces in quotation marks."),
        ("generate --zzz", "uso generate: There is no --zzz. (--help"),
        ("genrate", "there is no 'genrate'. Did you mean generate?"),
        ("generate --speed fats", "there is no 'fats'. Did you mean fast?"),
        ("generate --width x", "invalid int value: 'x'"),
        ("", "required"),
        ("generate --pro x", "There is no --pro."),
        ("train stage1 --dryrun a=1", "uso train: There is no --dryrun. Did you mean --dry-run?"),
        ("train --dry-run", "the following arguments are required: config"),
    ],
)
def test_it_says_what_was_meant(argv: str, says: str, capsys: pytest.CaptureFixture[str]) -> None:
    with pytest.raises(SystemExit) as stopped:
        parser().parse_args(argv.split())
    (line,) = capsys.readouterr().err.splitlines()
    assert stopped.value.code == 2 and says in line


def test_what_is_right_is_parsed() -> None:
    assert parser().parse_args(["generate", "--prompt", "models", "--speed", "fast"]).prompt == "models"


@pytest.mark.parametrize("argv", ["stage1 a=1 b=2 --dry-run", "stage1 --dry-run a=1 b=2", "--dry-run stage1 a=1 b=2"])
def test_words_may_stand_behind_a_flag(argv: str) -> None:
    """Catches `train stage1 --dry-run data.rows=FILE`, refused for its last word."""
    found = parser().parse_args(["train", *argv.split()])
    assert (found.config, found.overrides, found.dry_run) == ("stage1", ["a=1", "b=2"], True)
