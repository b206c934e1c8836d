"""The study's LRP of Shallow, whose first layer reads pixels and a state together, against dense algebra."""

import torch
from torch import Tensor

from rnnx_lightning.architectures import Deep, Shallow
from rnnx_lightning.explain import LRP, AlphaBeta, Composite, ZBox
from rnnx_lightning.explain.published import published_methods

STEPS, PIXELS = 12, 196


def share(positive: Tensor, negative: Tensor, relevance: Tensor) -> Tensor:
    """Alpha 1.5, beta 0.5 of contributions (B, outputs, inputs) >= 0; (B, inputs)."""

    def parts(contributions: Tensor) -> Tensor:
        total = contributions.sum(2, keepdim=True)
        return torch.where(total > 0, contributions / total, 0)

    some, less = positive.sum(2) > 0, negative.sum(2) > 0
    up = torch.where(less, 1.5, 1.0) * some * relevance
    down = torch.where(some, 0.5, -1.0) * less * relevance
    return (parts(positive) * up[..., None] - parts(negative) * down[..., None]).sum(1)


def contributions(inputs: Tensor, weight: Tensor) -> tuple[Tensor, Tensor]:
    all_of_them = inputs[:, None] * weight
    return all_of_them.clamp(min=0), (-all_of_them).clamp(min=0)


def test_shallow_by_hand():
    torch.manual_seed(0)
    model = Shallow().eval().double()
    x = torch.rand(4, 1, 28, 84, dtype=torch.float64) * 2 - 1
    from_pixels, from_state = model.cell.from_input.weight, model.cell.from_recurrent.weight
    to_state, out = model.cell.to_recurrent.weight, model.output.weight
    with torch.no_grad():
        steps = x.unflatten(3, (STEPS, 7)).permute(0, 3, 1, 2, 4).flatten(2)
        states, hidden = [torch.zeros(4, 256, dtype=torch.float64)], []
        for step in steps.unbind(1):
            hidden.append((step @ from_pixels.T + states[-1] @ from_state.T).relu())
            states.append((hidden[-1] @ to_state.T).relu())
        logits = hidden[-1] @ out.T
        target = logits.argmax(1)
        start = torch.zeros_like(logits).scatter(1, target[:, None], logits.gather(1, target[:, None]).relu())
        relevance, maps = share(*contributions(hidden[-1], out), start), []
        for number in reversed(range(STEPS)):
            pixels = steps[:, number, None] * from_pixels + from_pixels.relu() - from_pixels.clamp(max=0)
            above, below = contributions(states[number], from_state)
            shared = share(
                torch.cat([pixels, above], 2), torch.cat([torch.zeros_like(pixels), below], 2), relevance
            )
            maps.insert(0, shared[:, :PIXELS].view(4, 28, 7))
            if number:
                relevance = share(*contributions(hidden[number - 1], to_state), shared[:, PIXELS:])
    found = published_methods()["LRP"](model, x, target)
    assert (start.sum(1) > 0).all()
    torch.testing.assert_close(found, torch.cat(maps, 2)[:, None], rtol=1e-9, atol=1e-15)


def test_where_pixels_are_read_alone_they_have_z_b():
    model = Deep().eval().double()
    x = torch.rand(4, 1, 28, 84, dtype=torch.float64) * 2 - 1
    expected = LRP(Composite(AlphaBeta(1.5, 0.5), pixels=ZBox(-1, 1)))(model, x)
    torch.testing.assert_close(published_methods()["LRP"](model, x), expected)
