"""Writes docs/operations.md: every operation that the explainer knows.

python -m rnnx_lightning.explain.operations > docs/operations.md
"""

from rnnx_lightning.explain.operations import TABLE

HEADINGS = {
    "linear_maps": "Linear maps",
    "arithmetic": "Sums and products",
    "activations": "Activations, gates, and where the winner takes all",
    "norms": "Norms",
    "shapes": "Moving, choosing and joining",
    "scatters": "Adding where an index says: messages of graphs",
    "writes": "Writing into tensors",
    "complex_numbers": "Complex numbers and Fourier transforms",
    "tokens": "Tokens and packed sequences",
}
INTRODUCTION = """# Operations that are explained

As torch runs them, below its modules and functions: `nn.Linear` is `addmm`, `x @ w` is `mm` or `bmm`, a residual
sum is `add`. In-place forms (`relu_`) are explained as the others. `nn.RNN`, `nn.LSTM`, `nn.GRU` and their cells
are explained as they are, attention as its products and its softmax. What is not here is refused if relevance
comes back to it; [extending.md](extending.md) says how to add an operation.

Written by `python -m rnnx_lightning.explain.operations`."""


def page() -> str:
    """The page, in Markdown."""
    rooms: dict[str, dict[str, set[str]]] = {room: {} for room in HEADINGS}
    for operation, recorder in TABLE.items():
        operation = operation[0] if isinstance(operation, tuple) else operation
        if operation.namespace != "aten":  # a user's own
            continue
        room = rooms[recorder.__module__.rpartition(".")[2]]
        says = (recorder.__doc__ or "").partition("\n")[0]
        room.setdefault(says, set()).add(str(operation).split(".")[1].strip("_"))
    lines = [INTRODUCTION]
    for name, rows in rooms.items():
        lines += ["", f"## {HEADINGS[name]}", ""]
        lines += [f"- {says} {', '.join(f'`{known}`' for known in sorted(names))}" for says, names in rows.items()]
    return "\n".join(lines) + "\n"


if __name__ == "__main__":
    print(page(), end="")
