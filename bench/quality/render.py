#!/usr/bin/env python3
"""Draws what quality_report has measured: one table policy x budget x recall, and a plot of fidelity against device budget.
Where there are cells of kvpress, a second table compares each preset with kvpress's version of it, question by question. Cells of the
suite mass have a table of their own, and no place in the plot: they have no budget.

  bench/quality/render.py CELLS.json ... [--svg FILE]

Several files are one: the later cell wins. Needs nothing but Python.
"""

import argparse
import html
import json
import statistics
import sys

RECALLS = ("off", "sync", "async")
# suite (or its task) -> metric that the table and the plot show, its title there, digits
HEADLINES = {
    "lookup": ("turn", "lookup: right of 40", 0),
    "text": ("loss", "text: nats per token above the full cache", 3),
    "divergence": ("kl", "KL from the full cache, nats", 3),
}
COLOURS = ("#1b6ca8", "#d1495b", "#2a9d5c", "#e08e1b", "#7b4fa6", "#17a2a2", "#8c5a2b", "#c2408f", "#6b7a1e", "#4c4c4c",
           "#3f5bd9", "#a33b1f", "#0f7a5a", "#b59a00")


def headline(suite):
    return HEADLINES.get(suite, ("nll", f"needles, {suite.replace('-', ', question ')}: nats per token", 3))


def load(paths):
    cells = {}
    for path in paths:
        with open(path, encoding="utf-8") as file:
            for cell in json.load(file):
                cells[cell["preset"], cell["budget"], cell["recall"], cell["suite"], cell["length"]] = cell
    return list(cells.values())


def rows_of(cells):
    """(preset, budget, recall) in the order of the presets' first cells; the full cache first."""
    presets = list(dict.fromkeys(cell["preset"] for cell in cells))
    keys = {(cell["preset"], cell["budget"], cell["recall"]) for cell in cells}
    return sorted(keys, key=lambda key: (key[0] != "full", -key[1], presets.index(key[0]), RECALLS.index(key[2].split(":")[0])))


def value_of(cell):
    metrics = cell["metrics"]
    metric, _, digits = headline(cell["suite"])
    if cell["suite"] == "lookup":
        return f"{metrics['turn']:.0f}" + (f" ({metrics['step1']:.0f}, {metrics['step2']:.0f})" if cell["recall"] == "async" else "")
    if cell["suite"] == "text":
        return f"{metrics['nll']:.3f}" if cell["preset"] == "full" else f"{metrics['loss']:+.3f}"
    if cell["suite"] == "divergence":
        return f"{metrics['kl']:.3f} / {100 * metrics['agree']:.0f} % / {metrics['prefix']:.0f}"
    error = f" ± {metrics['nll_error']:.{digits}f}" if "nll_error" in metrics else ""
    return f"{metrics[metric]:.{digits}f}{error} ({metrics['first']:.2f})"


def title_of(suite, length):
    return {"lookup": f"lookup {length:,}", "text": f"text {length:,}",
            "divergence": f"KL / agree / prefix {length:,}"}.get(suite, f"{suite} {length:,}")


def table(cells):
    columns = list(dict.fromkeys((cell["suite"], cell["length"]) for cell in cells))
    lines = ["| policy | budget | recall | " + " | ".join(title_of(*column) for column in columns) +
             " | resident % | index % | staged MiB | rows a step | late | lost |"]
    lines.append("|" + "---|" * (9 + len(columns)))
    for row in rows_of(cells):
        of_row = {(c["suite"], c["length"]): c for c in cells if (c["preset"], c["budget"], c["recall"]) == row}
        all_of = list(of_row.values())
        shown = [value_of(of_row[column]) if column in of_row else "" for column in columns]
        where = "device" if any(c["index_on_device"] for c in all_of) else "host"
        index = max(c["index"] for c in all_of)
        cost = [f"{100 * max(c['resident'] for c in all_of):.1f}",
                f"{100 * index:.1f} {where}" if index > 0 else "0",
                f"{max(c['staged_bytes'] for c in all_of) / 2**20:.1f}",
                f"{sum(c['rows_per_step'] for c in all_of) / len(all_of):,.0f}",
                f"{sum(c['late_rows'] for c in all_of):,}", f"{sum(c['lost_rows'] for c in all_of):,}"]
        name = [row[0], "" if row[0] == "full" else f"{row[1]:g}", "" if row[0] == "full" else row[2]]
        lines.append("| " + " | ".join(name + shown + cost) + " |")
    return "\n".join(lines)


