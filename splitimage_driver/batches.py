"""Several launches at once, each image made from the one the plan names."""

from __future__ import annotations

from collections.abc import Callable, Collection, Iterator, Sequence
from typing import Any, Protocol

import msgspec
from oslo_log import log as logging

from splitimage_driver import exceptions, workers
from splitimage_driver.model.delivery import INJECT, STREAM
from splitimage_driver.model.plan import BatchStep
from splitimage_driver.plans import PlanService
from splitimage_driver.servers import ASSEMBLED, BOOTED, Launched, Wish
from splitimage_driver.workers import Worker

LOG = logging.getLogger(__name__)


class Outcome(msgspec.Struct, frozen=True, kw_only=True):
    """Of one wish: what runs, or why it does not."""

    launched: Launched | None = None
    error: exceptions.SplitImageError | None = None


class Launching(Protocol):
    """One launch, in a process of its own.

    :param tell: to be told the id of the completed image as soon as it is
        there; None where nothing is published
    :param source: id of the image to start from, if that is still there
    """

    def __call__(self, tell: Callable[[str | None], Any], wish: Wish,
                 source: str | None) -> Launched: ...


class BatchService:
    """:param work: can be pickled
    :param parallel: launches at the same time; how many of them assemble is
        for the store's queue to say
    """

    def __init__(self, plans: PlanService, work: Launching, *, parallel: int) -> None:
        self.plans, self.work, self.parallel = plans, work, parallel

    def plan(self, wishes: Sequence[Wish]) -> list[BatchStep]:
        """See :meth:`splitimage_driver.plans.PlanService.batch`. Servers that lay their
        parts while they run are made from no other's image; they come first."""
        streamed = [BatchStep(requests=(number,), source=None, plan=plan, estimate=plan.estimate)
                    for number, wish in enumerate(wishes) if wish.deliver == STREAM
                    for plan in [self.plans.plan(wish.request, growing=True)]]
        order = [number for number, wish in enumerate(wishes) if wish.deliver != STREAM]
        steps = self.plans.batch(
            [msgspec.structs.replace(wishes[n].request, booted=wishes[n].publish == BOOTED)
             for n in order],
            parents=[wishes[n].publish == ASSEMBLED and wishes[n].deliver == INJECT
                     for n in order])
        return streamed + [msgspec.structs.replace(
            step, requests=tuple(order[n] for n in step.requests),
            source=None if step.source is None else order[step.source]) for step in steps]

    def launch(self, wishes: Sequence[Wish]) -> list[Outcome]:
        """Parents before children, independent ones side by side. Where one
        fails, those that were to be made from it are planned again."""
        return _Run(self, wishes).outcomes()


class _Run:
    """:ivar waiting: number of a wish: the one whose image it waits for
    :ivar made: number of a wish whose image is there: its id
    """

    def __init__(self, service: BatchService, wishes: Sequence[Wish]) -> None:
        self.service, self.wishes = service, wishes
        self.waiting: dict[int, int | None] = {}
        self.sources: dict[int, str | None] = {}
        self.made: dict[int, str | None] = {}
        self.running: dict[Worker, int] = {}
        self.found: dict[int, Outcome] = {}

    def outcomes(self) -> list[Outcome]:
        self._plan(range(len(self.wishes)))
        try:
            while self.waiting or self.running:
                for number in self._ready():
                    self._start(number)
                for worker, message in workers.messages(self.running):
                    self._heard(worker, message)
        finally:  # also where this process is told to end
            for worker in self.running:
                worker.end()
            for worker in self.running:
                worker.join()
        return [self.found[number] for number in range(len(self.wishes))]

    def _plan(self, numbers: Collection[int]) -> None:
        """The order of these, from the store as it is now; those that lay their parts
        plan for themselves."""
        streamed = [n for n in numbers if self.wishes[n].deliver == STREAM]
        self.waiting |= dict.fromkeys(streamed)
        order = [n for n in numbers if n not in streamed]
        if not order:
            return
        for step in self.service.plan([self.wishes[number] for number in order]):
            first, *others = (order[number] for number in step.requests)
            self.waiting[first] = None if step.source is None else order[step.source]
            if step.source is None:
                self.sources[first] = step.estimate.candidate.id
            # The same once more: an exact match, unless it is not published.
            for other in others:
                self.waiting[other] = first

    def _ready(self) -> Iterator[int]:
        free = self.service.parallel - len(self.running)
        ready = [number for number, source in self.waiting.items()
                 if source is None or source in self.made]
        yield from ready[:free]

    def _start(self, number: int) -> None:
        before, wish = self.waiting.pop(number), self.wishes[number]
        source = self.sources.get(number) if before is None else self.made[before]
        self.running[Worker(self.service.work, wish, source,
                            title=f"the launch of {_title(wish)}")] = number

    def _heard(self, worker: Worker, message: workers.Message) -> None:
        number = self.running[worker]
        if message.kind == workers.TOLD:
            self.made[number] = message.value
            return
        del self.running[worker]
        worker.join()
        if message.kind == workers.DONE:
            self.found[number] = Outcome(launched=message.value)
            return
        self.found[number] = Outcome(error=message.value)
        if number not in self.made:
            self._again(number)

    def _again(self, failed: int) -> None:
        """Plan those anew that were to be made from one that failed, and
        from those in turn."""
        lost = {failed}
        while more := {n for n, source in self.waiting.items() if source in lost} - lost:
            lost |= more
        lost.remove(failed)
        if not lost:
            return
        for number in lost:
            del self.waiting[number]
        LOG.info("the launch of %s failed: planning %d others again",
                 _title(self.wishes[failed]), len(lost))
        try:
            self._plan(sorted(lost))
        except exceptions.SplitImageError as error:
            self.found |= {number: Outcome(error=error) for number in lost}


def _title(wish: Wish) -> str:
    return wish.name or "+".join((wish.request.composite, *sorted(wish.request.parts)))
