"""Draw a figure with plotly, for notebooks and the report."""

from __future__ import annotations

from html import escape
from typing import TYPE_CHECKING, Any

from interp.report.figures import FAINT, INK, PALETTE, Figure, ends, graph_parts, interval_colours
from interp.report.text import printable

if TYPE_CHECKING:
    import plotly.graph_objects

__all__ = ["draw"]

MARKS = ("circle", "x-thin-open", "triangle-up", "cross-thin-open", "square", "triangle-down")
HOVER = "%{x}: %{y:.3f} [%{customdata[0]:.3f}, %{customdata[1]:.3f}]"


def draw(figure: Figure) -> plotly.graph_objects.Figure:
    """Give the figure as a plotly figure, its text escaped (plotly reads tags in labels)."""
    from plotly import graph_objects

    drawn = graph_objects.Figure(FORMS[figure.form](figure, graph_objects))
    drawn.update_layout(
        template="none",
        paper_bgcolor="rgba(0,0,0,0)",
        plot_bgcolor="rgba(0,0,0,0)",
        hovermode="closest",
        font={"family": "system-ui, sans-serif", "size": 13, "color": INK},
        margin={"l": 70, "r": 24, "t": 24, "b": 60},
        xaxis={
            "title": {"text": _safe(figure.x)},
            "automargin": True,
            "zeroline": False,
            "gridcolor": "rgba(138,147,158,0.22)",
        },
        yaxis={
            "title": {"text": _safe(figure.y)},
            "automargin": True,
            "zeroline": False,
            "gridcolor": "rgba(138,147,158,0.22)",
        },
        height=_height(figure),
        legend={"orientation": "h", "y": 1.12, "x": 0},
        meta={"title": figure.title, "caption": figure.caption},
    )
    AXES[figure.form](figure, drawn)
    return drawn


def _height(figure: Figure) -> int:
    down = {"counts": "actual", "map": "y"}.get(figure.form)
    rows = len(set(figure.data[down])) if down else len(figure.data)
    heights = {"curve": 380, "intervals": 150 + 44 * rows, "counts": 200 + 34 * rows, "map": 200 + 20 * rows}
    heights |= {"graph": 560, "scatter": 520}
    return heights[figure.form]


def _safe(text: object) -> str:
    return escape(printable(text), quote=False)


def _curve(figure: Figure, go: Any) -> list[Any]:
    traces = []
    for i, (name, part) in enumerate(figure.data.groupby("series", sort=False)):
        colour, part = PALETTE[i % len(PALETTE)], part.sort_values("x")
        x = [int(v) for v in part["x"]]
        band = [*part["high"], *part["low"][::-1]]
        traces.append(
            go.Scatter(
                x=x + x[::-1],
                y=band,
                fill="toself",
                fillcolor=colour,
                opacity=0.18,
                line={"width": 0},
                hoverinfo="skip",
                showlegend=False,
                legendgroup=str(i),
                mode="lines",
            )
        )
        traces.append(
            go.Scatter(
                x=x,
                y=list(part["value"]),
                name=_safe(name),
                mode="lines+markers",
                legendgroup=str(i),
                line={"color": colour, "width": 2},
                marker={"size": 6, "color": colour},
                customdata=part[["low", "high"]].to_numpy().tolist(),
                hovertemplate=f"{_safe(figure.x)} " + HOVER,
            )
        )
    return traces


def _intervals(figure: Figure, go: Any) -> list[Any]:
    rows = figure.data
    colours = interval_colours(figure)
    above, below = list(rows["high"] - rows["value"]), list(rows["value"] - rows["low"])
    return [
        go.Scatter(
            x=list(rows["value"][i : i + 1]),
            y=[_safe(rows["name"].iloc[i])],
            mode="markers",
            showlegend=False,
            marker={"size": 11, "color": colours[i]},
            error_x={
                "type": "data",
                "symmetric": False,
                "array": [above[i]],
                "arrayminus": [below[i]],
                "color": colours[i],
                "thickness": 2.4,
                "width": 0,
            },
            hovertemplate="%{y}: %{x:.3f}<extra></extra>",
        )
        for i in range(len(rows))
    ]


def _counts(figure: Figure, go: Any) -> list[Any]:
    names = list(dict.fromkeys(figure.data["actual"]))
    share = (
        figure.data.pivot(index="actual", columns="predicted", values="share")
        .reindex(index=names, columns=names)
        .fillna(0.0)
    )
    counts = (
        figure.data.pivot(index="actual", columns="predicted", values="n")
        .reindex(index=names, columns=names)
        .fillna(0)
    )
    labels = [_safe(name) for name in names]
    return [
        go.Heatmap(
            z=share.to_numpy().tolist(),
            x=labels,
            y=labels,
            customdata=counts.to_numpy().tolist(),
            zmin=0,
            zmax=1,
            colorscale=[[0, "rgba(0,114,178,0.04)"], [1, "rgba(0,114,178,0.9)"]],
            colorbar={"title": "share of row"},
            hovertemplate="%{y} read as %{x}: %{customdata} (%{z:.0%})<extra></extra>",
        )
    ]