MASS = "mass-"


def mass_table(cells):
    """Attention captured, by how the rows were selected and how many they are."""
    counts = sorted(int(metric[len("rows"):]) for metric in cells[0]["metrics"] if metric.startswith("rows"))
    lines = ["| captured attention, by selection | " + " | ".join(f"B = {count}" for count in counts) + " |",
             "|" + "---|" * (1 + len(counts))]
    for cell in cells:
        shown = [f"{cell['metrics'][f'rows{count}']:.3f}" for count in counts]
        lines.append("| " + " | ".join([cell["suite"][len(MASS):], *shown]) + " |")
    return "\n".join(lines)


PEER = "kvpress "


def peer_table(cells):
    """Each preset without recall against kvpress's, each above its own full cache: the engines differ in their arithmetic."""
    of = {(c["preset"], c["budget"], c["recall"], c["suite"], c["length"]): c["items"] for c in cells if c.get("items")}
    lines = []
    for (preset, budget, recall, suite, length), items in of.items():
        full = of.get(("full", 1, "off", suite, length))
        peer = of.get((PEER + preset, budget, "off", suite, length))
        peer_full = of.get((PEER + "full", 1, "off", suite, length))
        if preset == "full" or recall != "off" or not (full and peer and peer_full):
            continue
        if len({len(items), len(full), len(peer), len(peer_full)}) > 1:  # other contexts
            continue
        ours, theirs = [a - b for a, b in zip(items, full)], [a - b for a, b in zip(peer, peer_full)]
        differences = [a - b for a, b in zip(ours, theirs)]
        error = statistics.stdev(differences) / len(differences)**0.5 if len(differences) > 1 else 0
        lines.append(f"| {preset} | {budget:g} | {title_of(suite, length)} | {len(items)} | {statistics.fmean(ours):+.3f} | "
                     f"{statistics.fmean(theirs):+.3f} | {statistics.fmean(differences):+.3f} ± {error:.3f} |")
    if not lines:
        return ""
    head = ["| policy | budget | suite | questions | loss, ours | loss, kvpress | difference |", "|" + "---|" * 7]
    return "\n".join(head + lines)


# --- The plot ---------------------------------------------------------------------------------------------------------

PANEL_WIDTH, PANEL_HEIGHT, LEFT, TOP, GAP, LEGEND = 330, 250, 58, 46, 76, 170


def text_at(x, y, words, anchor="start", size=11, colour="#333", weight="normal"):
    return (f'<text x="{x:.1f}" y="{y:.1f}" text-anchor="{anchor}" font-size="{size}" fill="{colour}" '
            f'font-weight="{weight}">{html.escape(words)}</text>')


