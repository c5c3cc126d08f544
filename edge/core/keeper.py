"""Memory of one session, kept under its plan's budget: measured, given up step by step, paged out.

Owns: phases and their peaks, what happens when memory runs out, where paged tensors lie.
Does not know: documents, learning, what the memory is used for.
Units: bytes.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator
from contextlib import contextmanager
from typing import TypeVar

from ..errors import BudgetError, describe
from ..machine.allocator import release_memory, trim
from ..machine.device import Device
from ..machine.held import PeakMeter, capped, is_out_of_memory
from ..memory.budget import Plan
from ..model.forward import Cache, Forward
from ..store import sources
from ..values.amounts import format_bytes
from ..weights.paging import outside

Result = TypeVar("Result")


class Keeper:
    """Keeps what one session holds under its plan's budget.

    Attributes:
        plan: what holds now; a tighter one than at the beginning, where memory ran out.
        meter: what was held, phase by phase.
        pages: where paged tensors lie.
    """

    def __init__(self, device: Device, plan: Plan, settle: Callable[[Plan], None]) -> None:
        """`settle`: gives up what a tighter plan has no room for."""
        self.device = device
        self.plan = plan
        self.meter = PeakMeter(device)
        self.pages = outside(device, sources.pages_folder())
        self._settle = settle

    @contextmanager
    def phase(self, name: str) -> Iterator[None]:
        """Measures the peak inside the block, and keeps it under the budget."""
        if self.device.kind == "cpu" and name != "decode":  # that phase is entered for every token
            trim()
        with self.meter.phase(name), capped(self.device, self.plan.budget):
            yield

    def retrying(self, run: Callable[[], Result]) -> Result:
        """Runs it; when memory runs out, again under a tighter plan, as long as there is one.

        Raises:
            BudgetError: nothing is left to give up.
        """
        while True:
            try:
                return run()
            except (RuntimeError, MemoryError) as error:
                self.recover(error)

    def recover(self, error: BaseException) -> None:
        """A tighter plan, where the error says that memory ran out; any other error is raised again."""
        if not is_out_of_memory(error):
            raise error
        error.__traceback__ = None  # it holds on to every tensor of the failed attempt
        self.tighten(f"memory ran out ({describe(error)[:120]})")

    @contextmanager
    def paged(self, forward: Forward, cache: Cache | None) -> Iterator[None]:
        """Inside the block the KV cache of `forward` lies outside the device's memory, where the plan says so."""
        if cache is None or self.plan.settings.compute.paging not in ("cache", "all"):
            yield
            return
        forward.page_out(cache, self.pages)
        try:
            yield
        finally:
            forward.page_in(cache, self.pages)

    def watch(self) -> None:
        """After a chunk: freed heap goes back, and a peak above the budget calls for a tighter plan.

        Raises:
            BudgetError: nothing is left to give up.
        """
        if self.device.kind == "cpu":
            trim()
        if self.meter.last > self.plan.budget:
            self.tighten(f"{format_bytes(self.meter.last)} were held")

    def tighten(self, why: str) -> None:
        """Goes one step down the result-preserving ladder.

        Raises:
            BudgetError: there is no further step.
        """
        plan = self.plan.tighter()
        if plan is None:
            term, size = self.plan.prediction.largest_term()
            raise BudgetError(
                f"{why} under the smallest plan (largest term: {term}, {format_bytes(size)})",
                f"no more than {format_bytes(self.plan.budget)}",
                "what was done so far is kept; use a larger budget, a smaller rank or a smaller window",
            )
        self.change(plan)

    def change(self, plan: Plan) -> None:
        """From now on `plan` holds, which is a tighter one."""
        self.plan = plan
        self._settle(plan)
        release_memory()
