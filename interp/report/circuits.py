"""What is said and drawn of a circuit: its shares, faithfulness by size, and a drawing of its nodes."""

from __future__ import annotations

from typing import Any

from interp.report.figures import Figure
from interp.report.story import Number, Table

__all__ = ["circuit_figures", "circuit_number", "circuit_table", "circuit_verdict"]

DRAWN_NODES, DRAWN_EDGES = 40, 60
AREAS = {"CPR": "area under faithfulness (CPR)", "CMD": "area to full faithfulness (CMD)"}


def circuit_verdict(result: dict[str, Any]) -> str:
    """Give one sentence on the circuit; "" where there is none."""
    circuit = result.get("circuit")
    if not circuit:
        return ""
    rows = _runs(circuit)
    found, lucky = rows["the circuit"], rows.get("random circuits of this size")
    if found["share"] is None:
        return f"No share of the behaviour is given for a circuit: {circuit['evaluation']['no_share']}."
    beside = f", random circuits of that size {lucky['share']:.0%}" if lucky else ""
    where = "other pairs" if circuit["held_out"] else "the same pairs"
    return (
        f"The circuit of the {len(circuit['nodes']):,} largest of {circuit['universe']:,} keeps "
        f"{found['share']:.0%} {_interval(found)} of the behaviour on {where}{beside}."
    )


def circuit_number(result: dict[str, Any]) -> list[Number]:
    """Give the headline number of the circuit."""
    circuit = result.get("circuit")
    if not circuit:
        return []
    row = _runs(circuit)["the circuit"]
    if row["share"] is None:
        return []
    size = f"{len(circuit['nodes']):,} of {circuit['universe']:,} mediators"
    return [Number("Faithfulness of the circuit", f"{row['share']:.2f}", _interval(row), size)]


def _runs(circuit: dict[str, Any]) -> dict[str, dict[str, Any]]:
    return {row["what"]: row for row in circuit["evaluation"]["runs"]}


def circuit_table(result: dict[str, Any]) -> Table | None:
    """Give every run of the circuit with its controls, and every area beside a random order's."""
    circuit = result.get("circuit")
    if not circuit:
        return None
    found, rows = circuit["evaluation"], []
    for row in found["runs"]:
        between = _between(row["difference_low"], row["difference_high"])
        rows.append((row["what"], row["share"], _interval(row), row["difference"], between))
    for name, (own, control) in circuit["areas"].items():
        if own is None or control is None:
            continue
        rows.append((AREAS.get(name, f"faithfulness {name}"), own, f"random order {control:.3f}", None, ""))
    needed = found["minimality"]
    small = (
        f"Of {needed['tested']:,} members taken out one by one, {needed['needed']:,} are needed: without "
        "them the circuit keeps less, by more than 1% of the total and than what 95% of the others outside "
        "change if put in. Members that cover for each other are not seen so: "
        + (
            f"{needed['couples']:,} couples of the others were taken out together, and {needed['covered']:,} "
            "members are needed where another one is missing. "
            if needed["couples"]
            else "no couples were taken out. "
        )
        if needed
        else ""
    )
    named = ", ".join(circuit["nodes"][:12]) + (", ..." if len(circuit["nodes"]) > 12 else "")
    where = "pairs of other groups" if circuit["held_out"] else "of the same pairs"
    note = (
        "Size chosen on the ranking pairs: the smallest that keeps "
        f"{circuit['target']:.0%} of the behaviour. "
        f"Measured on {circuit['n_pairs']:,} {where}. {small}Where there is nothing to find (random weights, "
        f"arbitrary labels) there is no share, only m(...) - m(none). Areas are over the {circuit['x']}. "
        f"Members: {named}."
    )
    columns = (
        "what",
        "share",
        "95% interval",
        f"{found['metric']} above none",
        "its 95% interval",
    )
    return Table("The circuit", columns, tuple(rows), note=note, main=1)


def circuit_figures(result: dict[str, Any]) -> dict[str, Figure]:
    """Give faithfulness by size, and the drawing."""
    circuit = result.get("circuit")
    if not circuit:
        return {}
    drawing = _drawing(result)
    told = not any(value is None for value in circuit["faithfulness"])
    found = {"faithfulness": _curve(circuit)} if told else {}
    return found | ({"circuit": drawing} if drawing is not None else {})


