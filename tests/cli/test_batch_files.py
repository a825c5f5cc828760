"""Batch files: what they say, and what is refused before anything starts."""

from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

from tests.support.commands import Ran, made, refused, requests, save
from uso.cli.main import main


def names(entries: list[dict[str, str]]) -> list[str]:
    return [entry["name"] for entry in entries]


def test_image_paths_are_content_then_styles(run: Callable[..., Ran], draw: Callable[..., str]) -> None:
    """Taken as styles, the first image would be lost as the subject, and all pictures be wrong."""
    a, b, c = (draw(f"{name}.png", seed=seed) for seed, name in enumerate("abc"))
    paths: list[Any] = [[a], [a, b], [a, b, c], ["", b], ["", b, c], [""], [], None]
    ran = run([{"prompt": str(number), "image_paths": path} for number, path in enumerate(paths)] + [{"prompt": "x"}])
    assert ran.status == 0 and len(ran.out) == 9
    got = [(names(request["content_images"]), names(request["style_images"])) for request in requests()]
    empty: tuple[list[str], list[str]] = ([], [])
    assert got == [([a], []), ([a], [b]), ([a], [b, c]), ([], [b]), ([], [b, c]), empty, empty, empty, empty]


def test_every_field_of_a_request_may_be_given(run: Callable[..., Ran], draw: Callable[..., str]) -> None:
    job = {
        "prompt": "a fox 狐狸",
        "width": 144,
        "height": 160,
        "steps": 2,
        "guidance": 1.5,
        "content_size": 80,
        "seed": 5,
        "images": 2,
        "schedule": "flux",
        "tiled_decode": True,
    }
    wide = draw("wide.png", 160, 130)
    kept = {"prompt": "", "image_paths": [wide], "keep_size": True, "seed": None, "steps": None}
    styled = {"prompt": "", "image_paths": ["", wide, wide], "style_strengths": [0.5, 1]}
    assert run([job, kept, styled]).status == 0
    first, second, third, fourth = requests()
    assert (third["style_strengths"], fourth["style_strengths"]) == ([], [0.5, 1.0])
    expected: dict[str, Any] = {
        "width": 144,
        "height": 160,
        "num_inference_steps": 2,
        "guidance_scale": 1.5,
        "content_size": 80,
    }
    expected |= {"prompt": "a fox 狐狸", "schedule": "flux", "tiled_decode": True}
    assert expected.items() <= first.items() and expected.items() <= second.items()
    assert (first["seed"], second["seed"]) == (5, 6)
    assert (third["width"], third["height"], third["keep_input_size"], third["num_inference_steps"]) == (
        160,
        128,
        True,
        1,
    )


def test_flags_give_what_a_job_leaves_out(run: Callable[..., Ran], draw: Callable[..., str]) -> None:
    jobs = [{"prompt": "a"}, {"prompt": "b", "seed": 3, "guidance": 2}]
    assert run(jobs, "--seed", 1, "--guidance", 3, "--output", "one").status == 0
    assert [(request["seed"], request["guidance_scale"]) for request in requests("one")] == [(1, 3.0), (3, 2.0)]
    content = draw("a.png", 160, 130)
    jobs = [{"prompt": "", "image_paths": [content]}, {"prompt": "", "image_paths": [content], "width": 144}]
    main(["generate", "--model", "demo", "--steps", "1", "--keep-size", "--output", "two", "--batch", str(save(jobs))])
    assert [(request["width"], request["keep_input_size"]) for request in requests("two")] == [
        (160, True),
        (144, False),
    ]


def test_paths_start_at_the_file(run: Callable[..., Ran], draw: Callable[..., str], tmp_path: Path) -> None:
    """Started at the current folder, the same file would work from one folder only."""
    Path("jobs/in").mkdir()
    name = draw("in/a.png")
    jobs = [
        {"prompt": "0", "image_paths": [draw("~cat.png")], "save_dir": "~cats"},
        {"prompt": "1", "image_paths": [name], "save_dir": "near"},
        {"prompt": "2", "image_paths": [str(tmp_path / "jobs" / name)], "save_dir": str(tmp_path / "far")},
        {"prompt": "3"},
    ]
    assert run(jobs, "--output", "here").status == 0
    assert [len(made(folder)) for folder in ("jobs/~cats", "jobs/near", "far", "here")] == [1, 1, 1, 1]


