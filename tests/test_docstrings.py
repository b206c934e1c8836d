"""The examples in docstrings give what they say."""

import doctest
import importlib
import pkgutil

import pytest

from rnnx_lightning import explain, metrics, rendering


def modules_with_examples():
    for package in (explain, metrics, rendering):
        for found in pkgutil.walk_packages(package.__path__, f"{package.__name__}."):
            if not found.name.endswith("__main__"):
                module = importlib.import_module(found.name)
                if any(test.examples for test in doctest.DocTestFinder().find(module)):
                    yield found.name


MODULES = list(modules_with_examples())


@pytest.mark.parametrize("name", MODULES)
def test_examples_run(name):
    failed, tried = doctest.testmod(importlib.import_module(name), optionflags=doctest.NORMALIZE_WHITESPACE)
    assert tried
    assert not failed


@pytest.mark.parametrize(
    "name", ["LRP", "DeepTaylor", "Composite", "Epsilon", "ZPlus", "AlphaBeta", "Gamma", "ZBox"]
)
def test_what_most_people_use_has_an_example(name):
    assert any(test.examples for test in doctest.DocTestFinder().find(getattr(explain, name)))
