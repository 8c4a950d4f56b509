"""layer_table: one preset's figures from benchmarks/layers.py as a table."""

from __future__ import annotations

from typing import Any, Optional

from benchmarks.training_step import SIDES


def table(result: dict[str, Any]) -> str:
    """Kinds of layers in all, every layer, the parts, and what the machine can do."""
    batch_size, height, width = result["images"]
    ceilings = ", ".join(f"{value / 1e9:.0f} GFLOP/s in {name}" for name, value in result["ceilings"].items()
                         if name != "bytes")
    lines = [f"{result['preset']}: {batch_size}×3×{height}×{width}, {result['precision']}, {result['device']}, medians "
             f"of {result['repeats']} (in brackets: the quartiles of the ratio)",
             f"this machine: a product {ceilings}; a copy {result['ceilings']['bytes'] / 1e9:.1f} GB/s"]
    for title, rows in (("kinds of layers", kinds(result["layers"])), ("layers", layers(result["layers"])),
                        ("parts", parts(result["parts"]))):
        lines += ["", title, *aligned(rows)]
    return "\n".join(lines)


def kinds(rows: list[dict[str, Any]]) -> list[list[str]]:
    """A line for each kind, the most expensive first, and one for all of them."""
    lines = [["all calls of a step, forward and backward", "ours, ms", "torch.nn, ms", "ratio", "of our step",
              "parity saves, ms"]]
    names = sorted({row["kind"] for row in rows}, key=lambda kind: -sum_of(rows, "share", kind))
    for kind in (*names, None):
        ours, theirs = (sum(row["seconds"][side] for row in rows if kind in (None, row["kind"])) for side in SIDES)
        lines.append([kind or "together", f"{1e3 * ours:.1f}", f"{1e3 * theirs:.1f}", f"{ours / theirs:.2f}",
                      f"{sum_of(rows, 'share', kind):.1%}", f"{1e3 * sum_of(rows, 'parity_saves', kind):.1f}"])
    return lines


def sum_of(rows: list[dict[str, Any]], what: str, kind: Optional[str]) -> float:
    """Over the layers of a kind; None: over all."""
    return sum(row[what] for row in rows if kind in (None, row["kind"]))


def layers(rows: list[dict[str, Any]]) -> list[list[str]]:
    half, fast = any("error" in row for row in rows), any("compiled" in row for row in rows)
    lines = [["one call", "calls", "forward, ms", "torch.nn", "ratio", "+ backward", "torch.nn", "ratio", "",
              "of our step", "parity saves, ms", "GFLOP/s", "torch.nn", "×floor", "torch.nn", "MiB", "torch.nn",
              *(["error, largest", "torch.nn", "rms", "torch.nn"] if half else []),
              *(["compiled, ms", "torch.nn", "ratio"] if fast else [])]]
    for row in rows:
        whole, memory = row["whole"], row.get("memory_gib", {})
        speeds = [f"{row['work']['whole']['flops'] / whole[side]['median'] / 1e9:.1f}" for side in SIDES]
        lines.append([
            f"{row['kind']} {row['name']}", str(row["count"]), *milliseconds(row["forward"]), *milliseconds(whole),
            quartiles(whole), f"{row['share']:.1%}", f"{1e3 * row['parity_saves']:.2f}",
            *(speeds if row["work"]["whole"]["flops"] else ["", ""]),
            *(f"{whole[side]['median'] / row['floor']['whole']:.1f}" for side in SIDES),
            *(f"{1024 * memory[side]:.0f}" if memory else "" for side in SIDES),
            *([f"{row['error'][side][name]:.1e}" if "error" in row else "" for name in ("largest", "rms")
               for side in SIDES] if half else []),
            *(milliseconds(row["compiled"]) if fast else [])])
    failed = {f"{side}, {row['kind']} {row['name']}: {reason}" for row in rows
              for side, reason in row.get("compiled", {}).get("failed", {}).items()}
    return lines + [[f"not compiled: {line}"] for line in sorted(failed)]


def parts(rows: list[dict[str, Any]]) -> list[list[str]]:
    fast = any("compiled" in row for row in rows)
    lines = [["forward, and backward where there is one", "forward, ms", "torch.nn", "ratio", "in all, ms", "torch.nn",
              "ratio", "", "MiB", "torch.nn", *(["compiled, ms", "torch.nn", "ratio"] if fast else [])]]
    for row in rows:
        memory = row.get("memory_gib", {})
        lines.append([row["name"], *milliseconds(row.get("forward", {})), *milliseconds(row["whole"]),
                      quartiles(row["whole"]), *(f"{1024 * memory[side]:.0f}" if memory else "" for side in SIDES),
                      *(milliseconds(row.get("compiled", {})) if fast else [])])
    failed = [[f"not compiled: {side}, {row['name']}: {reason}"] for row in rows
              for side, reason in row.get("compiled", {}).get("failed", {}).items()]
    return lines + failed


def milliseconds(times: dict[str, Any]) -> list[str]:
    """Ours, torch.nn's and the ratio; nothing for what was not measured."""
    ours, theirs = (f"{1e3 * times[side]['median']:.3f}" if side in times else "" for side in SIDES)
    return [ours, theirs, f"{times['ratio']['median']:.2f}" if "ratio" in times else ""]


def quartiles(times: dict[str, Any]) -> str:
    return f"({times['ratio']['low']:.2f}–{times['ratio']['high']:.2f})"


def aligned(rows: list[list[str]]) -> list[str]:
    """Columns, the first to the left and the others to the right; a row of one cell is a remark, and has no columns."""
    columns = zip(*(row for row in rows if len(row) > 1), strict=True)
    widths = [max(map(len, column)) for column in columns]
    return ["  " + row[0].ljust(widths[0] if len(row) > 1 else 0)
            + "".join(f"  {cell:>{width}}" for cell, width in zip(row[1:], widths[1:])) for row in rows]
