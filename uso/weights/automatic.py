"""What `auto` means here, found without torch as far as that goes, and the reason as a sentence.

The page, the command line and every picture's record give the same reason.
"""

import argparse
from collections.abc import Callable

from uso.config import ModelConfig, load_model_config
from uso.errors import RequestError
from uso.language import Text
from uso.weights.flags import AUTO, AUTO_MODEL, named_files, own_files

FALLBACK_MODEL = "demo"


def automatic_model(
    args: argparse.Namespace, device: str, check: Callable[[ModelConfig], object] = lambda config: None
) -> tuple[ModelConfig, str]:
    """The model that `auto` is on a device, and why. torch is imported only if there are weights to run.

    Args:
        check: refuses a request that a model cannot run; called before torch is imported.

    Raises:
        ConfigError: flags name files that the model which can run has no use for.
        RequestError: raised by `check` for every model that may be chosen.
    """
    wanted, named = own_files(load_model_config(AUTO_MODEL), args), named_files(args)
    reason = why_not(wanted, device)
    if reason is not None and not named:
        config, sentence = fallback(reason)
        check(config)
        return config, sentence
    _check_either(check, wanted)
    from uso.weights.choices import choose_model

    return choose_model(AUTO, device, named, lambda model: own_files(model, args))


def _check_either(check: Callable[[ModelConfig], object], wanted: ModelConfig) -> None:
    try:
        check(wanted)
    except RequestError:
        try:
            check(load_model_config(FALLBACK_MODEL))
        except RequestError:
            pass
        else:
            return
        raise


def why_not(config: ModelConfig, device: str) -> str | None:
    """Why `auto` does not run a model, as far as that is known without torch; no full stop."""
    if device == "cpu":
        return Text("The CPU was requested, and {} needs a GPU", config.title)
    from uso.weights.hub.files import missing

    absent = missing(config)
    if absent:
        if len(absent) == len(config.components):
            return Text("The weights of {} are not on this disk", config.title)
        return Text("The weights of {} are not on this disk ({} missing)", config.title, ", ".join(absent))
    return None


def fallback(reason: str) -> tuple[ModelConfig, str]:
    """The demo, and why it runs."""
    return load_model_config(FALLBACK_MODEL), Text("{}, so the demo model draws this.", reason)
