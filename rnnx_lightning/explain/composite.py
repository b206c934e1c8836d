"""Composites: which layer gets which rule."""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field, replace
from fnmatch import fnmatchcase
from typing import Literal, get_args

from torch import Tensor, nn

from rnnx_lightning.explain.module_path import ModulePath, layer_names
from rnnx_lightning.explain.rules import Rule

Memory = Literal["merged", "per_step"]
Bias = Literal["share", "spread", "ignore"]
Sums = Literal["merged", "closed"]
Products = Literal["refuse", "half", "left", "right"]
Softmax = Literal["constant", "signal"]
Functions = Literal["refuse", "identity"]


@dataclass(frozen=True)
class Composite:
    """Chooses a rule for each linear operation: by the name of its layer, else the rule for pixels, else by type.

    The other fields choose between ways to treat memory cells, biases, sums, products and attention.

    Attributes:
        default: rule for everything that no other entry matches.
        pixels: rule for operations that read pixels; None: they are treated like others.
        by_type: rule by type of layer; the first match counts.
        by_name: rule by path of a layer ("front.0") or pattern ("front.*"); the first match counts.
        memory: "merged": a memory cell c_t = f_t c_{t-1} + i_t g_t is one linear map of all g_s; "per_step": it is
            a map of its own at each step, as in the published code of [AMMS17].
        bias: "share": a bias gets its share of a unit's relevance, which is lost; "spread": this share, and that
            of the stabiliser, are distributed evenly over the inputs of the unit; "ignore": biases get nothing.
        sums: "merged": a sum of linear maps (W x + U h, a residual sum) is one linear map; "closed": relevance is
            first divided among the terms, and then within each term.
        products: how the relevance of a product of two signals is divided. "refuse": an error; "half": each factor
            gets half (LRP-half); "left" or "right": that factor gets all. With "half" and "left", the divisor of a
            signal is a constant.
        softmax: "constant": attention weights get no relevance [Ali et al., 2022]; "signal": relevance goes
            through a softmax by its Taylor expansion at the input (AttnLRP [Achtibat et al., 2024]); use it with
            `products="half"`.
        functions: how a function with f(0) != 0 (exp, log, cos, 1 / x) is treated as a signal. "refuse": an error;
            "identity": it passes relevance on unchanged, as an activation does.

    Raises:
        ValueError: an option has an unknown value, or something is not a rule.

    Examples:
        >>> import torch
        >>> from torch import nn
        >>> from rnnx_lightning.explain import LRP, Epsilon, Flat, ZPlus
        >>> model = nn.Sequential(nn.Linear(2, 2, bias=False), nn.ReLU(), nn.Linear(2, 1, bias=False))
        >>> model[0].weight.data = torch.tensor([[1.0, 1.0], [1.0, -1.0]])
        >>> model[2].weight.data = torch.tensor([[2.0, 1.0]])
        >>> rules = Composite(Epsilon(0), pixels=Flat(), by_name={"2": ZPlus()})
        >>> LRP(rules)(model, torch.tensor([[3.0, 1.0]]))
        tensor([[5., 5.]])
    """

    default: Rule
    pixels: Rule | None = None
    by_type: Mapping[type[nn.Module], Rule] = field(default_factory=dict)
    by_name: Mapping[str, Rule] = field(default_factory=dict)
    memory: Memory = "merged"
    bias: Bias = "share"
    sums: Sums = "merged"
    products: Products = "refuse"
    softmax: Softmax = "constant"
    functions: Functions = "refuse"

    def __post_init__(self) -> None:
        choices = {"memory": Memory, "bias": Bias, "sums": Sums, "products": Products}
        choices |= {"softmax": Softmax, "functions": Functions}
        for name, ways in choices.items():
            if getattr(self, name) not in get_args(ways):
                raise ValueError(f"{name}={getattr(self, name)!r}: choose from {', '.join(get_args(ways))}")

        rules = {"default": self.default, "pixels": self.pixels or self.default}
        rules |= {f"by_type[{getattr(kind, '__name__', kind)}]": rule for kind, rule in self.by_type.items()}
        rules |= {f"by_name[{name!r}]": rule for name, rule in self.by_name.items()}
        for place, rule in rules.items():
            if not isinstance(rule, Rule):
                given = rule.__name__ if isinstance(rule, type) else repr(rule)
                raise ValueError(f"{place}={given} is not a rule: give an instance, such as Epsilon() or ZPlus()")
        if wrong := [kind for kind in self.by_type if not isinstance(kind, type)]:
            raise ValueError(
                f"by_type: {wrong[0]!r} is not a type of layer, such as nn.Conv2d; by_name takes names"
            )

    def rule(self, path: ModulePath, reads_pixels: bool) -> Rule:
        """The rule of an operation inside the module at `path`."""
        for pattern, rule in self.by_name.items():
            if fnmatchcase(path.name, pattern):
                return rule
        if reads_pixels and self.pixels is not None:
            return self.pixels
        for kind, rule in self.by_type.items():
            if isinstance(path.module, kind):
                return rule
        return self.default

    @property
    def zero_gets_nothing(self) -> bool:
        """Whether a hidden unit of value 0 (switched off by ReLU) gets no relevance, by a rule or from a bias."""
        rules = (self.default, *self.by_type.values(), *self.by_name.values())
        return self.bias != "spread" and all(rule.zero_gets_nothing for rule in rules)

    @property
    def by_layer(self) -> bool:
        """Whether rules depend on the layer."""
        return bool(self.by_type or self.by_name)

    def fitted(self, inputs: Sequence[Tensor]) -> "Composite":
        """The composite with its rule for pixels adapted to these inputs, each (B, ...)."""
        return self if self.pixels is None else replace(self, pixels=self.pixels.fitted(inputs))

    def check(self, model: nn.Module) -> None:
        """Refuse patterns that match no layer.

        Raises:
            ValueError: a pattern matches no layer; the message lists the layers.
        """
        if not self.by_name:
            return
        names = sorted(filter(None, layer_names(model).values()))
        for pattern in self.by_name:
            if not any(fnmatchcase(name, pattern) for name in names):
                raise ValueError(f"a rule is given for {pattern!r}, but the layers are {', '.join(names)}")
