"""What a job is doing, as a plain sentence: for the page, for `/generate`, `/status` and `/cancel`, and for MCP."""

from uso.web.access.limits import duration
from uso.web.jobs.job import JobStatus, ServerStatus

_STAGES = {"condition": "Reading the prompt and the images", "decode": "Decoding the picture"}


def job_message(status: JobStatus, server: ServerStatus) -> str:
    """What the job is doing, or how it ended, as a sentence."""
    if status.elsewhere:
        doing = "is waiting" if status.state == "queued" else "is being made"
        return f"Another server has it: your picture {doing} there. Ask again, or reload the page, to see it finished."
    if status.state == "queued":
        return _queued(status, server)
    if status.state == "running":
        return _running(status)
    if status.state == "done":
        made = [f"{len(status.pictures)} pictures."] if status.num_images > 1 else []
        return " ".join(["Done.", *made, *status.notes])
    ended = ["Stopped."] if status.state == "cancelled" else []
    kept = [f"{len(status.pictures)} of {status.num_images} pictures were finished before."] if status.pictures else []
    return " ".join([*ended, *filter(None, [status.error]), *kept])


def _queued(status: JobStatus, server: ServerStatus) -> str:
    pictures = status.pictures_ahead
    ahead = {0: "", 1: "One picture is ahead of yours"}.get(pictures, f"{pictures} pictures are ahead of yours")
    if ahead:
        ahead += f", about {duration(status.seconds_to_start)}." if status.seconds_to_start else "."
    if server.state in ("starting", "loading"):
        return f"Waiting for the model ({server.stage}, {server.share:.0%}). {ahead}".strip()
    return ahead or "Your picture is next."


def _running(status: JobStatus) -> str:
    denoising = status.stage == "denoise"
    words = f"Step {status.step} of {status.num_steps}" if denoising else _STAGES.get(status.stage, status.stage)
    if status.num_images > 1 and (status.pictures or status.stage != "condition"):
        words = f"Picture {len(status.pictures) + 1} of {status.num_images}. {words}"
    if not status.seconds_left:  # unknown before the first step is measured, zero once it takes longer than expected
        return words if denoising else f"{words} ..."
    return f"{words}, about {duration(status.seconds_left)} left"
