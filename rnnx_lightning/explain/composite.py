"""Which layer gets which rule."""

from collections.abc import Mapping
from dataclasses import dataclass, field
from fnmatch import fnmatchcase

from torch import nn

from rnnx_lightning.explain.module_path import ModulePath, layer_names
from rnnx_lightning.explain.rules import Rule


@dataclass(frozen=True)
class Composite:
    """Chooses a rule for each linear operation: by the name of its layer, else as what reads pixels, else by type.

    Attributes:
        default: for what no other entry is for.
        pixels: for what reads pixels; None: no difference is made.
        by_type: layer type to rule; the first that fits.
        by_name: path of a layer ("front.0"), or a pattern ("front.*"), to rule; the first that fits.
    """

    default: Rule
    pixels: Rule | None = None
    by_type: Mapping[type[nn.Module], Rule] = field(default_factory=dict)
    by_name: Mapping[str, Rule] = field(default_factory=dict)

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
