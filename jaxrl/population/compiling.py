"""Compiles the programs of a training beside it, the dearest first."""

import concurrent.futures
import itertools
from collections.abc import Mapping, Sequence
from typing import Any

import jax

from jaxrl.population.program import Programs
from jaxrl.population.snapshot import Control


class Compiler:
    """Compiles ``programs``, in this order, stage by stage; whoever needs them waits.

    Traces on the thread of :meth:`run`, in the order of need, since Python traces one program at a
    time anyhow, and compiles on two others what has been traced.

    Args:
        control: of the training; its ``changed`` is notified of every stage that is ready.
    """

    def __init__(self, programs: Sequence[Programs], control: Control) -> None:
        self._programs = programs
        self._control = control

    def run(self) -> None:
        """Until everything is compiled, or the training is stopped."""
        stages = [
            (stage, programs)
            for stage, programs in itertools.product(Programs.STAGES, self._programs)
            if stage not in programs.ready
        ]
        with (
            concurrent.futures.ThreadPoolExecutor(max_workers=2) as pool,
            concurrent.futures.ThreadPoolExecutor(max_workers=len(stages) or 1) as waiting,
        ):
            ready = []
            for stage, programs in stages:
                compiling = {
                    name: pool.submit(self._compile, program())
                    for name, program in getattr(programs, stage)().items()
                }
                ready.append(waiting.submit(self._use, stage, programs, compiling))
                if self._control.stopping:
                    break
            for stage_ready in ready:
                stage_ready.result()

    def wait(self, stage: str, programs: Programs) -> bool:
        """Waits until a stage is ready; false where the training is stopped before."""
        with self._control.changed:
            self._control.changed.wait_for(
                lambda: self._control.stopping or stage in programs.ready
            )
            return stage in programs.ready

    def shapes_ready(self) -> int:
        """Of how many shapes agents can be trained."""
        training = Programs.STAGES[0]
        return len({p.functions.shape for p in self._programs if training in p.ready})

    def _compile(self, traced: jax.stages.Lowered) -> jax.stages.Compiled | None:
        return None if self._control.stopping else traced.compile()

    def _use(
        self,
        stage: str,
        programs: Programs,
        compiling: Mapping[str, concurrent.futures.Future[Any]],
    ) -> None:
        """Waits for a stage's programs, then has them used."""
        try:
            compiled = {name: one.result() for name, one in compiling.items()}
        except BaseException:
            self._control.stop()  # else it would be known once all the others are compiled
            raise
        if self._control.stopping:
            return  # some may not have been compiled
        programs.use(stage, compiled)
        with self._control.changed:
            self._control.changed.notify_all()