def _interval(row: dict[str, Any]) -> str:
    return _between(row["low"], row["high"])


def _between(low: float | None, high: float | None) -> str:
    return "" if low is None or high is None or low != low else f"[{low:.2f}, {high:.2f}]"


def _curve(circuit: dict[str, Any]) -> Figure:
    import pandas

    series = {
        "largest effect first": circuit["faithfulness"],
        "random order": circuit["random_faithfulness"],
    }
    rows = [
        (size, name, value, value, value)
        for name, values in series.items()
        for size, value in zip(circuit["sizes"], values, strict=True)
    ]
    return Figure(
        "curve",
        pandas.DataFrame(rows, columns=["x", "series", "value", "low", "high"]),
        "Faithfulness by size of the circuit",
        f"Mean over {circuit['n_pairs']:,} pairs; all outside the circuit comes from the corrupt prompt.",
        x=f"{circuit['members']} in the circuit",
        y="share of the behaviour kept",
        reference=1.0,
        reference_name="the whole model",
    )


def _place(name: str, top: float, group: int) -> tuple[float, float] | None:
    """Give the place of a node by its layer and head; MLPs stand to the left of the heads.

    A key-value group of several heads stands below the middle of them.
    """
    kind, *numbers = name.split(".")
    if name == "embed":
        return 0.0, -1.0
    if name == "logits":
        return 0.0, top
    if not numbers or not all(part.isdigit() for part in numbers):
        return None
    layer = float(numbers[0])
    if kind in ("mlp_out", "mlp"):
        return -1.5, layer + 0.4
    if kind == "kv":
        return (float(numbers[1]) + 0.5) * group - 0.5, layer - 0.3
    return (float(numbers[1]) if len(numbers) > 1 else -2.5), layer


def _drawing(result: dict[str, Any]) -> Figure | None:
    """Draw nodes at layer and head, and arrows where the circuit is of edges."""
    import pandas

    values = {row["mediator"]: float(row["effect"]) for row in result["effects"]}
    whole = result["circuit"]["nodes"]
    nodes = sorted(whole, key=lambda name: -abs(values.get(name, 0.0)))[:DRAWN_EDGES]
    group = int(result["circuit"].get("heads_per_group", 1))
    layers = [
        int(part) for name in nodes for part in name.replace("->", ".").split(".")[1:2] if part.isdigit()
    ]
    top = max(layers, default=0) + 1.5
    rows: list[tuple[str, float, float, float | None, float | None, float]] = []
    weights: dict[str, float] = {}
    for name in nodes:
        if "->" not in name:
            weights[name] = values.get(name, 0.0)
            continue
        writer, reader = (_node(end, group) for end in name.split("->"))
        here, there = _place(writer, top, group), _place(reader, top, group)
        if here is None or there is None:
            return None
        rows.append((name, *here, *there, values.get(name, 0.0)))
        for end in (writer, reader):
            weights[end] = weights.get(end, 0.0) + values.get(name, 0.0)
    for name, value in sorted(weights.items(), key=lambda item: -abs(item[1]))[:DRAWN_NODES]:
        place = _place(name, top, group)
        if place is None:
            return None
        rows.append((name, *place, None, None, value))
    part = f"The {len(nodes)} largest of {len(whole):,}. " if len(nodes) < len(whole) else ""
    caption = (
        f"{part}Up is later. The larger the dot, the larger the effect on {result['metric']}; blue works"
    )
    return Figure(
        "graph",
        pandas.DataFrame(rows, columns=["name", "x", "y", "to_x", "to_y", "value"]),
        "The circuit",
        f"{caption} towards the clean answer, orange against it.",
        x="head",
        y="layer",
    )


def _node(name: str, group: int) -> str:
    """Give the node of an edge's end: queries, keys and values belong to their head or their group."""
    kind, *rest = name.split(".")
    if kind in ("k", "v") and group > 1:
        return ".".join(["kv", *rest])
    if kind in ("q", "k", "v"):
        return ".".join(["head", *rest])
    return f"mlp_out.{rest[0]}" if kind == "mlp" else name
