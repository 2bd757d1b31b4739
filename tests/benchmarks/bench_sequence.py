"""Memories of tokens against their token loops, published memories and torch: python tests/benchmarks/bench_sequence.py

4 streams, 4 heads of width 16 and 2 heads of width 32, forward and backward, on one thread (`--threads 1 2` for both)
or on a GPU (`--device cuda`). All take turns in each round; the figures are medians of process CPU time, which other
work on the machine disturbs least; the time on the wall stands beside it. For all, numbers too small for float32 count
as 0, else memories that fade to nothing, as some published ones do, would be slow for that reason alone.

Published memories are optional. Each that is missing is named with the command that installs it; see `sequence_peers`
for where they are looked for. One that needs more than `--patience` seconds for a step sits out the longer streams.
Before the race, ours and theirs are compared where the mathematics is the same.

Exit status 1 if a bar is missed: the delta rule in chunks 3 times as fast as fla's naive chunks at their best chunk
size (T = 1024 and 2048); exact Titans 4 times as fast as titans-pytorch with refreshed gradients, whatever its memory;
self-modifying Titans, trained through all writes, 10 times as fast as a step of any published one; all of ours linear
in T (T = 4096 at most 4.4 times T = 1024).

Self-modifying Titans, and Titans beside the linear memory of titans-pytorch, are judged as they are and after
`layer.compile()`, which needs a C++ compiler. The published ones run as published. What a step costs does not count the
seconds of compiling.
"""

from __future__ import annotations

import argparse
import sys
from pathlib import Path
from typing import Any, NamedTuple

import torch
from sequence_ours import OPS, OURS, YARDSTICKS
from sequence_peers import PEERS, find
from sequence_race import Racer, Size, Times, keep_memory, op_inputs, peak_megabytes, race, saved_megabytes

from nlcore.sequence import delta_rule

LINEAR = (1024, 4096, 4.4)
Table = dict[str, dict[int, Times]]


class Bar(NamedTuple):
    """How many times as fast as the fastest of some others one of ours has to be; `least` 0 only reports.

    Args     lengths: where the bar stands; None is at every length.
    """

    ours: str
    others: tuple[str, ...]
    least: float = 0.0
    lengths: tuple[int, ...] | None = None


BARS = (
    *(Bar(name, (f"{name} loop",)) for name in OPS),
    Bar("delta rule", tuple(f"fla delta chunk C={c}" for c in (16, 32, 64)), 3.0, (1024, 2048)),
    Bar("delta rule loop", ("fla delta loop",)),
    Bar("gated delta", ("fla gated delta chunk C=64",)),
    Bar("Titans layer", ("titans-pytorch MLP memory",), 4.0),
    Bar("Titans layer", ("titans-pytorch linear memory",), 4.0),
    Bar("Titans layer compiled", ("titans-pytorch linear memory",), 4.0),
    Bar("Titans layer period 16", ("titans-pytorch linear memory",)),
    Bar("Titans layer MLP", ("titans-pytorch MLP memory",)),
    Bar("Titans layer", ("titans-unofficial",)),
    Bar("Titans layer", ("titans-memory C=16",)),
    *(
        Bar(name, (f"nested-learning {what}",), 10.0)
        for name in ("self-modifying", "self-modifying compiled")
        for what in ("self-mod step", "HOPE block step")
    ),
    Bar("self-modifying", ("nested-learning self-mod update",)),
    Bar("self-modifying", ("aryateja2106 self-mod",), 10.0),
    Bar("self-modifying compiled", ("aryateja2106 self-mod",), 10.0),
    *(
        Bar(f"self-modifying {kind}1 head", ("nested-learning self-mod step",))
        for kind in ("", "MLP ", "MLP compiled ")
    ),
    *(Bar(name, ("torch attention",)) for name in OPS),
    Bar("self-modifying", ("torch GRU",)),
)


def measure(racers: list[Racer], sizes: list[Size], options: argparse.Namespace) -> Table:
    """Return the medians of every racer at every length that it is patient enough for."""
    table: Table = {racer.name: {} for racer in racers}
    slow: set[str] = set()
    for size in sizes:
        torch.manual_seed(0)
        torch.compiler.reset()  # each size is compiled for itself
        works = {racer.name: racer.build(size) for racer in racers if racer.name not in slow}
        for name, times in race(works, options.rounds, options.seconds, size.device).items():
            table[name][size.tokens] = times
        slow |= {
            r.name
            for r in racers
            if not r.ours and r.name in works and table[r.name][size.tokens].cpu > options.patience
        }
    return table


def print_table(table: Table, racers: list[Racer], lengths: list[int]) -> None:
    """Print milliseconds of CPU time, and on the wall, and by how much the longest stream costs more than the first."""
    print(f"{'ms a step, CPU (wall)':33}" + "".join(f"{f'T={length}':>17}" for length in lengths) + "    growth")
    notes = {racer.name: racer.note for racer in racers}
    for name, row in table.items():
        cells = (f"{1e3 * row[n].cpu:8.1f} ({1e3 * row[n].wall:.1f})" if n in row else "-" for n in lengths)
        first, last = min(row), max(row)
        growth = f"{row[last].cpu / row[first].cpu:.1f}x for {last // first}x" if last > first else ""
        print(f"{name:33}" + "".join(f"{cell:>17}" for cell in cells) + f"   {growth:15}{notes[name]}")