@pytest.mark.parametrize(
    ("job", "sentence"),
    [
        ("a fox", 'A job is {"prompt": "...", "image_paths": [...]}, not "a fox".'),
        ({}, 'It has no "prompt". An empty one ("") keeps the layout of its content image.'),
        ({"prompt": None}, 'It has no "prompt".'),
        ({"prompt": 7}, "The prompt must be text, not int."),
        (
            {"prompt": "", "promt": "typo"},
            "There is no 'promt'. The keys of a job are: prompt, image_paths, save_dir, style_strengths, width",
        ),
        ({"prompt": "", "image_paths": "a.png"}, '"image_paths" is a list of paths: the content image (or ""), then'),
        ({"prompt": "", "image_paths": [None, "a.png"]}, '"image_paths" is a list of paths'),
        ({"prompt": "", "image_paths": ["", ""]}, 'Only the first of "image_paths" may be ""'),
        ({"prompt": "", "image_paths": ["nowhere.png"]}, "nowhere.png could not be read (No such file or directory)."),
        ({"prompt": "", "image_paths": ["", "jobs.json"]}, "jobs.json is not a picture this program can read"),
        ({"prompt": "", "image_paths": ["a\0b"]}, "could not be read"),
        ({"prompt": "", "image_paths": ["pole.png"]}, "pole.png is too long and thin: 20 x 300 becomes 4 x 64"),
        ({"prompt": "", "keep_size": True}, "Keep input size needs a content image."),
        ({"prompt": "", "keep_size": "false"}, "Keep input size is 'false'; true or false is allowed."),
        (
            {"prompt": "", "image_paths": ["pole.png"], "keep_size": True, "width": 128},
            '"keep_size" takes the size from the content image: leave out "width" and "height".',
        ),
        ({"prompt": "", "style_strengths": [1]}, "Style strengths and style images: 1 and 0."),
        ({"prompt": "", "width": 100}, "Width is 100; a whole number from 128 to 256 is allowed."),
        ({"prompt": "", "seed": "7"}, "Seed is '7'; 0 to 4294967295 is allowed"),
        ({"prompt": "", "seed": 10**400}, "0 to 4294967295 is allowed"),
        ({"prompt": "", "images": 0}, "Number of images is 0; a whole number from 1 to 64 is allowed."),
        ({"prompt": "", "save_dir": 7}, '"save_dir" is 7; a folder is needed.'),
        ({"prompt": "", "save_dir": "jobs.json"}, "Pictures cannot be written to jobs/jobs.json (File exists)."),
    ],
    ids=lambda value: str(value)[:50] if isinstance(value, dict) else "",
)
def test_a_bad_job_is_named_by_its_number_before_anything_starts(
    run: Callable[..., Ran], draw: Callable[..., str], nothing_loads: None, job: Any, sentence: str
) -> None:
    draw("pole.png", 20, 300)
    lines = refused(run([{"prompt": "good"}, job]))
    assert lines[0] == "jobs/jobs.json: 1 of 2 jobs refused, nothing was started."
    assert lines[1].startswith("Job 2: ") and sentence in lines[1] and len(lines) == 2


def test_all_bad_jobs_are_named_at_once(run: Callable[..., Ran], nothing_loads: None) -> None:
    """One per attempt would cost as many attempts as there are mistakes."""
    jobs = [{"prompt": "", "steps": steps} for steps in (1, 0, 2, 51, 3, 99)]
    lines = refused(run(jobs))
    assert lines[0] == "jobs/jobs.json: 3 of 6 jobs refused, nothing was started."
    assert [line.split(":")[0] for line in lines[1:]] == ["Job 2", "Job 4", "Job 6"]


@pytest.mark.parametrize(
    ("text", "sentence"),
    [
        ("[{]", "The batch file jobs/jobs.json is not JSON: Expecting property name"),
        ("", "The batch file jobs/jobs.json is not JSON: "),
        ("[" * 100_000, "The batch file jobs/jobs.json is not JSON: "),
        ("[]", "The batch file jobs/jobs.json must hold a list of one or more jobs"),
        ('{"prompt": "a"}', "The batch file jobs/jobs.json must hold a list of one or more jobs"),
    ],
    ids=["broken", "empty", "deep", "no jobs", "no list"],
)
def test_files_that_are_no_batch(run: Callable[..., Ran], nothing_loads: None, text: str, sentence: str) -> None:
    (line,) = refused(run(text))
    assert line.startswith(sentence)


def test_a_file_from_windows_is_read(run: Callable[..., Ran]) -> None:
    """Editors there put a byte order mark at the beginning."""
    assert run('\ufeff[{"prompt": "a"}]').status == 0


@pytest.mark.parametrize("flag", ["--prompt", "--content", "--style", "--style-strength"])
def test_flags_that_every_job_has_itself_are_refused(run: Callable[..., Ran], nothing_loads: None, flag: str) -> None:
    (line,) = refused(run([{"prompt": "a"}], flag, "1"))
    assert line == f"{flag} cannot go with --batch: every job of the file has its own."


def test_one_output_file_is_refused(run: Callable[..., Ran], nothing_loads: None) -> None:
    (line,) = refused(run([{"prompt": "a"}], "--output", "a.png"))
    assert line.startswith("--output a.png names one file, which cannot hold several pictures.")


def test_a_batch_file_of_windows_is_read_or_refused_with_the_remedy(
    run: Callable[..., Ran], uso: Callable[..., Ran]
) -> None:
    """Notepad writes a mark, PowerShell UTF-16: catches "not JSON" for a file that looks well to its owner."""
    path = save([{"prompt": "a fox 狐狸"}])
    data = path.read_text(encoding="utf-8")
    path.write_bytes(data.encode("utf-8-sig"))
    batch = ("generate", "--model", "demo", "--steps", 1, "--batch", path)
    assert uso(*batch).status == 0 and requests("outputs")[0]["prompt"] == "a fox 狐狸"
    for encoding in ("utf-16", "utf-16-le", "utf-32"):
        path.write_bytes(data.encode(encoding))
        ran = uso(*batch)
        assert (ran.status, ran.out) == (2, [])
        assert "is not UTF-8 text. Save it as UTF-8." in ran.err and ran.err.count("\n") == 1


def test_workers_are_for_batches(uso: Callable[..., Ran], run: Callable[..., Ran], nothing_loads: None) -> None:
    """Catches `--workers` that is not obeyed: the picture would be made here, and nobody told."""
    (line,) = refused(uso("generate", "--model", "demo", "--prompt", "a", "--workers", "local-ray:2"))
    assert line.endswith("--workers goes with --batch FILE. A single request is made here, or with --server by a page.")
    (line,) = refused(run([{"prompt": "a"}], "--workers", "local-ray:2000"))
    assert line.endswith("2000 workers are asked for; 1 to 1024 are allowed.")
