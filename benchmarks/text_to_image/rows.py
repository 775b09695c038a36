"""Rows of measures: for each setting its batches, drawn by several processes where they are not kept, and what is seen in them."""

from collections.abc import Callable, Hashable, Iterable, Mapping
from concurrent.futures import ProcessPoolExecutor, as_completed
from multiprocessing import get_context

from tqdm import tqdm

from . import kept
from .drawing import Setting
from .kept import BATCH, Job, seen
from .measures import compare, measure, real


def processes(count: int, quick: bool) -> ProcessPoolExecutor:
    """So many, ready for jobs; this one, too. quick: apart from what a trained judge has seen, and anew."""
    kept.start(quick)
    if quick:
        kept.forget()
    return ProcessPoolExecutor(count, get_context("spawn"), kept.start, (quick,))


def in_turn(workers: ProcessPoolExecutor, work: Callable, arguments: Iterable, name: str) -> list:
    """work of each argument, in their order."""
    waiting = [workers.submit(work, argument) for argument in arguments]
    for done in tqdm(as_completed(waiting), desc=name, total=len(waiting)):
        done.result()
    return [one.result() for one in waiting]


def measured(
    workers: ProcessPoolExecutor, regime: str, settings: Mapping[Hashable, Setting], batches: int, steps: int, name: str,
    *, prompted: bool = True, baseline: Hashable = None, purpose: str = "test",
) -> dict[Hashable, dict[str, dict[str, float]]]:  # fmt: skip
    """The measures of so many batches of each setting, of a purpose's captions and noise. With a baseline, one of the settings, they have standard errors, and
    differences from it."""
    jobs = [Job(regime, s, purpose, number, steps, prompted) for number in range(batches) for s in settings.values()]
    in_turn(workers, Job.do, [job for job in jobs if not job.file.exists()], name)
    reference = real(batches * BATCH, "text to image, reference", held_out=prompted)
    drawn = {key: seen(regime, setting, purpose, batches, steps, prompted) for key, setting in settings.items()}
    if baseline is not None:
        return compare(reference, drawn, baseline)
    return {
        key: {name: {"value": value} for name, value in measure(reference, of).items()} for key, of in drawn.items()
    }