def judge(table: Table) -> list[str]:
    """Print every ratio; return the bars that were missed."""
    missed = []
    for bar in BARS:
        rows = [table[name] for name in (bar.ours, *bar.others) if name in table]
        if len(rows) < 2:
            continue
        what = f"{bar.others[0] if len(bar.others) == 1 else f'best of {bar.others[0]}, ...'} / {bar.ours}"
        ratios = {n: min(row[n].cpu for row in rows[1:] if n in row) / rows[0][n].cpu for n in rows[1] if n in rows[0]}
        words = "  ".join(f"T={n} {ratio:.1f}" for n, ratio in ratios.items())
        judged = {n: ratio for n, ratio in ratios.items() if bar.lengths is None or n in bar.lengths}
        verdict = _verdict(
            what, bool(judged) and min(judged.values()) >= bar.least, f">= {bar.least:g}", missed, judged
        )
        print(f"  {what:62} {words}{verdict if bar.least else ''}")
    short, long, most = LINEAR
    for racer in OURS:
        row = table.get(racer.name, {})
        if short in row and long in row:
            growth = row[long].cpu / row[short].cpu
            what = f"{racer.name}: T={long} / T={short}"
            print(f"  {what:62} {growth:.2f}" + _verdict(what, growth <= most, f"<= {most}", missed, True))
    return missed


def _verdict(what: str, good: bool, bar: str, missed: list[str], judged: Any) -> str:
    if not judged:
        return f"   not judged: {bar}"
    if not good:
        missed.append(what)
    return f"   {'met' if good else 'MISSED'}: {bar}"


def check_equal(fla: Any, size: Size) -> None:
    """Compare our delta rule with fla's in float64; raise AssertionError if they are not the same function."""
    torch.manual_seed(0)
    (q, k, v), (beta,) = ([x.detach().double() for x in part] for part in op_inputs(size, 1))
    ours = delta_rule(q * size.d**-0.5, k, v, beta)[0]
    worst = max((fla.delta_rule_chunkwise(q, k, v, beta, c)[0] - ours).abs().max().item() for c in (16, 32, 64))
    print(f"our delta rule and fla's chunks differ by {worst:.0e} in float64 at T={size.tokens}")
    assert worst < 1e-10, "the two are not the same function: do not compare their times"


def print_memory(racers: list[Racer], size: Size) -> None:
    """Print what each keeps for backward, and by how much a step raises the memory in use at its peak."""
    print(f"\nmemory of a step at T={size.tokens}, MB: kept for backward, and growth of the memory in use at the peak")
    for racer in racers:
        kept, peak = saved_megabytes(racer.build(size)), peak_megabytes(racer.build, size)
        words = ("torch.func hides it" if kept is None else f"{kept:.1f}", "unknown" if peak is None else f"{peak:.1f}")
        print(f"{racer.name:33}{words[0]:>20}{words[1]:>10}", flush=True)


def arguments() -> argparse.Namespace:
    """Return what the command line asks for."""
    parser = argparse.ArgumentParser(description=__doc__.split("\n")[0])
    parser.add_argument("--device", default="cpu", help="cpu or cuda")
    parser.add_argument("--threads", type=int, nargs="+", default=[1])
    parser.add_argument("--lengths", type=int, nargs="+", default=[256, 512, 1024, 2048, 4096])
    parser.add_argument(
        "--heads", type=int, nargs="+", default=[4, 2], help="the layers are 64 wide, whatever the heads"
    )
    parser.add_argument("--rounds", type=int, default=7)
    parser.add_argument("--seconds", type=float, default=3.0, help="after these a racer sits out, if it had two turns")
    parser.add_argument("--patience", type=float, default=3.0, help="a slower step: not raced on longer streams")
    parser.add_argument("--peer-path", type=Path, action="append", default=[], metavar="DIR", help="where peers are")
    parser.add_argument("--no-peers", action="store_true", help="race only with torch and the token loops")
    parser.add_argument("--no-compiled", action="store_true", help="leave out what torch.compile makes of ours")
    parser.add_argument("--only", default="", metavar="TEXT", help="race only those with this in their name")
    parser.add_argument("--no-memory", action="store_true", help="leave out what a step needs of memory")
    return parser.parse_args()


def main() -> int:
    options = arguments()
    torch.set_flush_denormal(True)
    keep_memory()
    torch.set_num_threads(options.threads[0])
    if options.device.startswith("cuda") and not torch.cuda.is_available():
        print("no GPU here: SKIPPED")
        return 0
    modules, published, missing = find(() if options.no_peers else PEERS, options.peer_path)
    if options.no_peers:
        missing = ["published memories: SKIPPED, as asked with --no-peers"]
    racers = [racer for racer in [*OURS, *published, *YARDSTICKS] if options.only in racer.name]
    racers = [racer for racer in racers if not (options.no_compiled and "compiled" in racer.name)]
    shapes = {
        heads: [Size(4, heads, 64 // heads, n, options.device) for n in options.lengths] for heads in options.heads
    }
    where = torch.cuda.get_device_name() if options.device.startswith("cuda") else "CPU"
    print(f"torch {torch.__version__} on {where}", *missing, sep="\n", flush=True)
    missed = []
    for heads, sizes in shapes.items():
        if "fla delta" in modules:
            check_equal(modules["fla delta"], sizes[0])
        for threads in options.threads:
            torch.set_num_threads(threads)
            print(f"\n{heads} heads of width {64 // heads}, {threads} thread{'s' if threads > 1 else ''}", flush=True)
            table = measure(racers, sizes, options)
            print_table(table, racers, options.lengths)
            missed += [f"{what} ({heads} heads, {threads} threads)" for what in judge(table)]
    if not options.no_memory:
        size = min(shapes[options.heads[0]], key=lambda size: abs(size.tokens - 1024))
        print_memory(racers, size)
    print("\nmissed: " + "; ".join(missed) if missed else "\nevery bar is met")
    return 1 if missed else 0


if __name__ == "__main__":
    sys.exit(main())
