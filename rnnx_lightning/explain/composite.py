"""Which layer gets which rule."""

from collections.abc import Mapping
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


@dataclass(frozen=True)
class Composite:
    """Chooses a rule for each linear operation: by the name of its layer, else as what reads pixels, else by type.

    The other fields say what else can be done in more than one way.

    Attributes:
        default: for what no other entry is for.
        pixels: for what reads pixels; None: no difference is made.
        by_type: layer type to rule; the first that fits.
        by_name: path of a layer ("front.0"), or a pattern ("front.*"), to rule; the first that fits.
        memory: "merged": a memory c_t = f_t c_{t-1} + i_t g_t is one linear map of all g_s; "per_step": it is
            closed at every step, as in the published code of [AMMS17].
        bias: "share": a bias takes its part of a unit's relevance, which is lost; "spread": that part, and the
            stabiliser's, goes evenly to all inputs of the unit; "ignore": biases take no part.
        sums: "merged": terms that are linear maps (W x + U h, a residual sum) are one linear map; "closed": each
            of them gets a share first, and shares it then.
        products: what a product of two signals is: "refuse": not explained; "half": either takes half (LRP-half);
            "left" or "right": the one of that side takes all. With "half" and "left" the divisor of a signal is a
            constant.
        softmax: "constant": attention weights take no relevance [Ali et al., 2022]; "signal": a softmax hands its
            relevance on by its Taylor expansion at the input (AttnLRP) [Achtibat et al., 2024]; `products="half"`
            goes with it.

    Raises:
        ValueError: there is no such way.
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

    def __post_init__(self) -> None:
        choices = {"memory": Memory, "bias": Bias, "sums": Sums, "products": Products, "softmax": Softmax}
        for name, ways in choices.items():
            if getattr(self, name) not in get_args(ways):
                raise ValueError(f"{name}={getattr(self, name)!r}: choose from {', '.join(get_args(ways))}")

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
        """No rule gives relevance to a hidden unit whose value is 0 (one that ReLU has switched off)."""
        rules = (self.default, *self.by_type.values(), *self.by_name.values())
        return all(rule.zero_gets_nothing for rule in rules)

    @property
    def by_layer(self) -> bool:
        """Whether the rule depends on the layer."""
        return bool(self.by_type or self.by_name)

    def fitted(self, inputs: Tensor) -> "Composite":
        """With the pixels' rule for these inputs."""
        return self if self.pixels is None else replace(self, pixels=self.pixels.fitted(inputs))

    def check(self, model: nn.Module) -> None:
        """Refuse names that fit no layer.

        Raises:
            ValueError: names the pattern and the layers that there are.
        """
        if not self.by_name:
            return
        names = sorted(filter(None, layer_names(model).values()))
        for pattern in self.by_name:
            if not any(fnmatchcase(name, pattern) for name in names):
                raise ValueError(f"a rule is given for {pattern!r}, but the layers are {', '.join(names)}")
