"""One page that shows a run: class balance, examples, curves, confusion matrix, ROC (notebooks 00 and 10)."""

from __future__ import annotations

import base64
import html
import io
import os
from pathlib import Path
from typing import Any

import matplotlib.pyplot as plt
import pandas as pd
from matplotlib.figure import Figure

from bpsutils import plots
from bpsutils.config import Config
from bpsutils.evaluation import Evaluation

STYLE = """
body { font: 16px/1.5 system-ui, sans-serif; max-width: 60rem; margin: 2rem auto; padding: 0 1rem; color: #222 }
table { border-collapse: collapse } td, th { padding: .2rem .8rem; border-bottom: 1px solid #ddd; text-align: left }
td:last-child { font-variant-numeric: tabular-nums } img { max-width: 100% }
.note { background: #fff4d6; padding: .6rem 1rem }
"""


def write_report(
    path: str | os.PathLike[str],
    table: pd.DataFrame,
    history: pd.DataFrame,
    evaluation: Evaluation,
    metrics: dict[str, Any],
    config: Config,
) -> None:
    """Write a page that needs no other file.

    Args:
        path: Where to write.
        table: Rows with ``path``, ``split`` and the target, from `bpsutils.splits.split_table`.
        history: One row an epoch, from `bpsutils.training.train`.
        evaluation: Result on the test split.
        metrics: The content of ``metrics.json``.
        config: The experiment.
    """
    caption = plots.SIMULATED if metrics["simulated"] else ""
    figures = [
        ("Class balance", "Images of each class in each split.", plots.class_balance(table, config.target)),
        (
            "Examples of each split",
            "Drawn by the seed, before any model saw them.",
            plots.split_examples(table, config.target),
        ),
        ("Curves", "Loss and validation score after each epoch.", plots.curves(history, caption=caption)),
        (
            "Confusion matrix",
            "Test images, true class by predicted class.",
            plots.confusion(evaluation.confusion, caption=caption),
        ),
        ("ROC", f"How well the score ranks {config.classes[-1]}.", plots.roc(evaluation.predictions, caption=caption)),
    ]
    sections = "\n".join(_section(*figure) for figure in figures)
    kind = "simulated" if metrics["simulated"] else "real"
    warning = " Nothing here says anything about real nuclei." if metrics["simulated"] else ""
    title = f"{' against '.join(config.classes)}: balanced accuracy {metrics['balanced_accuracy']:.3f}"
    Path(path).write_text(
        f"""<!doctype html>
<html lang="en"><meta charset="utf-8"><title>{html.escape(title)}</title><style>{STYLE}</style>
<h1>{html.escape(title)}</h1>
<p>Measured on {kind} images of groups that the model never saw; brackets hold 95 % intervals.{warning}</p>
{f'<p class="note">{html.escape(metrics["note"])}</p>' if metrics["note"] else ""}
{_numbers(metrics)}
{sections}
</html>
""",
        encoding="utf-8",
    )


def _section(title: str, sentence: str, figure: Figure) -> str:
    """A heading, a figure with alternative text, a sentence."""
    buffer = io.BytesIO()
    figure.savefig(buffer, format="png", dpi=100, bbox_inches="tight")
    plt.close(figure)
    data = base64.b64encode(buffer.getvalue()).decode()
    return f'<h2>{title}</h2><p>{sentence}</p><img alt="{title}. {sentence}" src="data:image/png;base64,{data}">'


def _numbers(metrics: dict[str, Any]) -> str:
    """Every number of ``metrics``, with its interval in the same row where it has one."""
    rows = []
    for name, value in metrics.items():
        if name.endswith(("_low", "_high")) or name == "note":
            continue
        text = f"{value:.3f}" if isinstance(value, float) else str(value)
        if f"{name}_low" in metrics:
            text += f" [{metrics[f'{name}_low']:.3f}, {metrics[f'{name}_high']:.3f}]"
        rows.append(f"<tr><td>{html.escape(name)}</td><td>{html.escape(text)}</td></tr>")
    return f"<table>{''.join(rows)}</table>"
