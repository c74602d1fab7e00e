"""The tables of a comparison with peers, from its JSON alone."""

from __future__ import annotations

from typing import Any

from hoarfrost.evaluation.decode.peer_records import OVERALL
from hoarfrost.evaluation.decode.report import TextTable, thread_count

HEADER = ("engine", "runs in", "tokens/s", "over AR", "DDTree over it", "95 %", "differ")


def peer_tables(result: dict[str, Any]) -> list[TextTable]:
    """What each peer is over all prompts, and tokens/s set by set."""
    overall = [summary for summary in result["summary"] if summary["set"] == OVERALL]
    rows = tuple(_cells(result, summary) for summary in overall)
    sets = tuple(dict.fromkeys(summary["set"] for summary in result["summary"] if summary["set"] != OVERALL))
    rates = {(summary["peer"], summary["set"]): summary["tokens_per_second"] for summary in result["summary"]}
    by_set = tuple(
        (_label(result, summary["peer"]), *(_number(rates.get((summary["peer"], name))) for name in sets)) for summary in overall
    )
    return [
        TextTable("Decoding speed beside other engines", HEADER, 2, rows, sections=False),
        TextTable("Tokens/s by prompt set", ("engine", *sets), 1, by_set, sections=False),
    ]


def peer_caption(result: dict[str, Any]) -> str:
    """Where and under which conditions the peers were measured, and who is missing, in sentences."""
    machine, settings = result["machine"], result["settings"]
    counts = [f"{count} {name}" for name, count in settings["num_prompts"].items()]
    sentences = [
        f"{settings['model']}, greedy, {thread_count(settings)} of {machine['cpu'] or 'an unknown CPU'}, "
        f"commit {result['commit'] or 'unknown'}.",
        f"Prompts: {', '.join(counts)}; every engine decodes as many tokens as Hoarfrost's AR does until its answer ends or repeats "
        f"itself, at most {settings['max_new_tokens']}, prompt by prompt in turns.",
        f"Not counted: {settings['left_out']}. Over AR: its speed over Hoarfrost's AR; DDTree over it: Hoarfrost's DDTree over the engine, "
        "with the 95 % interval over prompts; differ: answers that are not those of Hoarfrost's AR, token for token.",
    ]
    sentences.extend(f"Not measured: {name} ({reason})." for name, reason in result["failures"].items())
    return " ".join(sentences)


def _cells(result: dict[str, Any], summary: dict[str, Any]) -> tuple[str, ...]:
    return (
        _label(result, summary["peer"]),
        result["peers"][summary["peer"]]["dtype"],
        _number(summary["tokens_per_second"]),
        _ratio(summary["over_plain"]),
        _ratio(summary["tree_over"]),
        _interval(summary["tree_over"]),
        f"{summary['num_differing']}/{summary['num_answers']}",
    )


def _label(result: dict[str, Any], peer: str) -> str:
    return str(result["peers"][peer]["label"])


def _number(value: float | None) -> str:
    return "-" if value is None else f"{value:.1f}"


def _ratio(value: dict[str, Any] | None) -> str:
    return "-" if value is None else f"{value['ratio']:.2f}x"


def _interval(value: dict[str, Any] | None) -> str:
    return "-" if value is None else f"{value['interval'][0]:.2f}-{value['interval'][1]:.2f}"
