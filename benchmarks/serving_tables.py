"""Servers under load: results -> Markdown tables."""

from collections.abc import Mapping, Sequence
from typing import Any

import numpy as np

from benchmarks.machine import machine_title
from benchmarks.servers import EMBEDSMITH
from benchmarks.tables import table


def render(results: Mapping[str, Any]) -> str:
    """All of it, with what was run and where."""
    title = machine_title(results["machine"])
    parts = [
        f"{title}; {results['model']}, {results['precision']}; {results['num_texts']:,} texts.",
        f"Made by `{results['command']}`.",
        load_table(results["loads"]),
    ]
    parts += [f"Left out: {label}: {reason}." for label, reason in results["left_out"].items()]
    if results["short"]:
        parts.append(short_line(results["short"]))
    if results["bad"]:
        parts.append(bad_table(results["bad"]))
    return "\n\n".join(parts)


def load_table(loads: Sequence[Mapping[str, Any]]) -> str:
    """A line for each number of clients and server; ratios are those of embedsmith's rate to theirs, round by round."""
    header = ["clients", "server", "texts a second", "embedsmith's, times this (rounds)", "p50 ms", "p99 ms"]
    header += ["answers", "faults", "smallest cosine to `encode` (mean)", "memory early and late, GB"]
    ours = {one["clients"]: one["texts_per_s_of_rounds"] for one in loads if one["server"].startswith(EMBEDSMITH)}
    return table(header, [_load_line(one, ours.get(one["clients"])) for one in loads])


def _load_line(one: Mapping[str, Any], ours: Sequence[float] | None) -> list[str]:
    rates = one["texts_per_s_of_rounds"]
    ratios = [own / other for own, other in zip(ours, rates, strict=False) if other] if ours else []
    each = ", ".join(f"{ratio:.2f}" for ratio in ratios)
    return [
        f"{one['clients']}",
        one["server"],
        f"{one['texts_per_s']:.1f}",
        f"{np.mean(ratios):.2f} ({each})" if ratios else "-",
        _milliseconds(one["p50_s"]),
        _milliseconds(one["p99_s"]),
        f"{one['answered']:,}",
        ", ".join(f"{count} of {name}" for name, count in one["faults"].items()) or "none",
        "-" if one["smallest_cosine"] is None else f"{one['smallest_cosine']:.7f} ({one['mean_cosine']:.7f})",
        ", ".join(f"{early / 1e9:.3f} {late / 1e9:.3f}" for early, late in one["resident_bytes"]),
    ]


def _milliseconds(seconds: float | None) -> str:
    return "-" if seconds is None else f"{1000 * seconds:.1f}"


def short_line(pairs: Sequence[tuple[float, float]]) -> str:
    """One short text: the server's time beside that of `encode`."""
    asked, encoded = 1000 * np.array(pairs).T
    ratios = np.percentile(asked / encoded, [25, 50, 75])
    return (
        f"One short text, alone: {np.median(asked):.2f} ms by the server, {np.median(encoded):.2f} ms by `encode` "
        f"in turn with it, {ratios[1]:.2f} ({ratios[0]:.2f} to {ratios[2]:.2f}) times; {len(pairs)} times each."
    )


def bad_table(bad: Mapping[str, tuple[int, float]]) -> str:
    """What is refused, with its status, and the slowest of its times."""
    return table(
        ["what is refused", "status", "ms, the slowest of three"],
        [[name, f"{status}", f"{1000 * seconds:.1f}"] for name, (status, seconds) in bad.items()],
    )
