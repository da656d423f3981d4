"""The results of playing all scenarios, for the documentation."""

from functools import cache

from conformance.stage import Play, run

from . import corpus, stage
from .comparing import differing_parts, plain


@cache
def same_as_workers(play: Play) -> set[str]:
    """Return the scenarios whose whole trace matches the recorded one."""
    return {
        scenario["name"]
        for scenario in corpus.scenarios()
        if not differing_parts(scenario["expect"], run(play, scenario))
    }


@cache
def same_asleep() -> set[str]:
    """Return the scenarios with the same trace when the object leaves memory."""
    return {
        scenario["name"]
        for scenario in corpus.scenarios()
        if plain(run(stage.always_asleep, scenario))
        == plain(run(stage.awake, scenario))
    }