def panel(cells, suite, left, colours):
    """One suite: the mean of its headline metric over the lengths, against the budget."""
    metric, title, digits = headline(suite)
    of_suite = [cell for cell in cells if cell["suite"] == suite]
    points, full = {}, []
    for cell in of_suite:
        if cell["preset"] == "full":
            full.append(cell["metrics"][metric])
        else:
            points.setdefault((cell["preset"], cell["recall"]), {}).setdefault(cell["budget"], []).append(cell["metrics"][metric])
    if not points:
        return []
    lines = {key: sorted((budget, sum(v) / len(v)) for budget, v in line.items()) for key, line in points.items()}
    full_value = sum(full) / len(full) if full else None
    budgets = sorted({budget for line in lines.values() for budget, _ in line})
    values = [value for line in lines.values() for _, value in line] + ([full_value] if full else [])
    low, high = min(values + [0]), max(values) or 1
    high += 0.05 * (high - low)

    def x_of(budget):
        return left + 24 + (PANEL_WIDTH - 48) * (budgets.index(budget) / max(1, len(budgets) - 1))

    def y_of(value):
        return TOP + PANEL_HEIGHT * (high - value) / (high - low)

    out = [text_at(left, TOP - 18, title, size=12, weight="bold")]
    for i in range(5):
        value = low + (high - low) * i / 4
        out.append(f'<line x1="{left}" x2="{left + PANEL_WIDTH}" y1="{y_of(value):.1f}" y2="{y_of(value):.1f}" stroke="#e3e3e3"/>')
        out.append(text_at(left - 6, y_of(value) + 4, f"{value:.{max(digits - 1, 0)}f}", "end", 10, "#666"))
    for budget in budgets:
        out.append(text_at(x_of(budget), TOP + PANEL_HEIGHT + 16, f"{100 * budget:g} %", "middle", 10, "#666"))
    out.append(text_at(left + PANEL_WIDTH / 2, TOP + PANEL_HEIGHT + 34, "device budget, of the full cache's rows", "middle", 11, "#666"))
    if full_value is not None:
        y = y_of(full_value)
        out.append(f'<line x1="{left}" x2="{left + PANEL_WIDTH}" y1="{y:.1f}" y2="{y:.1f}" stroke="#111" stroke-width="1"/>')
        out.append(text_at(left + PANEL_WIDTH, y - 4, "full cache", "end", 10, "#111"))
    dash = {"off": "5 4", "sync": "", "async": "1.5 3"}
    for (preset, recall), line in lines.items():
        path = " ".join(f"{x_of(budget):.1f},{y_of(value):.1f}" for budget, value in line)
        style = f'stroke="{colours[preset]}" stroke-width="1.8" stroke-dasharray="{dash[recall.split(":")[0]]}" stroke-linecap="round"'
        out.append(f'<polyline points="{path}" fill="none" {style}/>')
        for budget, value in line:
            tip = html.escape(f"{preset}, recall {recall}, {100 * budget:g} %: {value:.{digits}f}")
            out.append(f'<circle cx="{x_of(budget):.1f}" cy="{y_of(value):.1f}" r="2.8" fill="{colours[preset]}"><title>{tip}</title></circle>')
    return out


def plot(cells):
    presets = list(dict.fromkeys(cell["preset"] for cell in cells if cell["preset"] != "full"))
    colours = {preset: COLOURS[i % len(COLOURS)] for i, preset in enumerate(presets)}
    suites = list(dict.fromkeys(cell["suite"] for cell in cells))
    width = LEFT + len(suites) * (PANEL_WIDTH + GAP) + LEGEND
    height = max(TOP + PANEL_HEIGHT + 56, TOP + 18 * (len(presets) + 5))
    out = [f'<svg xmlns="http://www.w3.org/2000/svg" viewBox="0 0 {width} {height}" width="{width}" height="{height}" '
           'font-family="system-ui, sans-serif">', f'<rect width="{width}" height="{height}" fill="#fff"/>']
    for i, suite in enumerate(suites):
        out += panel(cells, suite, LEFT + i * (PANEL_WIDTH + GAP), colours)
    x, y = LEFT + len(suites) * (PANEL_WIDTH + GAP) - GAP + 30, TOP
    for preset in presets:
        out.append(f'<circle cx="{x + 10}" cy="{y - 4}" r="4" fill="{colours[preset]}"/>' + text_at(x + 26, y, preset))
        y += 18
    for recall, dashes in (("off", "5 4"), ("sync", ""), ("async", "1.5 3")):
        y += 18
        out.append(f'<line x1="{x}" x2="{x + 22}" y1="{y - 4}" y2="{y - 4}" stroke="#333" stroke-width="1.8" stroke-dasharray="{dashes}"/>' +
                   text_at(x + 26, y, f"recall {recall}"))
    return "\n".join(out + ["</svg>", ""])


def main():
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("cells", nargs="+")
    parser.add_argument("--svg", default="")
    arguments = parser.parse_args()
    cells = load(arguments.cells)
    mass = [cell for cell in cells if cell["suite"].startswith(MASS)]
    cells = [cell for cell in cells if not cell["suite"].startswith(MASS)]
    # The lookup model and the real one hold different caches: a table for each.
    for group in ([c for c in cells if c["suite"] == "lookup"], [c for c in cells if c["suite"] != "lookup"]):
        if group:
            print(table(group), end="\n\n")
    if mass:
        print(mass_table(mass), end="\n\n")
    if peers := peer_table(cells):
        print(peers, end="\n\n")
    if arguments.svg:
        with open(arguments.svg, "w", encoding="utf-8") as file:
            file.write(plot(cells))
    return 0


if __name__ == "__main__":
    sys.exit(main())
