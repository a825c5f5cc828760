"""What a job is doing, as a plain sentence: for the page, for `/generate`, `/status` and `/cancel`, and for MCP."""

from uso.language import Text, joined
from uso.web.access.limits import duration
from uso.web.jobs.job import JobStatus, ServerStatus

_STAGES = {"condition": Text("Reading the prompt and the images"), "decode": Text("Decoding the picture")}


def job_message(status: JobStatus, server: ServerStatus) -> str:
    """What the job is doing, or how it ended, as a sentence."""
    made, wanted = len(status.pictures), status.num_images
    if status.elsewhere:
        doing = Text("is waiting") if status.state == "queued" else Text("is being made")
        return Text(
            "Another server has it: your picture {} there. Ask again, or reload the page, to see it finished.", doing
        )
    if status.state == "queued":
        return _queued(status, server)
    if status.state == "running":
        return _running(status)
    if status.state == "done":
        return joined(Text("Done."), Text("{} pictures.", made) if wanted > 1 else "", *status.notes)
    ended = Text("Stopped.") if status.state == "cancelled" else ""
    kept = Text("Finished before: {} of {} pictures.", made, wanted) if status.pictures else ""
    return joined(ended, status.error, kept)


def _queued(status: JobStatus, server: ServerStatus) -> str:
    ahead = _ahead(status)
    if server.state in ("starting", "loading"):
        loading = Text("Waiting for the model ({}, {:.0%}).", server.stage, server.share)
        return joined(loading, ahead)
    return ahead or Text("Your picture is next.")


def _ahead(status: JobStatus) -> str:
    pictures, seconds = status.pictures_ahead, status.seconds_to_start
    if not pictures:
        return ""
    if not seconds:
        one, several = Text("One picture is ahead of yours."), Text("{} pictures are ahead of yours.", pictures)
    else:
        one = Text("One picture is ahead of yours, about {}.", duration(seconds))
        several = Text("{} pictures are ahead of yours, about {}.", pictures, duration(seconds))
    return one if pictures == 1 else several


def _running(status: JobStatus) -> str:
    denoising = status.stage == "denoise"
    step = Text("Step {} of {}", status.step, status.num_steps)
    words: str = step if denoising else _STAGES.get(status.stage, status.stage)
    if status.num_images > 1 and (status.making > 1 or status.stage != "condition"):
        words = Text("Picture {} of {}. {}", status.making, status.num_images, words)
    if not status.seconds_left:  # unknown before the first step is measured, zero once it takes longer than expected
        return words if denoising else Text("{} ...", words)
    return Text("{}, about {} left", words, duration(status.seconds_left))
