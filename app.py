"""The program in a browser: flags -> port open -> page built behind it -> the model loads behind that.

`python app.py`, then open http://127.0.0.1:7860. Wrong flags, a taken port and an output folder that cannot be written
to are refused here, before anything heavy is imported. What this file imports at its top is all that stands between
the start of the process and its first answer.
"""

import argparse
import logging
import os
import sys
import tempfile
from pathlib import Path
from typing import TYPE_CHECKING

from uso.config import ModelConfig, load_model_config, with_local_files
from uso.errors import USOError
from uso.flags import AUTO, add_model_flags, check_model_flags, load_options, model_files
from uso.output import check_folder
from uso.web.port import listen, reserve
from uso.web.settings import ServerSettings

if TYPE_CHECKING:
    from uso.pipeline import USOPipeline
    from uso.web.boot import Site
    from uso.web.jobs import OnProgress

logger = logging.getLogger("uso")

REFUSED = 2
"""Exit status where a flag is wrong; argparse's own."""


def parser() -> argparse.ArgumentParser:
    made = argparse.ArgumentParser(prog="app.py", description="USO in a browser.", allow_abbrev=False)
    group = made.add_argument_group("server")
    group.add_argument("--host", default="127.0.0.1", help="address to listen on; 0.0.0.0 lets other machines in")
    group.add_argument("--port", type=int, default=7860)
    group.add_argument(
        "--root-path", default=os.environ.get("ROOT_PATH"), metavar="PATH", help="where a proxy shows it"
    )
    group.add_argument(
        "--bind-when-ready",
        action="store_true",
        help="refuse connections until the model is loaded, instead of showing how far it is",
    )
    group.add_argument("--output", type=Path, default=Path("outputs"), metavar="FOLDER", help="for finished pictures")
    add_model_flags(made)
    return made


def main() -> int:
    args = parser().parse_args()
    try:
        named = check_model_flags(args)
        check_folder(args.output)
        serve(args, named, server_settings(args))
    except USOError as error:
        print(f"app.py: {error}", file=sys.stderr)
        return REFUSED
    except KeyboardInterrupt:  # uvicorn raises it again after it has ended in order
        # A thread may still be importing or loading, in C++ that aborts where the interpreter is taken down around it.
        logging.shutdown()
        os._exit(0)
    return 0


def server_settings(args: argparse.Namespace) -> ServerSettings:
    """What the flags say about the server."""
    return ServerSettings(
        output=args.output.resolve(),
        host=args.host,
        port=args.port,
        root_path=args.root_path or "",
        bind_when_ready=args.bind_when_ready,
    )


def serve(args: argparse.Namespace, named: ModelConfig | None, settings: ServerSettings) -> None:
    """Open the port (or only take it), then build the page and let the model load behind it."""
    logging.basicConfig(level=logging.INFO, format="%(asctime)s %(levelname)s %(name)s: %(message)s")
    for chatty in ("uvicorn", "httpx"):
        logging.getLogger(chatty).setLevel(logging.WARNING)
    listener = (reserve if settings.bind_when_ready else listen)(settings.host, settings.port)
    os.environ["GRADIO_ANALYTICS_ENABLED"] = "False"
    os.environ["GRADIO_ANALYTICS_CACHE_FREQUENCY"] = str(10**9)  # else a table of all calls so far, after every call
    os.environ.setdefault("HF_HUB_DISABLE_TELEMETRY", "1")

    from uso.web.boot import Front
    from uso.web.process import Server

    front = Front(lambda: build(args, named, settings), hold=settings.bind_when_ready)
    Server(front, grace=settings.grace, scratch=private_uploads()).run(sockets=[listener])


def build(args: argparse.Namespace, named: ModelConfig | None, settings: ServerSettings) -> "Site":
    """The page; called in a thread of its own, where the seconds of importing Gradio hold no answer up."""
    config, reason = (named, f"It was asked for by --model {args.model}.") if named else automatic_model(args)
    logger.info("%s. %s", config.title, reason)

    from uso.web.desk import Desk
    from uso.web.engine import Engine
    from uso.web.page import build_page
    from uso.web.server import build_app, build_site

    engine = Engine(lambda on_progress: load(args, config, on_progress), settings)
    app = build_app(engine, build_page(Desk(config, engine), reason), settings.root_path or None, settings.grace)
    return build_site(app, engine, settings.grace)


def private_uploads() -> Path | None:
    """Let Gradio keep uploads in a folder of this process alone; returned if it is new, and so to be removed."""
    if os.environ.get("GRADIO_TEMP_DIR"):
        return None
    folder = Path(tempfile.mkdtemp(prefix="uso-page-"))
    os.environ["GRADIO_TEMP_DIR"] = str(folder)
    return folder


def automatic_model(args: argparse.Namespace) -> tuple[ModelConfig, str]:
    """What `auto` means here, and why. torch is asked about the device only if there are weights to run on it."""
    from uso import hub

    wanted = with_local_files(load_model_config("flux-dev"), model_files(args))
    absent = hub.missing(wanted)
    if absent:
        return load_model_config("demo"), f"The weights of {wanted.title} are not on this disk."
    from uso.choices import choose_model

    return choose_model(AUTO, device=args.device, files=model_files(args))


def load(args: argparse.Namespace, config: ModelConfig, on_progress: "OnProgress") -> "USOPipeline":
    """The pipeline; called in the engine's thread, where the seconds of importing torch hold nobody up."""
    from uso.loading import load_pipeline

    return load_pipeline(config, **load_options(args), on_progress=on_progress)


if __name__ == "__main__":
    sys.exit(main())
