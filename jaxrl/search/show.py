"""What the command shows of spaces, without training."""

from jaxrl.search.space import Space, load_space, packaged
from jaxrl.search.study import Proposer
from jaxrl.search.table import write_table


def list_spaces() -> str:
    """The packaged spaces, each with what it is for and how many of its hyperparameters vary."""
    spaces = {name: load_space(name) for name in packaged()}
    return "\n".join(
        f"{name}: {space.description} ({len(space.varying)} hyperparameters vary)"
        for name, space in spaces.items()
    )


def sample(space: Space, sampler: str, seed: int, count: int) -> str:
    """A table (CSV) of the first ``count`` configurations of a search in ``space``, which are also
    its whole first generation. Blank is the default.

    Raises:
        InputError: the sampler cannot be used.
    """
    rows = Proposer(space, sampler, seed, count).ask(0, count, [])
    return write_table(list(space.parameters), rows)