def _map(figure: Figure, go: Any) -> list[Any]:
    data = figure.data[figure.data["clear"]] if "clear" in figure.data else figure.data
    table = data.pivot_table(index="y", columns="x", values="value")
    table = table.reindex(index=sorted(set(figure.data["y"])), columns=sorted(set(figure.data["x"])))
    most = float(table.abs().max().max()) if len(data) else 1.0
    most = most if figure.limits is None else max(map(abs, figure.limits))
    scale = [[0.0, PALETTE[1]], [0.5, "rgba(255,255,255,0.05)"], [1.0, PALETTE[0]]]
    return [
        go.Heatmap(
            x=table.columns.tolist(),
            y=table.index.tolist(),
            z=table.to_numpy().tolist(),
            zmin=-most,
            zmax=most,
            colorscale=scale,
            hovertemplate=f"{_safe(figure.y)} %{{y}}, {_safe(figure.x)} %{{x}}: %{{z:.3f}}<extra></extra>",
        )
    ]


def _graph(figure: Figure, go: Any) -> list[Any]:
    nodes, arrows = graph_parts(figure)
    strongest = max((abs(arrow.value) for arrow in arrows), default=0.0) or 1.0
    lines = [
        go.Scatter(
            x=[row.x, row.to_x],
            y=[row.y, row.to_y],
            mode="lines",
            line={
                "color": PALETTE[0] if row.value >= 0 else PALETTE[1],
                "width": 0.5 + 4 * abs(row.value) / strongest,
            },
            opacity=0.15 + 0.7 * abs(row.value) / strongest,
            hovertext=f"{_safe(row.name)}: {row.value:.3f}",
            hoverinfo="text",
            showlegend=False,
        )
        for row in arrows
    ]
    dots = go.Scatter(
        x=[node.x for node in nodes],
        y=[node.y for node in nodes],
        text=[_safe(node.name) for node in nodes],
        customdata=[node.value for node in nodes],
        mode="markers+text",
        textposition="top center",
        showlegend=False,
        marker={"size": 13, "color": [PALETTE[0] if node.value >= 0 else PALETTE[1] for node in nodes]},
        hovertemplate="%{text}: %{customdata:.3f}<extra></extra>",
    )
    return [*lines, dots]


def _scatter(figure: Figure, go: Any) -> list[Any]:
    low, high = ends(figure)
    same = go.Scatter(
        x=[low, high],
        y=[low, high],
        mode="lines",
        name="the same",
        hoverinfo="skip",
        line={"color": FAINT, "dash": "dash", "width": 1},
    )
    dots = [
        go.Scatter(
            x=list(part["x"]),
            y=list(part["y"]),
            text=[_safe(label) for label in part["name"]],
            name=_safe(name),
            mode="markers",
            marker={"size": 8, "color": PALETTE[i % len(PALETTE)], "symbol": MARKS[i % len(MARKS)]},
            hovertemplate="%{text}: %{x:.3f}, %{y:.3f}<extra></extra>",
        )
        for i, (name, part) in enumerate(figure.data.groupby("series", sort=False))
    ]
    return [same, *dots]


def _scatter_axes(figure: Figure, drawn: Any) -> None:
    drawn.update_xaxes(range=ends(figure))
    drawn.update_yaxes(range=ends(figure))


def _graph_axes(figure: Figure, drawn: Any) -> None:
    drawn.update_xaxes(visible=False)
    drawn.update_yaxes(showgrid=False)


def _map_axes(figure: Figure, drawn: Any) -> None:
    drawn.update_xaxes(dtick=1, showgrid=False)
    drawn.update_yaxes(showgrid=False)


def _curve_axes(figure: Figure, drawn: Any) -> None:
    drawn.update_yaxes(range=figure.limits)
    if figure.reference is not None:
        drawn.add_hline(
            y=figure.reference,
            line_dash="dash",
            line_color=FAINT,
            annotation_text=_safe(figure.reference_name),
        )


def _interval_axes(figure: Figure, drawn: Any) -> None:
    drawn.update_xaxes(range=figure.limits)
    drawn.update_yaxes(autorange="reversed", showgrid=False)
    if figure.band is not None:
        drawn.add_vrect(*figure.band, fillcolor=FAINT, opacity=0.16, line_width=0)
    if figure.reference is not None:
        drawn.add_vline(
            x=figure.reference,
            line_dash="dash",
            line_color=FAINT,
            annotation_text=_safe(figure.reference_name),
        )


def _count_axes(figure: Figure, drawn: Any) -> None:
    drawn.update_yaxes(autorange="reversed", showgrid=False)
    drawn.update_xaxes(showgrid=False)


FORMS = {
    "curve": _curve,
    "intervals": _intervals,
    "counts": _counts,
    "map": _map,
    "graph": _graph,
    "scatter": _scatter,
}
AXES = {
    "curve": _curve_axes,
    "intervals": _interval_axes,
    "counts": _count_axes,
    "map": _map_axes,
    "graph": _graph_axes,
    "scatter": _scatter_axes,
}
